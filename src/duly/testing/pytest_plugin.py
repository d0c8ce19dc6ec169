"""The fixture `duly_run` for pytest, whatever runs the async tests: pytest-asyncio, anyio, or asyncio.run in the test.

It is `duly.testing.run` with the seed of the command line (`--duly-seed`); and when a test fails, the report says what
its scheduled functions did.
"""

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest

from duly._app import App
from duly.testing.fixture import RunApp
from duly.testing.run import Run, run

__all__ = ["duly_run"]

_RUNS = pytest.StashKey[list[Run]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("duly").addoption(
        "--duly-seed", type=int, default=0, help="chooses the ids, ctx.random and the backoffs of duly_run (default: 0)"
    )


@pytest.fixture
def duly_run(request: pytest.FixtureRequest) -> RunApp:
    """Runs an app in memory, on a virtual clock: `async with duly_run(app) as t`. See `duly.testing.run`."""
    runs: list[Run] = request.node.stash.setdefault(_RUNS, [])
    default_seed = int(request.config.getoption("duly_seed") or 0)

    @asynccontextmanager
    async def start_run(
        app: App,
        *,
        start: datetime | None = None,
        seed: int | None = None,
        patience: timedelta = timedelta(seconds=5),
    ) -> AsyncIterator[Run]:
        async with run(app, start=start, seed=default_seed if seed is None else seed, patience=patience) as t:
            runs.append(t)
            yield t

    return start_run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed:
        for t in item.stash.get(_RUNS, []):
            report.sections.append(("what duly ran", t.history or "nothing"))
    return report
