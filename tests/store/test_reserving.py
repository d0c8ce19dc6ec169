"""While a group of due mutations is committed, the next is reserved. Only on PostgreSQL is anything reserved."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from duly._ground.clock import SystemClock
from duly._model.job import Job
from duly._store.open import make_store
from duly._store.port import Position, Store, Transaction
from duly._store.postgresql.wire import Statement, Wire
from duly.errors import ConflictError
from tests.store.rows import NOTES, add_jobs, new_job
from tests.support import eventually


@pytest.fixture
async def store(postgresql_url: str) -> Any:
    opened = make_store(postgresql_url, SystemClock())
    await opened.open([])
    await opened.register_worker("w", 10, {})
    yield opened
    await opened.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all statements that are sent."""
    run, names = Wire.run_here, list[str]()

    async def watched(wire: Wire, statements: Sequence[Statement], afterwards: Any = None) -> Any:
        names.extend(statement.name for statement in statements)
        return await run(wire, statements, afterwards)

    monkeypatch.setattr(Wire, "run_here", watched)
    return names


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """What is reserved ahead gets there once something else is reserved or released, and before that is known; or when
    nothing is for a while. Set when it has got there."""
    run, landed, begun, others = Wire.run_here, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def delayed(wire: Wire, statements: Sequence[Statement], afterwards: Any = None) -> Any:
        named = {statement.name: list(statement.parameters or ()) for statement in statements}
        if "jobs_reserve" in named and named["jobs_reserve"][4] != named["jobs_reserve"][5]:
            begun.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(others.wait(), 0.2)
            answers = await run(wire, statements, afterwards)
            landed.set()
            return answers
        answers = await run(wire, statements, afterwards)
        if begun.is_set() and not named.keys().isdisjoint({"jobs_reserve", "jobs_release"}):
            others.set()
            await landed.wait()
        return answers

    monkeypatch.setattr(Wire, "run_here", delayed)
    return landed


async def due(store: Store, count: int) -> list[Job]:
    now = store.clock.now_ms() - 1_000
    jobs = [new_job(due=now + number) for number in range(count)]
    await add_jobs(store, *jobs)
    return jobs


class Look:
    """Runs what is due, as a worker does."""

    def __init__(self, store: Store, *, limit: int = 3, runs: int | None = None, cancels: Job | None = None) -> None:
        self._store = store
        self._limit, self._runs, self._cancels = limit, runs, cancels
        self.fails = False
        self.turns = 0

    async def __call__(self, tx: Transaction) -> list[str]:
        self.turns += 1
        now = self._store.clock.now_ms()
        found = await tx.due_jobs("mutation", now, self._limit)
        for job in found[: self._runs]:
            assert await tx.settle_job(job.id, "pending", 0, "success", now)
        if self._cancels is not None and await tx.get_job_state(self._cancels.id) == "pending":
            await tx.settle_job(self._cancels.id, "pending", 0, "canceled", now)
        if self.fails:
            raise ValueError("as the test asked for")
        return [job.id for job in found]


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


async def test_the_next_look_finds_reserved_what_comes_next(store: Store, asked: list[str]) -> None:
    jobs = await due(store, 7)
    assert await store.transact(Look(store), claims=True) == ids(jobs[:3])
    asked.clear()
    assert await store.transact(Look(store), claims=True) == ids(jobs[3:6])
    # Only what is for the look after that.
    assert asked.count("jobs_reserve") == 1
    assert await store.transact(Look(store), claims=True) == ids(jobs[6:])
    assert await store.transact(Look(store), claims=True) == []


async def test_what_a_look_found_and_did_not_run_comes_first(store: Store) -> None:
    jobs = await due(store, 6)
    await store.transact(Look(store, runs=2), claims=True)
    assert await store.transact(Look(store), claims=True) == ids(jobs[2:5])


async def test_a_look_that_fails_has_reserved_nothing_for_the_next(store: Store) -> None:
    jobs = await due(store, 6)
    look = Look(store)
    look.fails = True
    with pytest.raises(ValueError, match="as the test asked for"):
        await store.transact(look, claims=True)
    assert await store.transact(Look(store), claims=True) == ids(jobs[:3])
    assert await store.transact(Look(store), claims=True) == ids(jobs[3:])


async def test_a_smaller_look_begins_anew(store: Store) -> None:
    jobs = await due(store, 6)
    await store.transact(Look(store), claims=True)
    assert await store.transact(Look(store, limit=2), claims=True) == ids(jobs[3:5])
    assert await store.transact(Look(store, limit=2), claims=True) == ids(jobs[5:])


