"""Writes that are kept back, handed over, undone and done again come to the same as writes that happen at once.

Whatever a body does, in whatever order it reads, writes and rolls back: what it sees, and what is committed, is what a
plain dict that is copied at each savepoint would hold.
"""

import asyncio
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duly._ground.clock import SystemClock
from duly._ground.ids import ID_HIGHEST
from duly._model.job import Job, settle
from duly._model.schema import Index
from duly._store import buffered
from duly._store.port import Position, Store, Transaction
from duly.errors import SQLError, StoreError
from tests.store.conftest import Stores, empty_database
from tests.store.engines import ENGINES, Engine
from tests.store.rows import NOTES, NOW, new_id, new_job
from tests.support import own_table

FIRST, LAST = Position(b"", NOTES), Position(b"", NOTES + ID_HIGHEST)
LOWEST, HIGHEST = Position(b"", ""), Position(b"\xff\xff", "")

# Few, so that the steps meet on the same rows.
NAMES = range(2)

STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), st.integers(0, 99)),
    st.tuples(st.sampled_from(["delete", "get", "toggle entry", "schedule", "settle", "look"]), st.sampled_from(NAMES)),
    st.tuples(
        st.sampled_from(["savepoint", "release", "rollback", "scan", "due", "write", "table", "sql", "bad sql"]),
        st.just(0),
    ),
)
BODIES = st.lists(st.tuples(st.lists(STEPS, max_size=40), st.booleans()), min_size=1, max_size=4)


class GivenUpError(Exception):
    """What a body raises that is to leave nothing."""


@dataclass
class Model:
    """What the database holds."""

    documents: dict[str, str] = field(default_factory=dict)
    entries: set[tuple[bytes, str]] = field(default_factory=set)
    jobs: dict[str, Job] = field(default_factory=dict)


class Body:
    """Takes the steps in a transaction and in the model, and compares what they show."""

    def __init__(self, model: Model, rows: Sequence[str], jobs: list[Job], index: int, documents: str) -> None:
        self.model = model
        self._documents = documents
        self._rows, self._jobs, self._index = rows, jobs, index
        self._saved: list[tuple[int, Model]] = []

    async def run(self, tx: Transaction, steps: list[tuple[Any, ...]]) -> None:
        for what, number, *rest in steps:
            await self._write(tx, what, number, *rest)
            await self._nest(tx, what)
            await self._read(tx, what, number)
        while self._saved:
            await tx.release(self._saved.pop()[0])

    async def _write(self, tx: Transaction, what: str, number: int, *rest: int) -> None:
        id, key, model = self._rows[number], b"k%d" % (number % 2), self.model
        match what:
            case "put":
                body = f'{{"n":{rest[0]}}}'
                await (tx.replace_document if id in model.documents else tx.insert_document)(id, body)
                model.documents[id] = body
            case "delete" if id in model.documents and (key, id) not in model.entries:
                await tx.delete_document(id)
                del model.documents[id]
            case "toggle entry" if id in model.documents:
                there = (key, id) in model.entries
                await (tx.delete_entry if there else tx.insert_entry)(self._index, Position(key, id))
                model.entries ^= {(key, id)}
            case "schedule" if self._jobs[number].id not in model.jobs:
                await tx.insert_job(self._jobs[number])
                model.jobs[self._jobs[number].id] = self._jobs[number]
            case "settle":
                await self._settle(tx, self._jobs[number].id)
            case "write":
                await tx.prune_jobs(0, 10)  # of which there are none, but it is a statement of the engine's own
            case "table":
                await tx.remember_table(NOTES, "notes")
            case _:
                pass

    async def _nest(self, tx: Transaction, what: str) -> None:
        match what:
            case "savepoint":
                self._saved.append((tx.savepoint(), copy.deepcopy(self.model)))
            case "release" if self._saved:
                await tx.release(self._saved.pop()[0])
            case "rollback" if self._saved:
                savepoint, self.model = self._saved.pop()
                await tx.rollback(savepoint)
            case _:
                pass

    async def _read(self, tx: Transaction, what: str, number: int) -> None:
        id, model = self._rows[number], self.model
        match what:
            case "get":
                assert await tx.get_document(id) == model.documents.get(id)
            case "look":
                job = model.jobs.get(self._jobs[number].id)
                assert await tx.get_job(self._jobs[number].id) == job
                assert await tx.get_job_state(self._jobs[number].id) == (job.state if job else None)
            case "scan":
                await compare(tx, model, self._index)
            case "sql":
                rows = await tx.sql(f"SELECT id, body FROM {self._documents} ORDER BY id", [])
                assert [(row["id"], row["body"]) for row in rows] == sorted(model.documents.items())
            case "bad sql":
                with pytest.raises(SQLError):
                    await tx.sql("SELECT nothing FROM nowhere WHERE n = $1", [7])
            case "due":
                pending = [job for job in model.jobs.values() if job.state == "pending"]
                assert [job.id for job in await tx.due_jobs("mutation", NOW, 99)] == sorted(job.id for job in pending)
            case _:
                pass

    async def _settle(self, tx: Transaction, id: str) -> None:
        job = self.model.jobs.get(id)
        settled = await tx.settle_job(id, "pending", 0, "success", NOW, started=NOW)
        assert settled == (job is not None and job.state == "pending")
        if settled and job is not None:
            self.model.jobs[id] = settle(job, "success", NOW, None, NOW)


