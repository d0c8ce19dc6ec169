"""A transaction that keeps its writes to itself until they are needed. The same for every engine.

What a body writes goes into a buffer: point reads look there first, and the engine gets everything at once when the
transaction is about to commit. So a mutation that fails costs the engine nothing, a savepoint is a number, and the rows
of many mutations are written by one statement for each kind of row.

Only a read of a range needs the engine to know: then what was written so far is handed over. Where a savepoint may
still take it back, the engine is told of the savepoint before (`_open_savepoint`), and undoes it by itself.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from duly._model.changes import Changes
from duly._model.job import Job, JobKind, JobState, become, check_move, park, postpone, refuse, settle, start
from duly._model.limits import READS_MAX
from duly._store.port import Position, Savepoint, Topic
from duly._store.records import Records, note
from duly._store.user_sql import check_statement
from duly.errors import StoreError

__all__ = ["BufferedTransaction"]

_MISSING: Any = object()
# More than a group changes; an import hands over all there are.
_KNOWN_MAX = 10_000

EntryKey = tuple[int, bytes, str]

_Written = tuple[dict[Any, Any], Any, Any]
"""A buffer, a key and the value that it was given."""


class _Level:
    """An open savepoint: how long the journal was, and whether the engine knows of it."""

    __slots__ = ("mark", "real")

    def __init__(self, mark: int) -> None:
        self.mark = mark
        self.real = False


class BufferedTransaction(Records):
    """The verbs of the port that write, and those that read one row. An engine adds the rest.

    Args:
        writable: Whether it may write at all.
    """

    # An engine whose verbs take no time is never waited for.
    suspends = False
    asking = 0

    def __init__(self, *, writable: bool) -> None:
        self._writable = writable
        # What is written and not handed over. None stands for a document that is deleted, False for such an entry.
        self._documents: dict[str, str | None] = {}
        self._jobs: dict[str, Job] = {}
        self._entries: dict[EntryKey, bool] = {}
        self._tables: dict[str, str] = {}
        self._client_requests: dict[tuple[str, int], tuple[float, str]] = {}
        # Keys of these that the engine has no row of.
        self._fresh: set[str | EntryKey] = set()
        # How to take it back: for each write the buffer, the key and the value before, one after the other.
        self._journal: list[Any] = []
        self._levels: list[_Level] = []
        # Jobs as the engine has them. Nobody else changes them while this transaction is open.
        self._known: dict[str, Job] = {}
        self._handed_over = False
        # See the port.
        self.fault: StoreError | None = None
        # Why nothing of this transaction can be committed: handing over failed, whosever writes they were.
        self.lost: BaseException | None = None
        # For the store, once this is committed: what its sleepers have to be told.
        self.made_work: dict[Topic, float | None] = {}
        # For those who follow: what is written, or more. None if nobody does.
        self.changes: Changes | None = None

    # What an engine adds. Handing over is not `async`: no other task of the same mutation may write meanwhile. One
    # whose statements take time puts them in a queue, which goes out with its next read or the commit.

    @abstractmethod
    async def _read_job(self, id: str) -> Job | None: ...

    @abstractmethod
    def _change_rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """The statement `name` for each of these rows; each must change exactly one. Rows are as `_write_out` says."""

    @abstractmethod
    def _insert_jobs(self, jobs: list[Job]) -> None: ...

    @abstractmethod
    def _insert_tables(self, tables: dict[str, str]) -> None: ...

    @abstractmethod
    def _open_savepoint(self, level: int) -> None: ...

    @abstractmethod
    def _release_savepoint(self, level: int) -> None: ...

    @abstractmethod
    def _undo_savepoint(self, level: int) -> None:
        """Undoes what was handed over since the savepoint, and forgets it and all within."""

    @abstractmethod
    def _check_sql(self, statement: str) -> None:
        """Refuses what can be told by its text alone, before anything is handed over. Raises `SQLError`."""

    @abstractmethod
    async def _run_sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        """Runs the user's statement. Raises `SQLError` for a mistake of theirs, and sets `fault` for everything else.

        It refuses to write what is duly's own, and checks constraints at once, deferred ones too.
        """

    @property
    def wrote(self) -> bool:
        return self._handed_over or bool(self._journal)

    # Faults.

    def _refuse(self) -> None:
        """Before every write that is not to happen: in a read, or after a fault."""
        if not self._writable:
            raise AssertionError("a write in a transaction that only reads")
        if self.fault is not None:
            raise self.fault

    def _failed(self, message: str) -> StoreError:
        self.fault = StoreError(message)
        return self.fault

    # Documents.

    async def insert_document(self, id: str, body: str) -> None:
        if self.fault is not None or not self._writable:
            self._refuse()
        documents = self._documents
        before = documents.get(id, _MISSING)
        if before is _MISSING:
            self._fresh.add(id)
        elif before is not None:
            raise self._failed(f"there is a document {id} already")
        self._journal += (documents, id, before)
        documents[id] = body

    async def replace_document(self, id: str, body: str) -> None:
        """The caller has read it in this transaction."""
        self._put_document(id, body)

    async def delete_document(self, id: str) -> None:
        self._put_document(id, None)

    def _put_document(self, id: str, body: str | None) -> None:
        if self.fault is not None or not self._writable:
            self._refuse()
        documents = self._documents
        before = documents.get(id, _MISSING)
        assert before is not None, f"{id} was read in this transaction, and is gone"
        self._journal += (documents, id, before)
        documents[id] = body

    async def insert_entry(self, index: int, position: Position) -> None:
        key = (index, position.key, position.id)
        if key not in self._entries:
            self._fresh.add(key)
        self._put(self._entries, key, True)

    async def delete_entry(self, index: int, position: Position) -> None:
        self._put(self._entries, (index, position.key, position.id), False)

    def _put(self, buffer: dict[Any, Any], key: Any, value: Any) -> bool:
        if self.fault is not None or not self._writable:
            self._refuse()
        self._journal += (buffer, key, buffer.get(key, _MISSING))
        buffer[key] = value
        return True

    # Jobs.

    async def insert_job(self, job: Job) -> None:
        if self.fault is not None or not self._writable:
            self._refuse()
        id = job.id
        if id in self._jobs:
            raise self._failed(f"there is a scheduled function {id} already")
        self._journal += (self._jobs, id, _MISSING)
        self._fresh.add(id)
        self._jobs[id] = job

    async def get_job(self, id: str) -> Job | None:
        job = self._jobs.get(id)
        if job is None:
            job = await self._read_job(id)
            if job is not None:
                self._known[id] = job
            return job
        # One that a look-up found has its long arguments elsewhere.
        return job if job.args else job._replace(args=await self.get_arguments(job))

    @abstractmethod
    async def get_arguments(self, job: Job) -> str: ...

    async def get_job_state(self, id: str) -> JobState | None:
        job = self._jobs.get(id) or self._known.get(id) or await self._current(id)
        return job.state if job is not None else None

    async def _current(self, id: str) -> Job | None:
        read = await self._read_job(id)
        if read is None:
            return None
        # Somebody else in this transaction may have changed it meanwhile, where a read takes time.
        return self._jobs.get(id) or self._known.setdefault(id, read)

    async def parked_jobs(self, name: str, fingerprint: str, now: float, limit: int) -> list[Job]:
        return await self._parked_jobs(name, lambda refused: fingerprint not in refused, now, limit)

    async def refused_jobs(self, name: str, fingerprint: str, limit: int) -> list[Job]:
        return await self._parked_jobs(name, lambda refused: fingerprint in refused, math.inf, limit)

    async def _parked_jobs(
        self, name: str, wanted: Callable[[Sequence[str]], bool], until: float, limit: int
    ) -> list[Job]:
        jobs: list[Job] = []
        for parked_name, refused, _ in await self.parked_names():
            if parked_name == name and wanted(refused.split()):
                jobs += await self._parked_by(name, refused, until, limit)
        jobs.sort(key=lambda job: (job.due, job.id))
        return jobs[:limit]

    @abstractmethod
    async def parked_names(self) -> list[tuple[str, str, float]]: ...

    @abstractmethod
    async def _parked_by(self, name: str, refused: str, until: float, limit: int) -> list[Job]:
        """Parked jobs of a function that the same signatures refused, up to a due time, in start order."""

    async def park_job(self, id: str, attempts: int, reason: str) -> bool:
        job = await self._if_still(id, "pending", attempts)
        return job is not None and self._put(self._jobs, id, park(job, reason))

    async def refuse_job(self, id: str, attempts: int, fingerprint: str, reason: str) -> bool:
        job = await self._if_still(id, "pending", attempts)
        return job is not None and self._put(self._jobs, id, refuse(job, fingerprint, reason))

    async def set_job_kind(self, id: str, attempts: int, kind: JobKind) -> bool:
        job = await self._if_still(id, "pending", attempts)
        return job is not None and self._put(self._jobs, id, become(job, kind))

    async def start_job(self, id: str, attempts: int, now: float, worker: str) -> bool:
        job = await self._if_still(id, "pending", attempts)
        return job is not None and self._put(self._jobs, id, start(job, now, worker))

    async def postpone_job(self, id: str, attempts: int, due: float, reason: str) -> bool:
        job = await self._if_still(id, "pending", attempts)
        return job is not None and self._put(self._jobs, id, postpone(job, due, reason))

    async def settle_job(
        self,
        id: str,
        before: JobState,
        attempts: int,
        after: JobState,
        now: float,
        *,
        error: str | None = None,
        started: float | None = None,
    ) -> bool:
        check_move("action" if before == "inProgress" else "mutation", before, after)
        if self.fault is not None or not self._writable:
            self._refuse()
        job = self._jobs.get(id) or self._known.get(id) or await self._current(id)
        if job is None or job.state != before or job.attempts != attempts:
            return False
        return self._put(self._jobs, id, settle(job, after, now, error, started))

    async def _if_still(self, id: str, state: JobState, attempts: int) -> Job | None:
        """A job to be changed, if its state and attempt are as given. The statement that writes it asks once more."""
        if self.fault is not None or not self._writable:
            self._refuse()
        job = self._jobs.get(id) or self._known.get(id) or await self._current(id)
        return job if job is not None and job.state == state and job.attempts == attempts else None

    # The user's own tables.

    async def sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        self._refuse()
        check_statement(statement, len(parameters))
        self._check_sql(statement)
        savepoint = self.savepoint()
        try:
            self.flush(for_write=True)
            self._handed_over = True
            rows = await self._run_sql(statement, parameters)
        except BaseException:
            if self.fault is None and self.lost is None:
                await self.rollback(savepoint)
            raise
        if len(rows) > READS_MAX:
            await self.rollback(savepoint)  # it is over the limit, and may not have come to its end
        else:
            await self.release(savepoint)
        return rows

    def sign_changes(self, now: float) -> None:
        """Leaves word of what is to be committed, for those who follow."""
        self.flush()
        if self.changes:
            self._insert_changes(now, self.changes.dump())

    @abstractmethod
    def _insert_changes(self, now: float, written: str) -> None: ...

    async def insert_client_request(self, session: str, request: int, now: float, answer: str) -> None:
        self._put(self._client_requests, (session, request), (now, answer))

    async def get_client_request(self, session: str, request: int) -> str | None:
        if (session, request) in self._client_requests:
            return self._client_requests[session, request][1]
        rows = await self._look_up("client_request_get", session, request)
        return rows[0][0] if rows else None

    # All or nothing within the transaction.

    def savepoint(self) -> Savepoint:
        self._levels.append(_Level(len(self._journal)))
        return len(self._levels)

    async def release(self, savepoint: Savepoint) -> None:
        assert savepoint == len(self._levels), "savepoints end in the reverse order"
        if self._levels[-1].real:
            self._release_savepoint(savepoint)
        self._levels.pop()

    async def rollback(self, savepoint: Savepoint) -> None:
        """Undoes everything since, whatever savepoints are still open within. Heals a fault that came since."""
        assert savepoint <= len(self._levels), "savepoints end in the reverse order"
        if self.lost is not None:
            raise self.lost
        level = self._levels[savepoint - 1]
        self._take_back(level.mark)
        del self._levels[savepoint - 1 :]
        if level.real:
            self._undo_savepoint(savepoint)
            # The engine's rows are what they were; what we took them for is not. Nothing that is ours is left.
            self._known.clear()
            self._fresh.clear()
        self.fault = None

    def _take_back(self, mark: int) -> list[_Written]:
        """Undoes the buffers to a mark, and tells how to do it again."""
        undone: list[_Written] = []
        journal = self._journal
        while len(journal) > mark:
            before, key, buffer = journal.pop(), journal.pop(), journal.pop()
            undone.append((buffer, key, buffer[key]))
            if before is _MISSING:
                del buffer[key]
            else:
                buffer[key] = before
        undone.reverse()
        return undone

    # Handing over.

    async def push(self) -> None:
        """Hands everything over, waits until the engine has it, and forgets it."""
        self.flush()
        self._known.clear()

    def flush(self, *, for_write: bool = False) -> None:
        """Hands everything over, so that the engine's own reads see it. What savepoints can undo, they still can.

        Args:
            for_write: Whether the engine is about to write by itself: then it has to know of every open savepoint.
        """
        if self.lost is not None:
            raise self.lost
        if not self._journal and not for_write:
            return
        if self.fault is not None:
            raise self.fault
        try:
            self._hand_over_by_levels(for_write)
        except BaseException as error:
            self.lost = error
            raise
        self._fresh.clear()
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()

    def _hand_over_by_levels(self, for_write: bool) -> None:
        """What was written before a savepoint goes to the engine before the savepoint does."""
        levels = self._levels
        bounds = [0, *(level.mark for level in levels), len(self._journal)]
        written = [number for number in range(len(levels) + 1) if bounds[number] < bounds[number + 1]]
        needed = len(levels) if for_write else max(written)
        # Only what was written on several levels has to be taken apart.
        parts = self._take_apart() if len(written) > 1 else {}
        for number in range(needed + 1):
            if number and not levels[number - 1].real:
                self._open_savepoint(number)
                levels[number - 1].real = True
            for buffer, key, value in parts.get(number, ()):
                buffer[key] = value
            if number in written:
                self._hand_over()
        for level in levels:
            level.mark = 0

    def _take_apart(self) -> dict[int, list[_Written]]:
        """Empties the buffers of what was written within savepoints, and tells how to do it again, level by level."""
        return {number: self._take_back(self._levels[number - 1].mark) for number in range(len(self._levels), 0, -1)}

    def _write_out(self) -> None:
        """The buffers as they are now. A job that changed is written only if it is still as in `_known`."""
        if self.changes is not None:
            note(self.changes, self._documents, self._jobs, self._entries, self._fresh)
        if self._documents:
            self._write_documents()
        if self._jobs:
            self._write_jobs()
        if self._entries:
            # Those that were deleted after they had been inserted, or the other way round, are as they were.
            deleted = [key for key, there in self._entries.items() if not there and key not in self._fresh]
            inserted = [key for key, there in self._entries.items() if there and key in self._fresh]
            self._change_rows("entry_delete", deleted)
            self._change_rows("entry_insert", inserted)
        if self._tables:
            self._insert_tables(self._tables)
        if self._client_requests:
            rows = [(*key, *value) for key, value in self._client_requests.items()]
            self._change_rows("client_request_insert", rows)

    def _write_documents(self) -> None:
        inserted: list[tuple[str, str]] = []
        replaced: list[tuple[str, str]] = []
        deleted: list[tuple[str]] = []
        fresh = self._fresh
        for id, body in self._documents.items():
            if body is None:
                if id not in fresh:
                    deleted.append((id,))
            elif id in fresh:
                inserted.append((id, body))
            else:
                replaced.append((id, body))
        self._change_rows("document_insert", inserted)
        self._change_rows("document_replace", replaced)
        self._change_rows("document_delete", deleted)

    def _write_jobs(self) -> None:
        new: list[Job] = []
        changed: list[tuple[Any, ...]] = []
        earliest: dict[JobKind, float] = {}
        fresh, known = self._fresh, self._known
        for id, job in self._jobs.items():
            due = job.due
            if id in fresh:
                new.append(job)
                if due is not None and due < earliest.get(job.kind, math.inf):
                    earliest[job.kind] = due
            else:
                before = known[id]
                changed.append((
                    id, before.state, before.attempts,
                    job.kind, job.state, due, job.started_time, job.completed_time, job.attempts, job.worker,
                    job.error, job.pending_reason, job.parked, job.refused,
                ))  # fmt: skip
                if due is not None:
                    # A job that was parked is for either kind of look-up, in whatever process has the function.
                    self._note("mutation", None if job.parked else due)
                    self._note("action", None if job.parked else due)
        for kind, due in earliest.items():
            self._note(kind, due)
        if new:
            self._insert_jobs(new)
        self._change_rows("job_update", changed)

    def _note(self, topic: Topic, due: float | None) -> None:
        earliest = self.made_work.get(topic, due)
        self.made_work[topic] = None if due is None or earliest is None else min(due, earliest)

    def _hand_over(self) -> None:
        self._handed_over = True
        self._write_out()
        # What the engine has now is where the next part begins.
        for key, body in self._documents.items():
            (self._fresh.add if body is None else self._fresh.discard)(key)
        for entry, there in self._entries.items():
            (self._fresh.discard if there else self._fresh.add)(entry)
        self._fresh.difference_update(self._jobs)
        self._known.update(self._jobs)
        for buffer in (self._documents, self._jobs, self._entries, self._tables, self._client_requests):
            buffer.clear()
        self._journal.clear()
