"""The pytest plugin, in a pytest of its own: with pytest-asyncio, with anyio, with neither; and what it reports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.readme import ROOT, environment

APP = """
import asyncio

import pytest

import duly

app = duly.App(__name__)


@duly.mutation
async def draw(ctx: duly.MutationCtx) -> float:
    await ctx.scheduler.run_after(0, fail)
    return ctx.random.random()


@duly.internal_mutation
async def fail(ctx: duly.MutationCtx) -> None:
    raise ValueError("on purpose")
"""

PASSES = """

{mark}
async def test_it(duly_run):
    async with duly_run(app) as t:
        t.allow_failures()
        print("drawn", await t.mutation(draw))
        await t.run_due()
        assert len(await t.jobs(state="failed")) == 1
"""

ANYIO = """

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

PLAIN = """

def test_it(duly_run):
    async def scenario():
        async with duly_run(app) as t:
            t.allow_failures()
            print("drawn", await t.mutation(draw))

    asyncio.run(scenario())
"""

FAILS = """

def test_it(duly_run):
    async def scenario():
        async with duly_run(app) as t:
            await t.mutation(draw)
            await t.run_due()

    asyncio.run(scenario())
"""


def pytest_in(folder: Path, test: str, *arguments: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(APP + test)
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider"]
    options = ["-o", "asyncio_default_fixture_loop_scope=function", *arguments]
    done = subprocess.run(
        [*command, *options], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "test",
    [
        PASSES.format(mark="@pytest.mark.asyncio"),
        PASSES.format(mark="@pytest.mark.anyio") + ANYIO,
        PLAIN,
    ],
    ids=["pytest-asyncio", "anyio", "neither"],
)
def test_the_fixture_works_whatever_runs_the_test(tmp_path: Path, test: str) -> None:
    code, output = pytest_in(tmp_path, test)
    assert code == 0, output
    assert "1 passed" in output


def test_the_seed_of_the_command_line_decides(tmp_path: Path) -> None:
    def drawn(*arguments: str) -> str:
        code, output = pytest_in(tmp_path, PLAIN, *arguments)
        assert code == 0, output
        found = re.search(r"drawn (\S+)", output)
        assert found is not None
        return found[1]

    assert drawn() == drawn("--duly-seed=0") != drawn("--duly-seed=1")


def test_a_test_that_fails_tells_what_duly_ran(tmp_path: Path) -> None:
    code, output = pytest_in(tmp_path, FAILS)
    assert code == 1
    assert "FunctionFailedError: test_it:fail() failed: ValueError: on purpose" in output
    assert re.search(r"what duly ran -+\n.*called +test_it:draw", output), output


def test_the_page_on_testing_works_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        (tmp_path / name[1]).write_text(block, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
