"""The verbs of the port on PostgreSQL.

What a body writes waits in a queue, and goes out together with its next read, or at the commit: BEGIN, a savepoint, the
rows of many mutations and a question share one round trip. A transaction that asked nothing and wrote nothing was never
there for the server.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import psycopg

from duly._model.job import Job, JobKind, JobState
from duly._model.schema import Index
from duly._store.buffered import BufferedTransaction
from duly._store.port import Entry, Position, Rescued, StoredIndex
from duly._store.postgresql.faults import is_connection_lost, translate
from duly._store.postgresql.pool import Pool
from duly._store.postgresql.shared import Catalog, Shared
from duly._store.postgresql.user_sql import as_literals, is_race, mistake_of, refuse
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly.errors import DulyError, StoreError

__all__ = ["READING", "WRITING", "PostgreSQLTransaction"]

READING = "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"
WRITING = "BEGIN ISOLATION LEVEL SERIALIZABLE"

# The states that most rows are in. The others have an index of their own, which a statement must name to be given.
_USUAL = ("pending", "success")
_ID = re.compile(r'"([0-9a-hjkmnp-tv-z]{32})"')
_PREFETCHED_MAX = 1_000


class PostgreSQLTransaction(BufferedTransaction):
    """One transaction on a connection, or on none as long as it needs none.

    Args:
        pool: Where it gets a connection, once it needs one.
        shared: What the transactions of a store share.
        writable: Whether it may write.
        claims: Whether it looks for due work first of all, and so reserves some before it begins.
    """

    def __init__(self, pool: Pool, shared: Shared, *, writable: bool, claims: bool = False) -> None:
        super().__init__(writable=writable)
        self.suspends = True
        self._pool = pool
        self._wire: Wire | None = None
        self._shared = shared
        self._claims = claims
        self._reserved_until = 0.0
        self._begun = False
        self._connecting = asyncio.Lock()
        # What goes out with the next question; how many rows each of it must change, if that is known.
        self._queue: list[tuple[Statement, int | None]] = []
        # By which the commit can be asked for later.
        self.token: str | None = None
        # Documents as the server has them; and those that are likely to be read.
        self._read_bodies: dict[str, str | None] = {}
        self._wanted: set[str] = set()
        # Where the rows of jobs are that were read.
        self._places: dict[str, str] = {}
        self.new_tables: dict[str, str] = {}
        self._immediate = False
        self._catalog: Catalog | None = None
        self._catalog_version = 0
        # How many questions are on the way: a mutation that waits for one does not wait for the world.
        self.asking = 0

    # Statements.

    def _statement(self, name: str, *parameters: Any) -> Statement:
        return Statement(self._shared.sql[name], parameters or None, name)

    async def _ask(self, name: str, *parameters: Any) -> list[Any]:
        """One question, after everything that is in the queue."""
        if self.fault is not None:
            # The server answers nothing any more in this transaction.
            raise self.fault
        return (await self._exchange(self._statement(name, *parameters)))[-1].rows

    async def _exchange(self, *questions: Statement) -> list[Answer]:
        """Sends the queue and the questions; checks what came of the queue, and returns the questions' answers."""
        if self.lost is not None:
            raise self.lost
        queue, self._queue = self._queue, []
        opening = [] if self._begun else self._opening()
        self._begun = True
        self.asking += 1
        try:
            wire = await self._connect()
            answers = await wire.run([*opening, *(statement for statement, _ in queue), *questions])
        except psycopg.Error as error:
            raise self._lose(error) from error
        finally:
            self.asking -= 1
        if opening:
            self._check_catalog(answers[len(opening) - 1].rows[0][0])
            answers = answers[len(opening) :]
        for (statement, expected), answer in zip(queue, answers, strict=False):
            if expected is not None and answer.changed != expected:
                raise self._lose_step(statement, expected, answer.changed)
        return answers[len(queue) :]

    async def _connect(self) -> Wire:
        async with self._connecting:
            if self._wire is None:
                self._wire = await self._pool.take()
            return self._wire

    def leave(self) -> None:
        """Gives the connection back. If the transaction is still open, the server undoes it."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._pool.give(wire)

    def _opening(self) -> list[Statement]:
        shared = self._shared
        idle_ms = str(shared.idle_ms if self._writable else shared.idle_read_ms)
        begin = Statement(WRITING if self._writable else READING)
        return [begin, self._statement("begin", idle_ms), self._statement("catalog_version")]

    def _check_catalog(self, version: int) -> None:
        self._catalog_version = version
        if self._catalog is not None and self._catalog.version != version:
            # It has written documents without the entries of an index that is new.
            self._shared.catalog = None
            self.lost = self._shared.overtaken()
            raise self.lost
        known = self._shared.catalog
        self._catalog = known if known is not None and known.version == version else None

    def _lose(self, error: psycopg.Error) -> DulyError:
        """The server gives the whole transaction up at the first error."""
        fault = translate(error, self._shared.where)
        self.lost = self.lost or fault
        self.fault = self.fault or cast("StoreError", fault)
        return fault

    def _overtaken(self) -> DulyError:
        fault = self._shared.overtaken()
        self.lost = self.lost or fault
        self.fault = self.fault or cast("StoreError", fault)
        return fault

    def _lose_step(self, statement: Statement, expected: int, count: int) -> DulyError:
        fault: DulyError = self._shared.overtaken()
        # A job may have been reserved, and then cancelled by somebody before this transaction began.
        if not statement.name.startswith("job_update"):
            fault = StoreError(
                f"the database {self._shared.where} is not as duly left it: {statement.name} changed {count} of "
                f"{expected} rows; was it changed by hand? Index entries must be in step with the documents"
            )
        self.lost = self.lost or fault
        self.fault = self.fault or cast("StoreError", fault)
        return fault

    async def _aside(self, *statements: Statement) -> list[Answer]:
        """Questions in a transaction of their own, not serializable, on another connection: they leave no traces that
        others could conflict with, and what they find is newer than what this transaction sees."""
        self.asking += 1
        try:
            return await self._shared.aside(statements)
        finally:
            self.asking -= 1

    # Ending.

    async def push(self) -> None:
        await super().push()
        if self._queue:
            await self._exchange()
        self._read_bodies.clear()

    def sign(self, token: str) -> None:
        """Leaves a token with what is to be committed: the last that is written."""
        self.flush()
        self._queue.append((self._statement("commit_sign", token), 1))
        self.token = token

    async def commit(self) -> bool:
        """Whether it is committed; if not, the answer got lost: ask what became of `token`.

        Raises:
            ConflictError, StoreError: It is not.
        """
        if not self._begun:
            if self._catalog is None:
                return True
            await self._exchange()  # is what it took for granted so?
        wire = await self._connect()
        try:
            await wire.run([Statement("COMMIT")])
        except psycopg.Error as error:
            if is_connection_lost(error) and self.token is not None:
                return False
            raise self._lose(error) from error
        return True

    # Handing over.

    def _enqueue(self, text: str, *parameters: Any) -> None:
        self._queue.append((Statement(text, parameters or None), None))

    def _change_rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        if name == "job_update":
            self._update_jobs(rows)
            return
        if name.startswith("document"):
            self._read_bodies.update((row[0], row[1] if len(row) > 1 else None) for row in rows)
        self._put_in_queue(name, rows)

    def _put_in_queue(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._queue.append((self._statement(name, *columns), len(rows)))

    def _insert_jobs(self, jobs: list[Job]) -> None:
        self._put_in_queue("job_insert", jobs)

    def _update_jobs(self, rows: Sequence[tuple[Any, ...]]) -> None:
        placed: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for row in rows:
            # Once: the row that is written now will be elsewhere.
            place = self._places.pop(row[0], None)
            if place is None:
                moved.append(row)
            else:
                placed.append((*row, place))
        if placed:
            self._put_in_queue("job_update", placed)
        if moved:
            self._put_in_queue("job_update_by_id", moved)

    def _insert_tables(self, tables: dict[str, str]) -> None:
        self._queue.append((self._statement("tables_insert", list(tables), list(tables.values())), None))
        self.new_tables.update(tables)

    def _open_savepoint(self, level: int) -> None:
        self._enqueue(f"SAVEPOINT s{level}")

    def _release_savepoint(self, level: int) -> None:
        self._enqueue(f"RELEASE s{level}")

    def _undo_savepoint(self, level: int) -> None:
        self._enqueue(f"ROLLBACK TO s{level}")
        self._enqueue(f"RELEASE s{level}")
        # What was remembered since may be undone with it.
        self._read_bodies.clear()
        self._places.clear()
        self._catalog = None
        self.new_tables.clear()
        self._immediate = False

    # Documents.

    async def get_document(self, id: str) -> str | None:
        if id in self._documents:
            return self._documents[id]
        if id not in self._read_bodies:
            wanted = self._wanted - self._read_bodies.keys() - self._documents.keys()
            self._wanted = set()
            ids = [id, *(wanted - {id})]
            found = dict.fromkeys(ids)
            found.update(await self._ask("documents_get", ids))
            for key, body in found.items():
                self._read_bodies.setdefault(key, body)
            if id in self._documents:
                return self._documents[id]  # written by a task of the same mutation meanwhile
        return self._read_bodies[id]

    async def scan(
        self, index: int | None, after: Position, before: Position, descending: bool, limit: int
    ) -> list[Entry]:
        order = "descending" if descending else "ascending"
        if index is None:
            rows = await self._scan(f"documents_{order}", after.id, before.id, limit)
            return [Entry(Position(b"", id), body) for id, body in rows]
        rows = await self._scan(f"entries_{order}", index, after.key, after.id, before.key, before.id, limit)
        return [Entry(Position(key, id), body) for key, id, body in rows]

    async def count(self, index: int | None, after: Position, before: Position) -> int:
        if index is None:
            rows = await self._scan("documents_count", after.id, before.id)
        else:
            rows = await self._scan("entries_count", index, after.key, after.id, before.key, before.id)
        return cast("int", rows[0][0])

    async def _scan(self, name: str, *parameters: Any) -> list[Any]:
        """Rows of a range, with what this transaction has written."""
        self.flush()
        return await self._ask(name, *parameters)

    async def stored_indexes(self, tag: str) -> Sequence[StoredIndex]:
        shared = self._shared
        if self._catalog is None:
            # Before it begins: as far as we know. The opening asks whether that is still so.
            self._catalog = shared.catalog
            if self._begun or self._catalog is None:
                rows = await self._ask("indexes_list")
                self._catalog = Catalog.of(self._catalog_version, rows)
                if self._writable:
                    # A reader's snapshot may be older than an index that writers have to keep up.
                    shared.catalog = self._catalog
        return self._catalog.indexes.get(tag, ())

    async def create_index(self, tag: str, index: Index) -> StoredIndex:
        rows = await self._write_now("indexes_insert", tag, index.name, json.dumps(index.fields))
        await self._write_now("catalog_grow")
        self._catalog = self._shared.catalog = None
        return StoredIndex(rows[0][0], index)

    async def unfilled_indexes(self) -> list[tuple[str, StoredIndex]]:
        """Indexes that do not hold yet what was there before them, with the tag of their table."""
        rows = await self._ask("indexes_list")
        return [
            (tag, StoredIndex(number, Index(name, tuple(json.loads(fields)))))
            for number, tag, name, fields, ready in rows
            if not ready
        ]

    async def fill_entries(self, rows: list[tuple[int, bytes, str]]) -> None:
        """Entries of an index for documents that may have got theirs from whoever wrote them meanwhile."""
        await self._write_now("entry_fill", *(list(column) for column in zip(*rows, strict=True)))

    async def set_index_ready(self, index: int) -> None:
        await self._write_now("indexes_ready", index)

    async def _write_now(self, name: str, *parameters: Any) -> list[Any]:
        """A statement of its own, for what is written too rarely to be kept back."""
        self._refuse()
        self.flush(for_write=True)
        self._known.clear()
        self._handed_over = True
        return await self._ask(name, *parameters)

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

    async def list_tables(self) -> list[tuple[str, str]]:
        return await self._scan("tables_list")

    async def table_name(self, tag: str) -> str | None:
        known = self._tables.get(tag) or self.new_tables.get(tag) or self._shared.tables.get(tag)
        if known is not None:
            return known
        rows = await self._ask("tables_get", tag)
        if not rows:
            return None
        self.new_tables[tag] = rows[0][0]
        return self.new_tables[tag]

    # The user's own tables.

    async def _run_sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        refuse(statement, self._shared.schema.strip('"'))
        if not self._immediate:
            # Left to the commit, a deferred constraint would fail all the mutations that commit together.
            self._enqueue("SET CONSTRAINTS ALL IMMEDIATE")
            self._immediate = True
        await self._exchange()
        assert self._wire is not None
        self.asking += 1
        try:
            return await self._wire.run_sql(statement, as_literals(parameters))
        except psycopg.Error as error:
            mistake = mistake_of(error, statement)
            if mistake is not None:
                raise mistake from error
            if is_race(error):
                raise self._overtaken() from error
            raise self._lose(error) from error
        finally:
            self.asking -= 1

    # Jobs.

    def _placed(self, rows: list[Any]) -> list[Job]:
        """Jobs with where their rows are."""
        jobs = [Job._make(row[:-1]) for row in rows]
        self._places.update(zip((job.id for job in jobs), (row[-1] for row in rows), strict=True))
        return jobs

    async def _read_job(self, id: str) -> Job | None:
        jobs = self._placed(await self._ask("job_get", id))
        return jobs[0] if jobs else None

    async def scan_jobs(self, after: str, before: str, descending: bool, limit: int) -> list[Job]:
        order = "descending" if descending else "ascending"
        return [Job._make(row) for row in await self._scan(f"jobs_{order}", after, before, limit)]

    async def list_jobs(self, state: JobState, before: str, limit: int) -> list[Job]:
        statement = "jobs_by_state" if state in _USUAL else "jobs_by_unusual_state"
        return [Job._make(row) for row in await self._scan(statement, state, before, limit)]

    async def count_jobs(self, after: str, before: str) -> int:
        return cast("int", (await self._scan("jobs_count", after, before))[0][0])

    async def due_jobs(self, kind: JobKind, now: float, limit: int) -> list[Job]:
        if self._claims:
            return await self._reserve("jobs_reserve", kind, now, limit)
        return await self._look("jobs_due", kind, now, limit)

    async def parked_jobs(self, name: str, fingerprint: str, now: float, limit: int) -> list[Job]:
        return await self._parked_jobs(name, lambda refused: fingerprint not in refused, now, limit)

    async def refused_jobs(self, name: str, fingerprint: str, limit: int) -> list[Job]:
        return await self._parked_jobs(name, lambda refused: fingerprint in refused, math.inf, limit)

    async def _parked_jobs(
        self, name: str, wanted: Callable[[Sequence[str]], bool], until: float, limit: int
    ) -> list[Job]:
        jobs: list[Job] = []
        for parked_name, refused, _ in await self.parked_names():
            if parked_name != name or not wanted(refused.split()):
                continue
            if self._claims:
                jobs += await self._reserve("jobs_reserve_parked", name, refused, until, limit)
            else:
                jobs += await self._look("jobs_parked", name, refused, until, limit)
        jobs.sort(key=lambda job: (job.due, job.id))
        return jobs[:limit]

    async def live_fingerprints(self, name: str, now: float) -> set[str]:
        return {fingerprint for (fingerprint,) in await self._scan("workers_having", name, now)}

    async def _reserve(self, statement: str, *parameters: Any) -> list[Job]:
        """What is reserved is newer than what a transaction sees that has begun: then there is nothing for it."""
        if self._begun:
            return []
        shared = self._shared
        if not self._reserved_until:
            self._reserved_until = shared.clock.now_ms() + shared.lease_ms
        reserve = self._statement(statement, *parameters, shared.worker, self._reserved_until)
        jobs = self._placed((await self._aside(reserve))[0].rows)
        jobs.sort(key=lambda job: (job.due, job.id))
        for job in jobs:
            self._known[job.id] = job
            if len(self._wanted) < _PREFETCHED_MAX:
                # A job's arguments tell what it will read first.
                self._wanted.update(_ID.findall(job.args))
        return jobs

    async def _look(self, statement: str, *parameters: Any) -> list[Job]:
        jobs = self._placed(await self._scan(statement, *parameters))
        self._known.update((job.id, job) for job in jobs)
        return jobs

    async def next_due(self, kind: JobKind) -> float | None:
        parameters = (kind, self._shared.clock.now_ms(), self._shared.worker)
        if self._claims:
            rows = (await self._aside(self._statement("jobs_next_due", *parameters)))[0].rows
        else:
            rows = await self._scan("jobs_next_due", *parameters)
        return min((time for time in rows[0] if time is not None), default=None)

    async def parked_names(self) -> list[tuple[str, str, float]]:
        if self._claims:
            return (await self._aside(self._statement("parked_names")))[0].rows
        return await self._scan("parked_names")

    async def get_arguments(self, job: Job) -> str:
        return job.args or cast("str", (await self._ask("job_arguments_get", job.id))[0][0])

    async def jobs_in_progress(self, worker: str) -> list[Job]:
        jobs = self._placed(await self._scan("jobs_of_worker", worker))
        self._known.update((job.id, job) for job in jobs)
        return jobs

    async def rescue(self, worker: str, now: float, error: str) -> Rescued:
        rescued: list[Job] = []
        look_again = math.inf
        expires = dict(await self._scan("workers_list"))
        owners = {owner for (owner,) in await self._ask("workers_in_progress")}
        for owner in sorted(owners - {worker}):
            expiry = expires.get(owner, 0.0)
            if expiry > now:
                look_again = min(look_again, expiry)
                continue
            for job in await self.jobs_in_progress(owner):
                settled = await self.settle_job(job.id, "inProgress", job.attempts, "failed", now, error=error)
                rescued += [job] if settled else []
        for owner, expiry in expires.items():
            if owner != worker and expiry <= now:
                await self._write_now("worker_delete", owner)
                self._note("upkeep", None)
        return Rescued(rescued, None if look_again == math.inf else look_again)

    async def prune_jobs(self, completed_before: float, limit: int) -> int:
        wrote = self.wrote
        rows = await self._write_now("jobs_prune", completed_before, limit)
        self._handed_over = wrote or rows[0][0] > 0
        return cast("int", rows[0][0])

    async def oldest_completed(self) -> float | None:
        return cast("float | None", (await self._scan("jobs_oldest_completed"))[0][0])
