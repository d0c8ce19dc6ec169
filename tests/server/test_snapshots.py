"""Moments that clients were given, and what becomes of those that the store gives up."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import psycopg
import pytest

from duly._ground.clock import SystemClock
from duly._store.open import make_store
from duly._store.port import Store, Transaction
from duly.errors import ConflictError, StoreUnavailableError
from duly.server.snapshots import SnapshotGoneError, Snapshots
from tests.store.rows import new_id


class Spoilt:
    """A snapshot that others have made one that never was."""

    closed = False

    async def read(self, body: Callable[[Transaction], Awaitable[Any]]) -> Any:
        raise ConflictError("as the test asked for")

    async def close(self) -> None:
        self.closed = True


class Spoiling:
    """A store of which they do so with each."""

    def __init__(self) -> None:
        self.snapshots: list[Spoilt] = []

    async def snapshot(self) -> Spoilt:
        self.snapshots.append(Spoilt())
        return self.snapshots[-1]


async def read_nothing(tx: Transaction) -> None: ...


async def test_a_moment_that_others_spoil_is_gone() -> None:
    """Whoever was given it is to ask for another one, and is not told to try again for as long as it would be held."""
    store = Spoiling()
    snapshots = Snapshots(lambda: cast("Store", store), SystemClock())
    moment = await snapshots.hold(lambda: 1)
    with pytest.raises(SnapshotGoneError):
        await snapshots.read(moment, read_nothing)
    assert store.snapshots[0].closed
    with pytest.raises(SnapshotGoneError):
        await snapshots.read(moment, read_nothing)


async def test_a_snapshot_that_is_lost_answers_nothing_though_the_query_hides_it(postgresql_url: str) -> None:
    async def hides_what_went_wrong(tx: Transaction) -> str | None:
        with contextlib.suppress(StoreUnavailableError):
            return await tx.get_document(new_id())
        return "as if it were there"

    store = make_store(postgresql_url, SystemClock())
    await store.open([])
    snapshot = await store.snapshot()
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        ).fetchall()
    assert ended == [(True,)]
    with pytest.raises(StoreUnavailableError):
        await snapshot.read(hides_what_went_wrong)
    await snapshot.close()
    await store.close()
