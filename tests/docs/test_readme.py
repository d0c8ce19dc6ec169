"""What README.md shows is run as it stands, and what it says of `kill -9` is done."""

import importlib
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import duly
from tests.docs import readme
from tests.docs.readme import DULY, Background
from tests.support import eventually

# What the test below adds to README's shop: many orders at once, and a look at all of them.
MANY = """

@duly.mutation
async def create_many(ctx: duly.MutationCtx, n: int) -> None:
    for number in range(n):
        order_id = await ctx.run_mutation(create_order, items=[f"tea no. {number}."])
        await ctx.scheduler.run_after(40 * number, archive_order, order_id=order_id)


@duly.query
async def all_jobs(ctx: duly.QueryCtx) -> list[duly.ScheduledFunction]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@duly.query
async def count_archived(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query(orders).with_index("by_status", status="archived").count()
"""

ORDERS = 40
DAY_MS = 24 * 60 * 60 * 1_000


async def test_the_commands_of_the_readme_work_as_written(tmp_path: Path, postgresql_url: str) -> None:
    readme.write_files(tmp_path)
    outputs: dict[str, str] = {}
    database: list[str] = []
    background: list[Background] = []
    try:
        for command in readme.commands():
            match command:
                case ["pip", "install", "." | ".[postgresql]"] | ["make", _]:
                    continue  # the environment of these tests is made by the latter
                case ["export", setting]:
                    assert setting.startswith("DULY_DATABASE_URL=postgresql://")
                    database = ["--database", postgresql_url]
                case ["duly", "worker", _]:
                    background.append(Background(tmp_path, *DULY, *command[1:], *database))
                    await eventually(lambda: background[-1].has_printed("runs shop:app on postgresql://"))
                case ["duly", "dev", _]:
                    background.append(Background(tmp_path, *DULY, *command[1:]))
                case ["duly", "run", *_]:
                    outputs["run"] = readme.run(tmp_path, *DULY, *command[1:])
                    await eventually(lambda: background[0].has_printed("Dear customer, thank you for ['tea']"))
                case ["duly", name, *_]:
                    outputs[name] = readme.run(tmp_path, *DULY, *command[1:], *database)
                case _:
                    pytest.fail(f"README.md gives a command that is not tested: {command}")
    finally:
        for process in background:
            process.end(signal.SIGTERM)
    assert re.fullmatch(r'"[0-9a-z]{32}"\n', outputs["run"])
    assert "shop:send_confirmation" in outputs["jobs"]
    assert "shop:archive_order" in outputs["jobs"]
    assert "schema version" in outputs["migrate"]


async def test_the_worker_command_of_the_readme_runs_what_was_scheduled_before(tmp_path: Path) -> None:
    readme.write_files(tmp_path)
    assert "`duly worker shop:app`" in readme.TEXT
    readme.run(tmp_path, *DULY, "run", "shop:app", "shop:create_order", '{"items": ["tea"]}')
    with Background(tmp_path, *DULY, "worker", "shop:app") as worker:
        await eventually(lambda: worker.has_printed("Dear customer, thank you for ['tea']"))


def test_the_program_of_the_readme_places_an_order(tmp_path: Path) -> None:
    readme.write_files(tmp_path)
    printed = readme.run(tmp_path, sys.executable, "place.py")
    assert re.search(r"^[0-9a-z]{32}$", printed, re.MULTILINE)
    assert (tmp_path / "duly.db").is_file()


def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    readme.write_files(tmp_path)
    printed = readme.run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py")
    assert "1 passed" in printed


def test_the_files_of_the_readme_pass_mypy_strict_and_a_wrong_argument_does_not(tmp_path: Path) -> None:
    readme.write_files(tmp_path)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    assert readme.run(tmp_path, *mypy, *readme.files()) == ""
    place = tmp_path / "place.py"
    place.write_text(place.read_text().replace('items=["tea"]', "items=7"))
    with pytest.raises(AssertionError, match='No overload variant of "mutation" of "App"'):
        readme.run(tmp_path, *mypy, "place.py")


async def test_after_kill_9_everything_that_was_scheduled_happens(tmp_path: Path, shop: ModuleType) -> None:
    worker = [*DULY, "worker", "shop:app"]
    app: duly.App = shop.app
    async with app.client():

        async def jobs(name: str) -> list[dict[str, Any]]:
            """Those of a function that are not for next week."""
            rows: list[dict[str, Any]] = await app.query(shop.all_jobs)
            return [row for row in rows if row["name"] == name and row["scheduledTime"] - row["_creationTime"] < DAY_MS]

        async def archived(at_least: int) -> bool:
            return bool(await app.query(shop.count_archived) >= at_least)

        with Background(tmp_path, *worker) as first:
            await eventually(lambda: first.has_printed("runs shop:app"))
            await app.mutation(shop.create_many, n=ORDERS)  # durable when it returns: from here on nothing may be lost
            first.end(signal.SIGKILL)
        with Background(tmp_path, *worker) as second:
            await eventually(lambda: archived(at_least=1))
            second.end(signal.SIGKILL)
        with Background(tmp_path, *worker) as third:
            await eventually(lambda: archived(at_least=ORDERS // 2))
            third.end(signal.SIGKILL)
        with Background(tmp_path, *worker) as last:
            await eventually(lambda: archived(at_least=ORDERS))

            async def mailed() -> bool:
                rows = await jobs("shop:send_confirmation")
                return all(row["state"]["kind"] in ("success", "failed") for row in rows)

            await eventually(mailed)
            output = last.output

        archivals = await jobs("shop:archive_order")
        assert len(archivals) == ORDERS
        assert {row["state"]["kind"] for row in archivals} == {"success"}
        confirmations = await jobs("shop:send_confirmation")
        assert len(confirmations) == ORDERS
        mails = Counter(re.findall(r"tea no\. \d+\.", output))
        assert not [mail for mail, times in mails.items() if times > 1]
        for row in confirmations:
            if row["state"]["kind"] == "failed":
                assert row["state"]["error"].startswith("interrupted: the worker stopped")
        succeeded = [row for row in confirmations if row["state"]["kind"] == "success"]
        assert len(succeeded) <= len(mails) <= ORDERS


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """README's shop, in this process as well."""
    readme.write_files(tmp_path)
    with (tmp_path / "shop.py").open("a") as file:
        file.write(MANY)
    monkeypatch.delenv("DULY_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    yield importlib.import_module("shop")
    del sys.modules["shop"]