async def compare(tx: Transaction, model: Model, index: int) -> None:
    documents = await tx.scan(None, FIRST, LAST, descending=False, limit=99)
    assert [(entry.position.id, entry.body) for entry in documents] == sorted(model.documents.items())
    entries = await tx.scan(index, LOWEST, HIGHEST, descending=False, limit=99)
    assert [tuple(entry.position) for entry in entries] == sorted(model.entries)
    assert await tx.count(index, LOWEST, HIGHEST) == len(model.entries)
    jobs = await tx.scan_jobs("", ID_HIGHEST, False, 99)
    assert jobs == [model.jobs[id] for id in sorted(model.jobs)]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(bodies=BODIES)
def test_what_is_kept_back_comes_to_the_same_as_what_happens_at_once(
    request: pytest.FixtureRequest, engine: Engine, bodies: list[tuple[list[tuple[Any, ...]], bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty_database(engine, Path(folder), request)
        store = engine.make(Path(folder), SystemClock())
        asyncio.run(run_all(store, bodies, own_table(engine.name, "documents")))


async def run_all(store: Store, bodies: list[tuple[list[tuple[Any, ...]], bool]], documents: str) -> None:
    await store.open([])
    try:
        index = (await store.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))))).id
        rows, jobs = [new_id() for _ in NAMES], [new_job(args='{"n":"%s"}' % ("x" * 700 * n)) for n in NAMES]
        committed = Model()

        async def one(steps: list[tuple[Any, ...]], fails: bool) -> None:
            async def body(tx: Transaction) -> None:
                nonlocal committed
                running = Body(copy.deepcopy(committed), rows, jobs, index, documents)
                await running.run(tx, steps)
                if fails:
                    raise GivenUpError
                committed = running.model

            await store.transact(body)

        # At once, so that they share a commit.
        outcomes = await asyncio.gather(*(one(steps, fails) for steps, fails in bodies), return_exceptions=True)
        for outcome, (_, fails) in zip(outcomes, bodies, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, GivenUpError):
                raise outcome
            assert isinstance(outcome, GivenUpError) == fails
        await store.read(lambda tx: compare(tx, committed, index))
    finally:
        await store.close()


async def test_what_a_rollback_gives_back_is_there_to_be_changed(store: Store) -> None:
    """Deleted, handed over, made again and rolled back: the rows are there, and are known to be."""
    id, job = new_id(), new_job()
    index = (await store.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))))).id
    position = Position(b"k", id)

    async def make(tx: Transaction) -> None:
        await tx.insert_document(id, '{"n":1}')
        await tx.insert_entry(index, position)

    async def finish(tx: Transaction) -> None:
        assert await tx.settle_job(job.id, "pending", 0, "success", NOW, started=NOW)

    async def change(tx: Transaction) -> None:
        savepoint = tx.savepoint()
        await tx.delete_entry(index, position)
        await tx.delete_document(id)
        await finish(tx)
        assert await tx.count(index, LOWEST, HIGHEST) == 0
        await make(tx)
        await tx.rollback(savepoint)
        await finish(tx)
        await tx.replace_document(id, '{"n":2}')
        await tx.delete_entry(index, position)

    await store.transact(make)
    await store.transact(lambda tx: tx.insert_job(job))
    await store.transact(change)
    assert await store.read(lambda tx: tx.get_document(id)) == '{"n":2}'
    assert await store.read(lambda tx: tx.count(index, LOWEST, HIGHEST)) == 0


