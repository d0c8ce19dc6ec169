"""An opened store of every engine, and more of them on the same database for the engines that can."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from duly._ground.clock import Clock, SystemClock
from duly._model.schema import Table
from duly._store.port import Store
from tests import postgres
from tests.store.engines import ENGINES, Engine


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    return prepared(request)


@pytest.fixture(params=[engine for engine in ENGINES if engine.durable], ids=lambda engine: engine.name)
def durable_engine(request: pytest.FixtureRequest) -> Engine:
    return prepared(request)


def empty_database(engine: Engine, folder: Path, request: pytest.FixtureRequest, *, other: bool = False) -> None:
    """An empty database for an engine in a folder: also for each of many examples of one test.

    Args:
        other: Another one than that of the test, which may go on beside it.
    """
    if engine.name == "postgresql":
        url: str = request.getfixturevalue("other_postgresql_database" if other else "postgresql_database")
        postgres.empty(url)
        (folder / "postgresql").write_text(url)


def prepared(request: pytest.FixtureRequest) -> Engine:
    """The engine that a test is for, with an empty database in its folder."""
    engine: Engine = request.param
    empty_database(engine, request.getfixturevalue("tmp_path"), request)
    return engine


class Stores:
    """Opens stores on the database of one temporary folder, and closes what the test leaves open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[Store] = []

    async def open(self, engine: Engine, tables: Sequence[Table[Any]] = (), clock: Clock | None = None) -> Store:
        store = engine.make(self.folder, clock or SystemClock())
        await store.open(tables)
        self._open.append(store)
        return store

    async def close(self, store: Store) -> None:
        self._open.remove(store)
        await store.close()

    async def close_all(self) -> None:
        while self._open:
            await self._open.pop().close()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    opened = Stores(tmp_path)
    yield opened
    await opened.close_all()


@pytest.fixture
async def store(engine: Engine, stores: Stores) -> Store:
    return await stores.open(engine)
