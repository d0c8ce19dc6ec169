"""The verbs of the port on one SQLite connection.

They are `async` because the port is; none of them ever suspends. A hop to a thread for each statement would cost
fifty times the statement.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import apsw

from duly._model.changes import Changes
from duly._model.job import Job, JobKind, JobState
from duly._model.schema import Index
from duly._store.buffered import BufferedTransaction
from duly._store.port import Entry, Position, Rescued, Savepoint, StoredIndex, Tally
from duly._store.sqlite.faults import translate
from duly._store.sqlite.user_sql import mistake_of, run
from duly._store.statements import statements_of
from duly.errors import StoreError

if TYPE_CHECKING:
    from duly._store.sqlite.shared import Shared

__all__ = ["SQLiteTransaction"]

_SQL = statements_of("sqlite")
_INLINE_ARGUMENTS_MAX = 1_024
# The states that most rows are in. The others have an index of their own, which a statement must name to be given.
_USUAL = ("pending", "success")


class SQLiteTransaction(BufferedTransaction):
    """One transaction, reading or writing. Notes what its commit must tell the sleepers."""

    def __init__(self, connection: apsw.Connection, shared: "Shared", *, writable: bool) -> None:
        super().__init__(writable=writable)
        self._connection = connection
        self._cursor = connection.cursor()
        self._shared = shared
        # For the store, once this is committed.
        self.new_tables: dict[str, str] = {}

    def _execute(self, name: str, bindings: tuple[Any, ...]) -> list[Any]:
        if self.fault is not None:
            # SQLite may have rolled the whole transaction back, and would commit this by itself.
            raise self.fault
        try:
            return self._cursor.execute(_SQL[name], bindings).fetchall()
        except apsw.Error as error:
            self.fault = translate(error, self._shared.where)
            raise self.fault from error

    async def _look_up(self, name: str, *bindings: Any) -> list[Any]:
        if self._journal:
            self.flush()
        return self._execute(name, bindings)

    async def _write(self, name: str, *bindings: Any) -> list[Any]:
        self._refuse()
        self.flush(for_write=True)
        self._known.clear()
        rows = self._execute(name, bindings)
        self._handed_over = self._handed_over or bool(rows)
        return rows

    # Handing over.

    async def rollback(self, savepoint: Savepoint) -> None:
        if self.lost is None and self._writable and not self._connection.in_transaction:
            # SQLite has rolled the whole transaction back. What would be written now would be committed at once.
            self.lost = self.fault or StoreError(f"the database {self._shared.where} gave up the transaction")
        await super().rollback(savepoint)

    def _insert_jobs(self, jobs: list[Job]) -> None:
        apart = [(job.id, job.args) for job in jobs if len(job.args) > _INLINE_ARGUMENTS_MAX]
        if apart:
            jobs = [job._replace(args=None) if len(job.args) > _INLINE_ARGUMENTS_MAX else job for job in jobs]  # type: ignore[arg-type]
            self._change_rows("job_arguments_insert", apart)
        self._change_rows("job_insert", jobs)

    def _insert_tables(self, tables: dict[str, str]) -> None:
        # Another process may have been first: then nothing changes.
        self._execute_many("tables_insert", list(tables.items()))
        self.new_tables.update(tables)

    def _change_rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """One statement for each row, and each changes exactly one: this connection alone may write."""
        if not rows:
            return
        before = self._connection.total_changes()
        self._execute_many(name, rows)
        changed = self._connection.total_changes() - before
        # (A trigger of the user's may have changed more.)
        if changed < len(rows):
            raise self._failed(
                f"the database {self._shared.where} is not as duly left it: {name} changed {changed} of {len(rows)} "
                "rows; was it changed by hand? Index entries must be in step with the documents"
            )

    def _execute_many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not self._connection.in_transaction:
            raise self._failed(f"the database {self._shared.where} gave up the transaction")
        try:
            self._cursor.executemany(_SQL[name], rows)
        except apsw.Error as error:
            self.fault = translate(error, self._shared.where)
            raise self.fault from error

    # Documents.

    async def get_document(self, id: str) -> str | None:
        if id in self._documents:
            return self._documents[id]
        rows: list[tuple[str]] = self._execute("document_get", (id,))
        return rows[0][0] if rows else None

    async def scan(
        self, index: int | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[Entry]:
        order = "descending" if descending else "ascending"
        if index is None:
            rows = await self._look_up(f"documents_{order}", after.id, before.id, limit)
            return [Entry(Position(b"", id), body) for id, body in rows]
        rows = await self._look_up(f"entries_{order}", index, after.key, after.id, before.key, before.id, limit)
        return [Entry(Position(key, id), body) for key, id, body in rows]

    async def count(self, index: int | None, after: Position, before: Position) -> int:
        if index is None:
            rows = await self._look_up("documents_count", after.id, before.id)
        else:
            rows = await self._look_up("entries_count", index, after.key, after.id, before.key, before.id)
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
        rows = await self._write("indexes_insert", tag, index.name, json.dumps(index.fields))
        self._shared.indexes = None
        return StoredIndex(rows[0][0], index)

    async def remember_table(self, tag: str, name: str) -> None:
        if self._shared.tables.get(tag) == name:
            return
        known = await self.table_name(tag)
        if known is None:
            self._put(self._tables, tag, name)
        elif known != name:
            raise StoreError(
                f"the names {known!r} and {name!r} make the same id tag {tag!r}; rename the table {name!r}"
            )

    async def table_name(self, tag: str) -> str | None:
        known = self._tables.get(tag) or self.new_tables.get(tag) or self._shared.tables.get(tag)
        if known is not None:
            return known
        rows = self._execute("tables_get", (tag,))
        if not rows:
            return None
        self.new_tables[tag] = rows[0][0]
        return self.new_tables[tag]

    async def list_tables(self) -> list[tuple[str, str]]:
        return await self._look_up("tables_list")

    # Jobs.

    async def _read_job(self, id: str) -> Job | None:
        rows = self._execute("job_get", (id,))
        return Job._make(rows[0]) if rows else None

    async def scan_jobs(self, after: str, before: str, descending: bool, limit: int) -> list[Job]:
        order = "descending" if descending else "ascending"
        return [Job._make(row) for row in await self._look_up(f"jobs_{order}", after, before, limit)]

    async def list_jobs(self, state: JobState, before: str, limit: int) -> list[Job]:
        statement = "jobs_by_state" if state in _USUAL else "jobs_by_unusual_state"
        return [Job._make(row) for row in await self._look_up(statement, state, before, limit)]

    async def count_jobs(self, after: str, before: str) -> int:
        return cast("int", (await self._look_up("jobs_count", after, before))[0][0])

    async def tally_jobs(self, now: float, limit: int) -> list[Tally]:
        return [Tally._make(row) for row in await self._look_up("jobs_tally", now, limit)]

    async def due_jobs(self, kind: JobKind, now: float, limit: int) -> list[Job]:
        return await self._scan_known("jobs_due", (kind, now, limit))

    async def get_arguments(self, job: Job) -> str:
        return job.args or cast("str", self._execute("job_arguments_get", (job.id,))[0][0])

    async def parked_names(self) -> list[tuple[str, str, float]]:
        return await self._look_up("parked_names")

    async def _parked_by(self, name: str, refused: str, until: float, limit: int) -> list[Job]:
        return await self._scan_known("jobs_parked", (name, refused, until, limit))

    async def _scan_known(self, name: str, bindings: tuple[Any, ...]) -> list[Job]:
        """Jobs of a range, remembered: they are about to be changed."""
        jobs = [Job._make(row) for row in await self._look_up(name, *bindings)]
        self._known.update((job.id, job) for job in jobs)
        return jobs

    async def next_due(self, kind: JobKind) -> float | None:
        rows = await self._look_up("jobs_next_due", kind)
        return cast("float", rows[0][0]) if rows else None

    async def rescue(self, worker: str, now: float, error: str) -> Rescued:
        rescued: list[Job] = []
        look_again: float | None = None
        for (owner,) in await self._look_up("workers_in_progress"):
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
                await self.delete_worker(registered)
                self._shared.forget_worker(registered)
        return Rescued(rescued, look_again)

    async def jobs_in_progress(self, worker: str) -> list[Job]:
        return await self._scan_known("jobs_of_worker", (worker,))

    async def prune_jobs(self, completed_before: float, limit: int) -> int:
        rows = await self._write("jobs_prune", completed_before, limit)
        for id, apart in rows:
            if apart:
                self._execute("job_arguments_delete", (id,))
        if self.changes is not None:
            self.changes.add_ids(id for id, _ in rows)
        return len(rows)

    async def oldest_completed(self) -> float | None:
        return cast("float | None", (await self._look_up("jobs_oldest_completed"))[0][0])

    # Workers.

    async def live_fingerprints(self, name: str, now: float) -> set[str]:  # noqa: ARG002 (no lease tells wall-clock time)
        # Whose process is there is alive: while a worker has nothing in progress, it does not renew its lease.
        published = [*self._shared.workers_having(name), *await self._look_up("workers_having", name)]
        return {fingerprint for worker, fingerprint in published if self._shared.is_held(worker)}

    async def insert_worker(self, worker: str, address: str, now: float, functions: Mapping[str, str]) -> None:
        await self._write("worker_insert", worker, address, now, json.dumps(functions))
        self._note("upkeep", None)

    async def delete_worker(self, worker: str) -> None:
        await self._write("worker_delete", worker)
        self._note("upkeep", None)

    def list_workers(self) -> list[tuple[str, str]]:
        return self._execute("workers_list", ())

    # Those who follow.

    def _insert_changes(self, now: float, written: str) -> None:
        self._change_rows("change_insert", [(now, written)])
        self._note("change", None)

    async def changes_since(self, place: str | None) -> tuple[str, Changes]:
        ((reached,),) = self._execute("changes_place", ())
        if place is None:
            return str(reached), Changes(everything=True)
        rows = self._execute("changes_since", (int(place),))
        # None is left out but those that were deleted.
        changes = Changes(everything=len(rows) != reached - int(place))
        for _, written in rows:
            changes.update(Changes.load(written))
        return str(reached), changes

    async def put_follower(self, follower: str, address: str, until: float) -> None:
        await self._write("follower_put", follower, address, until)
        self._note("upkeep", None)

    async def delete_follower(self, follower: str) -> None:
        await self._write("follower_delete", follower)

    def list_followers(self) -> list[tuple[str, str, float]]:
        return self._execute("followers_list", ())

    # The user's own tables.

    def _check_sql(self, statement: str) -> None:
        """SQLite tells when it prepares the statement."""

    async def _run_sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        try:
            return run(self._connection, self._shared.checked_sql, statement, parameters)
        except apsw.Error as error:
            mistake = mistake_of(error)
            if mistake is not None:
                raise mistake from error
            self.fault = translate(error, self._shared.where)
            raise self.fault from error

    # Savepoints that SQLite knows of.

    def _open_savepoint(self, level: int) -> None:
        self._control(f"SAVEPOINT s{level}")

    def _release_savepoint(self, level: int) -> None:
        self._control(f"RELEASE s{level}")

    def _undo_savepoint(self, level: int) -> None:
        self._control(f"ROLLBACK TO s{level}")
        self._control(f"RELEASE s{level}")
        # What was remembered since may be undone with it.
        self._shared.indexes = None
        self.new_tables.clear()

    def _control(self, statement: str) -> None:
        try:
            self._cursor.execute(statement)
        except apsw.Error as error:
            # After a fault a missing savepoint is only its consequence.
            if self.fault is None:
                self.fault = translate(error, self._shared.where)
            raise self.fault from error