async def test_what_could_not_be_handed_over_is_nobody_elses_to_heal(store: Store) -> None:
    """A range read fails on what another transaction of the group wrote: the group is lost, and each tried alone."""
    taken, other = new_id(), new_id()
    await store.transact(lambda tx: tx.insert_document(taken, "{}"))
    healed: list[bool] = []

    async def innocent(tx: Transaction) -> int:
        savepoint = tx.savepoint()
        try:
            found = len(await tx.scan(None, FIRST, LAST, descending=False, limit=9))
        except StoreError:
            await tx.rollback(savepoint)
            healed.append(True)
            raise
        await tx.release(savepoint)
        await tx.insert_document(other, "{}")
        return found

    outcomes = await asyncio.gather(
        store.transact(lambda tx: tx.insert_document(taken, '{"n":2}')),
        store.transact(innocent),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], StoreError)
    assert outcomes[1] == 1
    assert not healed
    assert await store.read(lambda tx: tx.get_document(taken)) == "{}"
    assert await store.read(lambda tx: tx.get_document(other)) == "{}"


async def test_what_is_changed_before_and_after_a_savepoint_is_handed_over_in_order(store: Store) -> None:
    old, new, job = new_id(), new_id(), new_job()
    index = (await store.transact(lambda tx: tx.create_index(NOTES, Index("by_n", ("n",))))).id

    async def make(tx: Transaction) -> None:
        await tx.insert_document(old, '{"n":1}')
        await tx.insert_entry(index, Position(b"old", old))

    async def change(tx: Transaction) -> None:
        await tx.delete_entry(index, Position(b"old", old))
        await tx.delete_document(old)
        await tx.insert_document(new, '{"n":1}')
        await tx.insert_entry(index, Position(b"new", new))
        await tx.insert_job(job)
        savepoint = tx.savepoint()
        await make(tx)
        await tx.delete_entry(index, Position(b"new", new))
        await tx.replace_document(new, '{"n":2}')
        assert await tx.settle_job(job.id, "pending", 0, "success", NOW, started=NOW)
        assert await tx.count(index, LOWEST, HIGHEST) == 1
        await tx.release(savepoint)

    await store.transact(make)
    await store.transact(change)
    documents = await store.read(lambda tx: tx.scan(None, FIRST, LAST, descending=False, limit=9))
    assert [(entry.position.id, entry.body) for entry in documents] == [(old, '{"n":1}'), (new, '{"n":2}')]
    entries = await store.read(lambda tx: tx.scan(index, LOWEST, HIGHEST, descending=False, limit=9))
    assert [entry.position for entry in entries] == [Position(b"old", old)]
    assert await store.read(lambda tx: tx.get_job_state(job.id)) == "success"


async def test_a_table_whose_name_was_rolled_back_is_named_again(durable_engine: Engine, stores: Stores) -> None:
    store = await stores.open(durable_engine)

    async def name_in_vain(tx: Transaction) -> None:
        await tx.remember_table(NOTES, "notes")
        await tx.insert_document(new_id(), "{}")
        await tx.scan(None, FIRST, LAST, descending=False, limit=9)
        raise GivenUpError

    async def in_company(tx: Transaction) -> None:
        await tx.insert_document(new_id("others"), "{}")

    await asyncio.gather(store.transact(name_in_vain), store.transact(in_company), return_exceptions=True)
    await store.transact(lambda tx: tx.remember_table(NOTES, "notes"))
    other = await stores.open(durable_engine)
    assert await other.read(lambda tx: tx.table_name(NOTES)) == "notes"


async def test_a_job_that_was_pruned_is_not_known_any_more(store: Store) -> None:
    job = new_job(state="canceled", due=None, completed_time=NOW)
    await store.transact(lambda tx: tx.insert_job(job))

    async def look_and_prune(tx: Transaction) -> None:
        assert await tx.get_job_state(job.id) == "canceled"
        assert await tx.prune_jobs(NOW + 1, 10) == 1
        assert await tx.get_job_state(job.id) is None

    await store.transact(look_and_prune)


async def test_jobs_that_were_handed_over_are_not_all_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffered, "_KNOWN_MAX", 10)
    jobs = [new_job() for _ in range(30)]

    async def body(tx: Transaction) -> None:
        for job in jobs:
            await tx.insert_job(job)
        await tx.push()
        assert len(tx._known) <= 10  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        for job in jobs:
            assert await tx.settle_job(job.id, "pending", 0, "success", NOW, started=NOW)

    await store.transact(body)
    found = await store.read(lambda tx: tx.scan_jobs("", ID_HIGHEST, False, 99))
    assert {job.state for job in found} == {"success"}
    assert len(found) == 30