async def test_C1_what_a_group_cancels_does_not_run_after_it(store: Store) -> None:
    jobs = await due(store, 6)
    look = Look(store, cancels=jobs[3])
    await store.transact(look, claims=True)
    # It did not lose against itself.
    assert look.turns == 1
    assert await store.transact(Look(store), claims=True) == ids(jobs[4:])


async def test_C1_what_others_cancel_meanwhile_does_not_run(store: Store) -> None:
    jobs = await due(store, 6)
    await store.transact(Look(store), claims=True)

    async def cancels(tx: Transaction) -> None:
        await tx.settle_job(jobs[3].id, "pending", 0, "canceled", store.clock.now_ms())

    async def runs_until_it_wins() -> list[str]:
        while True:
            try:
                return await store.transact(Look(store), claims=True)
            except ConflictError:
                continue

    await store.transact(cancels)
    assert await runs_until_it_wins() == ids(jobs[4:])
    assert (await store.read(lambda tx: tx.get_job(jobs[3].id))).state == "canceled"  # type: ignore[union-attr]


@pytest.mark.parametrize("fixture", ["asked", "late"], ids=["reserved", "being reserved"])
async def test_a_worker_that_stops_gives_it_back(
    store: Store, postgresql_url: str, request: pytest.FixtureRequest, fixture: str
) -> None:
    request.getfixturevalue(fixture)
    jobs = await due(store, 6)
    await store.transact(Look(store), claims=True)
    await store.unregister_worker("w")
    other = make_store(postgresql_url, SystemClock())
    await other.open([])
    await other.register_worker("another", 10, {})
    assert await other.transact(Look(other), claims=True) == ids(jobs[3:])
    await other.close()


@pytest.mark.usefixtures("late")
async def test_what_is_reserved_ahead_takes_nothing_from_the_next_look_however_late_it_comes(store: Store) -> None:
    jobs = await due(store, 7)
    await store.transact(Look(store), claims=True)
    look = Look(store, limit=2)
    assert await store.transact(look, claims=True) == ids(jobs[3:5])
    assert look.turns == 1


async def test_what_comes_due_after_the_last_was_reserved_is_run_at_once(store: Store, postgresql_url: str) -> None:
    """It is not taken for one that somebody else holds."""
    await due(store, 5)
    await store.transact(Look(store), claims=True)

    async def reserved() -> bool:
        async with await psycopg.AsyncConnection.connect(postgresql_url) as connection:
            found = await connection.execute(
                "SELECT count(*) FROM duly.scheduled_functions WHERE state = 'pending' AND reserved_by = 'w'"
            )
            return await found.fetchone() == (2,)

    assert await eventually(reserved)
    await due(store, 1)

    async def looks(tx: Transaction) -> float | None:
        assert len(await Look(store)(tx)) == 2
        return await tx.next_due("mutation")

    next_due = await store.transact(looks, claims=True)
    assert next_due is not None
    assert next_due < store.clock.now_ms()


async def test_S7_what_a_group_found_and_has_not_run_comes_first_also_after_something_was_undone(store: Store) -> None:
    jobs = await due(store, 6)
    later = [new_job(due=store.clock.now_ms() + 60_000) for _ in range(2)]
    await add_jobs(store, *later)

    async def runs_one(tx: Transaction) -> None:
        now = store.clock.now_ms()
        assert len(await tx.due_jobs("mutation", now, 3)) == 3
        savepoint = tx.savepoint()
        for job in later:
            assert await tx.settle_job(job.id, "pending", 0, "canceled", now)
        await tx.scan(None, Position(b"", NOTES), Position(b"", NOTES + "~"), descending=False, limit=1)
        await tx.rollback(savepoint)
        assert await tx.settle_job(jobs[0].id, "pending", 0, "success", now)

    await store.transact(runs_one, claims=True)
    assert await store.transact(Look(store), claims=True) == ids(jobs[1:4])


async def test_two_workers_run_each_job_once(store: Store, postgresql_url: str) -> None:
    jobs = await due(store, 200)
    other = make_store(postgresql_url, SystemClock())
    await other.open([])
    await other.register_worker("another", 10, {})

    async def works(worker: Store) -> list[str]:
        done = list[str]()
        while len(done) < len(jobs):
            try:
                found = await worker.transact(Look(worker, limit=10), claims=True)
            except ConflictError:  # as often as it pleases the server: a worker looks again
                continue
            if not found:
                break
            done += found
        return done

    ours, theirs = await asyncio.gather(works(store), works(other))
    left = await works(store)
    assert sorted(ours + theirs + left) == sorted(ids(jobs))
    await other.close()
