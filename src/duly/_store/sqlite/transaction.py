"""The verbs of the port on one SQLite connection.

They are `async` because the port is; none of them ever suspends. A hop to a thread for each statement would cost
fifty times the statement.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import apsw

from duly._model.job import Job, JobKind, JobState, check_move
from duly._model.schema import Index
from duly._store.port import Entry, Position, Rescued, Savepoint, StoredIndex, Topic
from duly._store.sqlite.faults import translate
from duly._store.statements import statements_of
from duly.errors import StoreError

if TYPE_CHECKING:
    from duly._store.sqlite.shared import Shared

__all__ = ["SQLiteTransaction"]

_SQL = statements_of("sqlite")
_INLINE_ARGUMENTS_MAX = 1_024
# The states that most rows are in. The others have an index of their own, which a statement must name to be given.
_USUAL = ("pending", "success")


class SQLiteTransaction:
    """One transaction, reading or writing. Notes what its commit must tell the sleepers."""

    def __init__(self, connection: apsw.Connection, shared: "Shared", *, writable: bool) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._shared = shared
        self._writable = writable
        self._depth = 0
        self._fault: StoreError | None = None
        # For the store, once this is committed.
        self.made_work: dict[Topic, float | None] = {}
        self.new_tables: dict[str, str] = {}

    @property
    def fault(self) -> StoreError | None:
        return self._fault

    def _execute(self, name: str, bindings: tuple[Any, ...]) -> list[Any]:
        if self._fault is not None:
            # SQLite may have rolled the whole transaction back, and would commit this by itself.
            raise self._fault
        try:
            return self._cursor.execute(_SQL[name], bindings).fetchall()
        except apsw.Error as error:
            self._fault = translate(error, self._shared.where)
            raise self._fault from error

    def _change(self, name: str, bindings: tuple[Any, ...]) -> bool:
        """Whether the statement changed a row."""
        assert self._writable, f"{name} in a transaction that only reads"
        if self._fault is not None:
            raise self._fault
        try:
            self._cursor.execute(_SQL[name], bindings)
        except apsw.Error as error:
            self._fault = translate(error, self._shared.where)
            raise self._fault from error
        return self._connection.changes() > 0

    def _note(self, topic: Topic, due: float | None) -> None:
        earliest = self.made_work.get(topic, due)
        self.made_work[topic] = None if due is None or earliest is None else min(due, earliest)

    # Documents.

    async def get_document(self, id: str) -> str | None:
        rows = self._execute("document_get", (id,))
        return cast("str", rows[0][0]) if rows else None

    async def insert_document(self, id: str, body: str) -> None:
        self._change("document_insert", (id, body))

    async def replace_document(self, id: str, body: str) -> None:
        changed = self._change("document_replace", (id, body))
        assert changed, f"{id} was read in this transaction, and is gone"

    async def delete_document(self, id: str) -> None:
        changed = self._change("document_delete", (id,))
        assert changed, f"{id} was read in this transaction, and is gone"

    async def insert_entry(self, index: int, position: Position) -> None:
        self._change("entry_insert", (index, position.key, position.id))

    async def delete_entry(self, index: int, position: Position) -> None:
        changed = self._change("entry_delete", (index, position.key, position.id))
        assert changed, f"index {index} did not know {position.id}"

    async def scan(
        self, index: int | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[Entry]:
        order = "descending" if descending else "ascending"
        if index is None:
            rows = self._execute(f"documents_{order}", (after.id, before.id, limit))
            return [Entry(Position(b"", id), body) for id, body in rows]
        rows = self._execute(f"entries_{order}", (index, after.key, after.id, before.key, before.id, limit))
        return [Entry(Position(key, id), body) for key, id, body in rows]

    async def count(self, index: int | None, after: Position, before: Position) -> int:
        if index is None:
            rows = self._execute("documents_count", (after.id, before.id))
        else:
            rows = self._execute("entries_count", (index, after.key, after.id, before.key, before.id))
        return cast("int", rows[0][0])

    async def stored_indexes(self, tag: str) -> Sequence[StoredIndex]:
        indexes = self._shared.indexes
        if indexes is None:
            indexes = {}
            for number, index_tag, name, fields in self._execute("indexes_list", ()):
                stored = StoredIndex(number, Index(name, tuple(json.loads(fields))))
                indexes.setdefault(index_tag, []).append(stored)
            if self._writable:
                # A reader's snapshot may be older than an index that the writer has to keep up.
                self._shared.indexes = indexes
        return indexes.get(tag, ())

    async def create_index(self, tag: str, index: Index) -> StoredIndex:
        assert self._writable
        rows = self._execute("indexes_insert", (tag, index.name, json.dumps(index.fields)))
        self._shared.indexes = None
        return StoredIndex(rows[0][0], index)

    async def remember_table(self, tag: str, name: str) -> None:
        known = self._shared.tables.get(tag) or self.new_tables.get(tag)
        if known is None:
            self._change("tables_insert", (tag, name))
            known = self.new_tables[tag] = await self.table_name(tag) or name
        if known != name:
            raise StoreError(
                f"the names {known!r} and {name!r} make the same id tag {tag!r}; rename the table {name!r}"
            )

    async def table_name(self, tag: str) -> str | None:
        if tag in self._shared.tables:
            return self._shared.tables[tag]
        rows = self._execute("tables_get", (tag,))
        return cast("str", rows[0][0]) if rows else None

    # Jobs.

    async def insert_job(self, job: Job) -> None:
        inline = len(job.args) <= _INLINE_ARGUMENTS_MAX
        row = (job.id, job.name, job.kind, job.state, job.due, job.scheduled_time, job.completed_time)
        self._change("job_insert", (*row, job.args if inline else None))
        if not inline:
            self._change("job_arguments_insert", (job.id, job.args))
        if job.due is not None:
            self._note(job.kind, job.due)

    async def get_job(self, id: str) -> Job | None:
        rows = self._execute("job_get", (id,))
        return Job._make(rows[0]) if rows else None

    async def get_job_state(self, id: str) -> JobState | None:
        rows = self._execute("job_state", (id,))
        return cast("JobState", rows[0][0]) if rows else None

    async def scan_jobs(self, after: str, before: str, descending: bool, limit: int) -> list[Job]:
        order = "descending" if descending else "ascending"
        return [Job._make(row) for row in self._execute(f"jobs_{order}", (after, before, limit))]

    async def list_jobs(self, state: JobState, before: str, limit: int) -> list[Job]:
        statement = "jobs_by_state" if state in _USUAL else "jobs_by_unusual_state"
        return [Job._make(row) for row in self._execute(statement, (state, before, limit))]

    async def count_jobs(self, after: str, before: str) -> int:
        return cast("int", self._execute("jobs_count", (after, before))[0][0])

    async def due_jobs(self, kind: JobKind, now: float, limit: int) -> list[Job]:
        return [Job._make(row) for row in self._execute("jobs_due", (kind, now, limit))]

    async def get_arguments(self, job: Job) -> str:
        return job.args or cast("str", self._execute("job_arguments_get", (job.id,))[0][0])

    async def parked_names(self) -> list[tuple[str, float]]:
        return self._execute("parked_names", ())

    async def parked_jobs(self, name: str, now: float, limit: int) -> list[Job]:
        return [Job._make(row) for row in self._execute("jobs_parked", (name, now, limit))]

    async def next_due(self, kind: JobKind) -> float | None:
        rows = self._execute("jobs_next_due", (kind,))
        return cast("float", rows[0][0]) if rows else None

    async def park_job(self, id: str, attempts: int, reason: str) -> bool:
        # Another worker may have the function: it looks at what is parked once it is woken.
        self._note("mutation", None)
        self._note("action", None)
        return self._change("job_park", (id, attempts, reason))

    async def set_job_kind(self, id: str, attempts: int, kind: JobKind) -> bool:
        self._note(kind, None)
        return self._change("job_set_kind", (id, attempts, kind))

    async def start_job(self, id: str, attempts: int, now: float, worker: str) -> bool:
        check_move("action", "pending", "inProgress")
        return self._change("job_start", (id, attempts, now, worker))

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
        attempt = int(started is not None)
        return self._change("job_settle", (id, before, attempts, after, now, error, started, attempt))

    async def postpone_job(self, id: str, attempts: int, due: float, reason: str) -> bool:
        self._note("mutation", due)
        self._note("action", due)
        return self._change("job_postpone", (id, attempts, due, reason))

    async def rescue(self, worker: str, now: float, error: str) -> Rescued:
        rescued: list[Job] = []
        look_again: float | None = None
        for (owner,) in self._execute("workers_in_progress", ()):
            if owner == worker:
                continue
            left = self._shared.lease_left(owner)
            if left > 0:
                look_again = min(look_again or now + left * 1_000, now + left * 1_000)
                continue
            for job in await self.jobs_in_progress(owner):
                settled = await self.settle_job(job.id, "inProgress", job.attempts, "failed", now, error=error)
                rescued += [job] if settled else []
        for registered, _ in self._execute("workers_list", ()):
            if registered != worker and not self._shared.is_held(registered):
                self._change("worker_delete", (registered,))
                self._shared.forget_worker(registered)
        return Rescued(rescued, look_again)

    async def jobs_in_progress(self, worker: str) -> list[Job]:
        return [Job._make(row) for row in self._execute("jobs_of_worker", (worker,))]

    async def prune_jobs(self, completed_before: float, limit: int) -> int:
        assert self._writable
        rows = self._execute("jobs_prune", (completed_before, limit))
        for id, apart in rows:
            if apart:
                self._change("job_arguments_delete", (id,))
        return len(rows)

    async def oldest_completed(self) -> float | None:
        return cast("float | None", self._execute("jobs_oldest_completed", ())[0][0])

    # Workers.

    def insert_worker(self, worker: str, address: str, now: float) -> None:
        self._change("worker_insert", (worker, address, now))
        self._note("upkeep", None)

    def delete_worker(self, worker: str) -> None:
        self._change("worker_delete", (worker,))
        self._note("upkeep", None)

    def list_workers(self) -> list[tuple[str, str]]:
        return self._execute("workers_list", ())

    # All or nothing within the transaction.

    async def savepoint(self) -> Savepoint:
        return self.begin_nested()

    async def release(self, savepoint: Savepoint) -> None:
        self.end_nested(savepoint)

    async def rollback(self, savepoint: Savepoint) -> None:
        assert savepoint <= self._depth, "savepoints end in the reverse order"
        self.undo_to(savepoint)

    def begin_nested(self) -> Savepoint:
        self._depth += 1
        try:
            self._cursor.execute(f"SAVEPOINT s{self._depth}")
        except apsw.Error as error:
            raise self._control_failed(error) from error
        return self._depth

    def end_nested(self, savepoint: Savepoint) -> None:
        assert savepoint == self._depth, "savepoints end in the reverse order"
        try:
            self._cursor.execute(f"RELEASE s{savepoint}")
        except apsw.Error as error:
            raise self._control_failed(error) from error
        self._depth -= 1

    def undo_to(self, savepoint: Savepoint) -> None:
        """Undoes everything since, whatever savepoints are still open within."""
        self._control(f"ROLLBACK TO s{savepoint}")
        self._control(f"RELEASE s{savepoint}")
        self._depth = savepoint - 1
        # What was remembered since may be undone with it.
        self._shared.indexes = None
        self.new_tables.clear()
        # The transaction stands as it did before the fault.
        self._fault = None

    def _control(self, statement: str) -> None:
        try:
            self._cursor.execute(statement)
        except apsw.Error as error:
            raise self._control_failed(error) from error

    def _control_failed(self, error: apsw.Error) -> StoreError:
        # After a fault a missing savepoint is only its consequence.
        if self._fault is None:
            self._fault = translate(error, self._shared.where)
        return self._fault
