"""Moments that clients were given, and what becomes of those that the store gives up."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
import psycopg
import pytest

import duly
from duly._ground.clock import SystemClock
from duly._store.open import make_store
from duly._store.port import Store, Transaction
from duly.errors import ConflictError, DulyError, StoreUnavailableError
from duly.server.snapshots import SnapshotGoneError, Snapshots
from tests.server import app as served
from tests.store.rows import new_id
from tests.support import ManualClock, turns


class Kept:
    """A snapshot of a store that counts them."""

    def __init__(self) -> None:
        self.closed = False
        self.answer = asyncio.Event()
        self.answer.set()

    async def read(self, body: Callable[[Transaction], Awaitable[Any]]) -> Any:
        await self.answer.wait()
        assert not self.closed

    async def close(self) -> None:
        self.closed = True


class Counting:
    def __init__(self) -> None:
        self.snapshots: list[Kept] = []

    async def snapshot(self) -> Kept:
        await asyncio.sleep(0)
        self.snapshots.append(Kept())
        return self.snapshots[-1]


class Spoilt:
    """A snapshot that others have made one that never was, or that was cut off."""

    closed = False

    def __init__(self, error: DulyError) -> None:
        self.error = error

    async def read(self, body: Callable[[Transaction], Awaitable[Any]]) -> Any:
        raise self.error

    async def close(self) -> None:
        self.closed = True


class Spoiling:
    """A store of which each is."""

    def __init__(self, error: DulyError) -> None:
        self.error = error
        self.snapshots: list[Spoilt] = []

    async def snapshot(self) -> Spoilt:
        self.snapshots.append(Spoilt(self.error))
        return self.snapshots[-1]


async def read_nothing(tx: Transaction) -> None: ...


@pytest.mark.parametrize("error", [ConflictError("spoilt"), StoreUnavailableError("cut off")])
async def test_a_moment_that_others_spoil_or_that_is_cut_off_is_gone(error: DulyError) -> None:
    """Whoever was given it is to ask for another one, and is not told to try again for as long as it would be held."""
    store = Spoiling(error)
    snapshots = Snapshots(lambda: cast("Store", store), SystemClock())
    moment = await snapshots.hold(lambda: 1)
    with pytest.raises(SnapshotGoneError):
        await snapshots.read(moment, read_nothing)
    assert store.snapshots[0].closed
    with pytest.raises(SnapshotGoneError):
        await snapshots.read(moment, read_nothing)


async def test_however_many_ask_nobody_is_turned_away_or_waits_for_long() -> None:
    """And what was given out is kept for a minute, whoever else comes."""
    clock, store, stamps = ManualClock(), Counting(), itertools.count(1)
    snapshots = Snapshots(lambda: cast("Store", store), clock)
    waits, kept = list[float](), dict[int, float]()

    def held() -> int:
        return sum(not snapshot.closed for snapshot in store.snapshots)

    for _ in range(60):
        asked, asking = clock.monotonic(), asyncio.ensure_future(snapshots.hold(lambda: next(stamps)))
        await turns()
        while not asking.done():
            await clock.advance(0.5)
        waits.append(clock.monotonic() - asked)
        kept[await asking] = clock.monotonic()
        assert held() <= 20
        for moment, since in kept.items():
            if clock.monotonic() - since < 60:
                await snapshots.read(moment, read_nothing)
    assert waits[:10] == [0.0] * 10
    assert max(waits) < 10
    assert len(set(kept)) == 60


async def test_those_who_wait_share_a_moment_that_is_later_than_they_came() -> None:
    clock, store, stamps = ManualClock(), Counting(), itertools.count(1)
    snapshots = Snapshots(lambda: cast("Store", store), clock)
    for _ in range(10):
        await snapshots.hold(lambda: next(stamps))
    waiting = [asyncio.ensure_future(snapshots.hold(lambda: next(stamps))) for _ in range(5)]
    gone = waiting.pop()
    await turns()
    gone.cancel()
    assert not any(one.done() for one in waiting)
    await clock.advance(7)
    assert {await one for one in waiting} == {11}
    assert len(store.snapshots) == 11
    # Who comes while one is being taken does not know what is in it.
    await clock.advance(100)
    second: list[asyncio.Future[int]] = []

    def stamp() -> int:
        second.append(asyncio.ensure_future(snapshots.hold(lambda: next(stamps))))
        return next(stamps)

    first = await snapshots.hold(stamp)
    assert first < await second[0]


async def test_a_moment_that_is_being_read_is_not_taken_away() -> None:
    clock, store, stamps = ManualClock(), Counting(), itertools.count(1)
    snapshots = Snapshots(lambda: cast("Store", store), clock)
    moments = [await snapshots.hold(lambda: next(stamps)) for _ in range(10)]
    while len(moments) < 20:
        asking = asyncio.ensure_future(snapshots.hold(lambda: next(stamps)))
        await clock.advance(7)
        moments.append(await asking)
        for moment in moments:
            await snapshots.read(moment, read_nothing)
    for snapshot in store.snapshots:
        snapshot.answer.clear()
    reading = [asyncio.ensure_future(snapshots.read(moment, read_nothing)) for moment in moments]
    asking = asyncio.ensure_future(snapshots.hold(lambda: next(stamps)))
    await clock.advance(2)
    assert not asking.done()
    assert not any(snapshot.closed for snapshot in store.snapshots)
    store.snapshots[3].answer.set()
    await clock.advance(2)
    assert asking.done()
    assert [number for number, snapshot in enumerate(store.snapshots) if snapshot.closed] == [3]
    for snapshot in store.snapshots:
        snapshot.answer.set()
    await asyncio.gather(*reading)


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


async def test_a_moment_from_before_the_app_was_closed_is_gone(lasting_database: str) -> None:
    app = duly.App(served.__name__, database=lasting_database)
    transport = httpx.ASGITransport(app.asgi(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        async with app.client():
            ts = (await client.post("/api/query_ts")).json()["ts"]
        async with app.client():
            answer = await client.post("/api/query_at_ts", json={"path": "app:texts", "args": {}, "ts": ts})
    assert (answer.status_code, answer.json()["code"]) == (400, "SnapshotTooOld")
