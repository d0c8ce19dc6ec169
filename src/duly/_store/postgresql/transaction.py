"""The verbs of the port on PostgreSQL: documents, indexes, the user's own tables, jobs."""

import json
import math
from collections.abc import Sequence
from typing import Any, cast

import psycopg

from duly._model.changes import Changes
from duly._model.job import Job, JobKind, JobState
from duly._model.schema import Index
from duly._store.port import Entry, Position, Rescued, StoredIndex, Tally
from duly._store.postgresql.exchange import Exchange
from duly._store.postgresql.faults import translate
from duly._store.postgresql.reserving import Reserved, ReservedAhead
from duly._store.postgresql.shared import Catalog
from duly._store.postgresql.user_sql import as_literals, is_race, mistake_of, refuse
from duly.errors import StoreError, StoreUnavailableError

__all__ = ["PostgreSQLTransaction"]

# The states that most rows are in. The others have an index of their own, which a statement must name to be given.
_USUAL = ("pending", "success")
_LOCKED_MS = 100


class PostgreSQLTransaction(Exchange):
    """A transaction with all its verbs."""

    # Whether the last look for due work took all that was to be had.
    _found_few = False
    # For how many due mutations the last look was, if it found as many.
    _full_look: int | None = None
    _rows_reserved = 0

    # Those who follow.

    async def changes_since(self, place: str | None) -> tuple[str, Changes]:
        reached: str = (await self._ask("changes_place"))[0][0]
        if place is None:
            return reached, Changes(everything=True)
        changes = Changes()
        for (written,) in await self._ask("changes_since", place):
            changes.update(Changes.load(written))
        return reached, changes

    async def prune_changes(self, before: float, limit: int) -> int:
        """What was committed before, however long before that it was written."""
        place = (await self._ask("changes_place"))[0][0]
        return len(await self._write("changes_prune", before, limit, self._shared.ended_before(before, place)))

    # Documents.

    async def get_document(self, id: str) -> str | None:
        if id not in self._documents and id not in self._read_bodies:
            body = self._ahead.get(id)
            if body is None and self._claims and not self._begun:
                body = await self._read_ahead(id)
            if body is None:
                # Of the others that are not there, it is not known why.
                found: dict[str, str | None] = {id: None}
                found.update(await self._ask("documents_get", self._ahead.ids_with(id, self._read_bodies)))
                self._read_bodies = found | self._read_bodies
            elif id not in self._documents:
                return body
        # It may have been written by a task of the same mutation meanwhile.
        return self._documents[id] if id in self._documents else self._read_bodies[id]

    async def _read_ahead(self, id: str) -> str | None:
        answers = await self._aside(self._ahead.question(self._ahead.ids_with(id, self._read_bodies)))
        if self._begun:
            return None  # meanwhile, and nobody would check it
        self._ahead.learn(answers[0].rows)
        return self._ahead.get(id)

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

    async def _look_up(self, name: str, *parameters: Any) -> list[Any]:
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
        rows = await self._write("indexes_insert", tag, index.name, json.dumps(index.fields))
        await self._write("catalog_grow")
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
        await self._write("entry_fill", *(list(column) for column in zip(*rows, strict=True)))

    async def set_index_ready(self, index: int) -> None:
        await self._write("indexes_ready", index)

    async def _write(self, name: str, *parameters: Any) -> list[Any]:
        self._refuse()
        self.flush(for_write=True)
        self._known.clear()
        wrote, self._handed_over = self._handed_over, True
        rows = await self._ask(name, *parameters)
        if name.endswith("_prune") and not rows:
            self._handed_over = wrote
        return rows

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
        return await self._look_up("tables_list")

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

    def _check_sql(self, statement: str) -> None:
        refuse(statement, self._shared.schema.strip('"'))

    async def _run_sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
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
                raise self._lose(self._shared.overtaken()) from error
            raise self._lose(translate(error, self._shared.where)) from error
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
        return [Job._make(row) for row in await self._look_up(f"jobs_{order}", after, before, limit)]

    async def list_jobs(self, state: JobState, before: str, limit: int) -> list[Job]:
        statement = "jobs_by_state" if state in _USUAL else "jobs_by_unusual_state"
        return [Job._make(row) for row in await self._look_up(statement, state, before, limit)]

    async def count_jobs(self, after: str, before: str) -> int:
        return cast("int", (await self._look_up("jobs_count", after, before))[0][0])

    async def tally_jobs(self, now: float, limit: int) -> list[Tally]:
        return [Tally._make(row) for row in await self._look_up("jobs_tally", now, limit)]

    async def due_jobs(self, kind: JobKind, now: float, limit: int) -> list[Job]:
        if not self._claims:
            return await self._look("jobs_due", kind, now, limit)
        is_first = not self._reserved_until and not self._begun
        ahead = await self._claims.take(limit) if is_first and kind == "mutation" else None
        jobs = await self._reserve("jobs_reserve", kind, now, limit, ahead=ahead)
        self._full_look = limit if len(jobs) == limit and kind == "mutation" else None
        return jobs

    def look_ahead(self) -> ReservedAhead | None:
        """Before the commit, and once all is handed over: where more is due, it is reserved meanwhile."""
        if self._claims is None or self._full_look is None:
            return None
        if self._places or self._undone or self._rows_updated != self._rows_reserved:
            # Some of what was found is left, and comes first; or other jobs were cancelled, which may be the very next.
            # Where something was undone, nobody has counted what.
            return None
        return self._claims.look_ahead(self._full_look, self._reserved_until)

    async def _parked_by(self, name: str, refused: str, until: float, limit: int) -> list[Job]:
        if self._claims:
            return await self._reserve("jobs_reserve_parked", name, refused, until, limit)
        return await self._look("jobs_parked", name, refused, until, limit)

    async def live_fingerprints(self, name: str, now: float) -> set[str]:
        return {fingerprint for (fingerprint,) in await self._look_up("workers_having", name, now)}

    async def _reserve(self, statement: str, *parameters: Any, ahead: Reserved | None = None) -> list[Job]:
        """What is reserved is newer than what a transaction sees that has begun: then there is nothing for it."""
        if self._begun:
            self._found_few = False
            return []
        assert self._claims is not None
        self._reserved_until = ahead.until if ahead else self._reserved_until or self._claims.new()
        self.asking += 1
        try:
            reserved = ahead or await self._claims.reserve(statement, *parameters, until=self._reserved_until)
        except StoreUnavailableError as fault:
            raise self._lose(fault) from fault.__cause__
        finally:
            self.asking -= 1
        jobs = self._placed(reserved.rows)
        self._rows_reserved += len(jobs)
        # Since it was reserved ahead, more may have come.
        self._found_few = ahead is None and len(jobs) < parameters[-1]
        jobs.sort(key=lambda job: (job.due, job.id))
        for job in jobs:
            self._known[job.id] = job
            self._ahead.expect(job.args)
        return jobs

    async def _look(self, statement: str, *parameters: Any) -> list[Job]:
        jobs = self._placed(await self._look_up(statement, *parameters))
        self._known.update((job.id, job) for job in jobs)
        return jobs

    async def next_due(self, kind: JobKind) -> float | None:
        now = self._shared.clock.now_ms()
        parameters = (kind, now, self._shared.worker, self._reserved_until)
        if self._claims:
            rows = (await self._aside(self._statement("jobs_next_due", *parameters)))[0].rows
        else:
            rows = await self._look_up("jobs_next_due", *parameters)
        due = min((time for time in rows[0] if time is not None), default=None)
        if due is not None and due <= now and self._found_few:
            # It is due, and was not to be had: somebody else's transaction has its row at the moment.
            return now + _LOCKED_MS
        return due

    async def parked_names(self) -> list[tuple[str, str, float]]:
        if self._claims:
            if self._shared.nothing_parked:
                return []
            return (await self._aside(self._statement("parked_names")))[0].rows
        return await self._look_up("parked_names")

    async def get_arguments(self, job: Job) -> str:
        return job.args or cast("str", (await self._ask("job_arguments_get", job.id))[0][0])

    async def jobs_in_progress(self, worker: str) -> list[Job]:
        jobs = self._placed(await self._look_up("jobs_of_worker", worker))
        self._known.update((job.id, job) for job in jobs)
        return jobs

    async def rescue(self, worker: str, now: float, error: str) -> Rescued:
        rescued: list[Job] = []
        look_again = math.inf
        expires = dict(await self._look_up("workers_list"))
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
                await self._write("worker_delete", owner)
                self._note("upkeep", None)
        return Rescued(rescued, None if look_again == math.inf else look_again)

    async def prune_jobs(self, completed_before: float, limit: int) -> int:
        rows = await self._write("jobs_prune", completed_before, limit)
        if self.changes is not None:
            self.changes.add_ids(id for (id,) in rows)
        return len(rows)

    async def oldest_completed(self) -> float | None:
        return cast("float | None", (await self._look_up("jobs_oldest_completed"))[0][0])
