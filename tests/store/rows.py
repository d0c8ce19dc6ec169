"""Rows for the tests to put in."""

from typing import Any

from duly._ground.clock import SystemClock
from duly._ground.entropy import SystemEntropy
from duly._ground.ids import Id, IdMaker, table_tag
from duly._model.job import SYSTEM_TABLE, Job, JobKind
from duly._store.port import Store, Transaction

__all__ = ["NOTES", "NOW", "add_jobs", "job_of", "new_id", "new_job", "put", "state_of"]

NOW = 1_800_000_000_000.0
"""The time of the tests that pass a time in. No engine may look at its own clock instead."""

NOTES = table_tag("notes")

_ids, _clock = IdMaker(SystemEntropy()), SystemClock()


def new_id(table: str = "notes") -> Id[Any]:
    """An id greater than every one before."""
    return _ids.make(table_tag(table), _clock.now_ms())


def new_job(name: str = "orders:archive", kind: JobKind = "mutation", due: float | None = NOW, **changes: Any) -> Job:
    """A pending job, due now."""
    job = Job(
        id=new_id(SYSTEM_TABLE),
        name=name,
        kind=kind,
        state="pending",
        due=due,
        scheduled_time=NOW if due is None else due,
        started_time=None,
        completed_time=None,
        attempts=0,
        worker=None,
        error=None,
        pending_reason=None,
        args='{"n":1}',
    )
    return job._replace(**changes)


async def add_jobs(store: Store, *jobs: Job) -> None:
    async def body(tx: Transaction) -> None:
        for job in jobs:
            await tx.insert_job(job)

    await store.transact(body)


async def job_of(store: Store, id: str) -> Job:
    job = await store.read(lambda tx: tx.get_job(id))
    assert job is not None
    return job


async def state_of(store: Store, id: str) -> str | None:
    return await store.read(lambda tx: tx.get_job_state(id))


async def put(store: Store, body: str = "{}", table: str = "notes") -> str:
    """A document that is committed."""
    id = new_id(table)
    await store.transact(lambda tx: tx.insert_document(id, body))
    return id
