"""A transaction that remembers what was read in it: the read set of a query."""

from typing import Any, cast

from duly._model.changes import CREATED, JOBS, Reads, jobs_of_state
from duly._model.job import Job, JobState
from duly._store.port import Entry, Position, Transaction

__all__ = ["recording"]


def recording(tx: Transaction, reads: Reads) -> Transaction:
    """The same transaction; what is read through it is noted in `reads`."""
    return cast("Transaction", _Recording(tx, reads))


class _Recording:
    def __init__(self, tx: Transaction, reads: Reads) -> None:
        self._tx = tx
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    async def get_document(self, id: str) -> str | None:
        self._reads.ids.add(id)
        return await self._tx.get_document(id)

    async def scan(
        self, index: int | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[Entry]:
        entries = await self._tx.scan(index, after, before, descending, limit)
        ids = [entry.position.id for entry in entries]
        self._saw(CREATED if index is None else index, after, before, ids)
        if len(entries) == limit:
            self._stopped_at(entries[-1].position, descending=descending)
        return entries

    async def count(self, index: int | None, after: Position, before: Position) -> int:
        self._saw(CREATED if index is None else index, after, before, [])
        return await self._tx.count(index, after, before)

    async def get_job(self, id: str) -> Job | None:
        self._reads.ids.add(id)
        return await self._tx.get_job(id)

    async def get_job_state(self, id: str) -> JobState | None:
        self._reads.ids.add(id)
        return await self._tx.get_job_state(id)

    async def scan_jobs(self, after: str, before: str, descending: bool, limit: int) -> list[Job]:
        jobs = await self._tx.scan_jobs(after, before, descending, limit)
        self._saw(JOBS, Position(b"", after), Position(b"", before), [job.id for job in jobs])
        if len(jobs) == limit:
            self._stopped_at(Position(b"", jobs[-1].id), descending=descending)
        return jobs

    async def list_jobs(self, state: JobState, before: str, limit: int) -> list[Job]:
        jobs = await self._tx.list_jobs(state, before, limit)
        self._saw(jobs_of_state(state), Position(b"", ""), Position(b"", before), [job.id for job in jobs])
        if len(jobs) == limit:
            self._stopped_at(Position(b"", jobs[-1].id), descending=True)
        return jobs

    async def count_jobs(self, after: str, before: str) -> int:
        self._saw(JOBS, Position(b"", after), Position(b"", before), [])
        return await self._tx.count_jobs(after, before)

    def _saw(self, index: int, after: Position, before: Position, ids: list[str]) -> None:
        """What comes into the range or leaves it matters, and what changes of what was found there."""
        self._reads.ranges.append((index, after, before))
        self._reads.ids.update(ids)

    def _stopped_at(self, position: Position, *, descending: bool) -> None:
        """What lies beyond the last that was found was not looked at."""
        index, after, before = self._reads.ranges.pop()
        if descending:
            after = position
        else:
            before = position
        self._reads.ranges.append((index, after, before))
