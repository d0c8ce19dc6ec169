"""What goes to the server and comes back, in a transaction on PostgreSQL.

What a body writes waits in a queue, and goes out together with its next read, or with the commit: BEGIN, a savepoint,
the rows of many mutations and a question share one round trip, and so do the last of them and COMMIT. So whatever must
hold for the commit is checked by the server, in the statements themselves. A transaction that asked nothing and wrote
nothing was never there for the server.
"""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Any, cast

import psycopg
from psycopg import errors

from duly._model.changes import Changes
from duly._model.job import Job
from duly._store.buffered import BufferedTransaction
from duly._store.postgresql.ahead import Ahead
from duly._store.postgresql.faults import is_connection_lost, translate
from duly._store.postgresql.pool import Pool
from duly._store.postgresql.reserving import Reserving
from duly._store.postgresql.shared import Catalog, Shared
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly.errors import ConflictError, DulyError, StoreError

__all__ = ["Exchange"]

_READING = "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"
# Waits for a moment at which nothing that is under way can make this snapshot one that never was; then it neither loses
# against anybody, nor makes others lose. Not for long: it waits for everybody who writes, anywhere on the server.
_FOLLOWING = f"{_READING} DEFERRABLE"
_WAITING = "SET LOCAL statement_timeout = 200"
_HAVING_WAITED = "SET LOCAL statement_timeout TO DEFAULT"
_WRITING = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_COMMIT = Statement("COMMIT")
_ROLLBACK = Statement("ROLLBACK")
# A transaction that takes longer leaves word in any case: it may be older than whoever follows, and see nothing of it.
_LONG_S = 5.0
# What writes a row for each that it is given, or fails.
_INSERTS = frozenset({"document_insert", "entry_insert", "job_insert", "client_request_insert"})
# What finds less than it should if somebody was faster: since a job was reserved, or what it reads was read.
_OVERTAKEN = frozenset({"job_update", "job_update_by_id", "catalog", "documents_check", "document_replace_ahead"})
# How many characters go to the server in one statement: it takes no message of 1 GiB, and a character may have 4 bytes.
_PIECE_MAX = 64 * 1024 * 1024
# As expecting.sql says it. Around it are words and quotation marks of whatever language the server speaks.
_MISSED = re.compile(r"\b([a-z_]+) touched (\d+) of (\d+) rows\b")


class Exchange(BufferedTransaction):
    """One transaction on a connection, or on none as long as it needs none.

    Args:
        pool: Where it gets a connection, once it needs one.
        shared: What the transactions of a store share.
        writable: Whether it may write.
        claims: If it looks for due work first of all: by which it reserves some before it begins.
        follows: Whether it reads again and again, and so had better hold up nobody.
    """

    def __init__(
        self, pool: Pool, shared: Shared, *, writable: bool, claims: Reserving | None = None, follows: bool = False
    ) -> None:
        super().__init__(writable=writable)
        self.suspends = True
        if writable:
            self.changes = Changes()
        self._pool = pool
        self._wire: Wire | None = None
        self._shared = shared
        self._claims = claims
        self._follows = follows
        self._reserved_until = 0.0
        self._begun = False
        self._began = 0.0
        # What is sent and what comes back are one step.
        self._turn = asyncio.Lock()
        # What goes out with the next question, or the commit.
        self._queue: list[Statement] = []
        # By which the commit can be asked for later, and what is left with it for those who follow.
        self.token: str | None = None
        self._word: tuple[float | None, str | None] = (None, None)
        # Documents as the server has them; and those that were read before the transaction began.
        self._read_bodies: dict[str, str | None] = {}
        self._ahead = Ahead(shared.sql)
        # Where the rows of jobs are that were read.
        self._places: dict[str, str] = {}
        self._rows_updated = 0
        self._undone = False
        self.new_tables: dict[str, str] = {}
        self._immediate = False
        self._catalog: Catalog | None = None
        self._catalog_version = 0
        # How many questions are on the way: a mutation that waits for one does not wait for the world.
        self.asking = 0

    # Statements.

    def _statement(self, name: str, *parameters: Any) -> Statement:
        return Statement(self._shared.sql[name], parameters or None, name)

    def _expecting(self, name: str, count: int, *parameters: Any, size: int = 0) -> Statement:
        """One that must touch so many rows, or nothing is committed."""
        return Statement(self._shared.expecting(name, count), parameters or None, name, size)

    async def _ask(self, name: str, *parameters: Any) -> list[Any]:
        """One question, after everything that is in the queue."""
        if self.fault is not None:
            # The server answers nothing any more in this transaction.
            raise self.fault
        return (await self._exchange(self._statement(name, *parameters)))[-1].rows

    async def _exchange(self, *questions: Statement, afterwards: Statement | None = None) -> list[Answer]:
        """Sends the queue and the questions, and returns the questions' answers."""
        # In a task of its own: a function that runs out of time in the middle of it must not leave it half done.
        exchange = self._exchange_whole(questions, afterwards)
        task = asyncio.get_running_loop().create_task(exchange, name="duly statement")
        try:
            return await asyncio.shield(task)
        except BaseException:
            task.add_done_callback(_shrug)
            raise

    async def _exchange_whole(self, questions: Sequence[Statement], afterwards: Statement | None) -> list[Answer]:
        async with self._turn:
            if self.lost is not None:
                raise self.lost
            self.asking += 1
            try:
                if self._wire is None:
                    self._wire = await self._pool.take()
                return await self._send(self._wire, questions, afterwards)
            except psycopg.Error as error:
                raise self._lose(self._translate(error)) from error
            except DulyError as error:
                # Also if there is no connection: what others of the group have in the queue is not to be forgotten.
                raise self._lose(error) from error.__cause__
            finally:
                self.asking -= 1

    async def _send(self, wire: Wire, questions: Sequence[Statement], afterwards: Statement | None) -> list[Answer]:
        queue, self._queue = self._queue, []
        if self._ahead:
            seen, bodies = self._ahead.check()
            if seen:
                queue = [self._expecting("documents_check", len(seen), *_columns(seen)), *queue]
            self._read_bodies = bodies | self._read_bodies
        clock = self._shared.clock
        opening = [] if self._begun else self._opening()
        if opening:
            self._begun, self._began = True, clock.monotonic()
        asked = clock.own_ms()
        try:
            answers = await wire.run_here([*opening, *queue, *questions], afterwards)
        except errors.UniqueViolation:
            await self._check_again(queue)
            raise
        except errors.QueryCanceled as error:
            if opening and opening[0].text == _FOLLOWING:
                raise self._shared.waited_in_vain() from error
            raise
        if opening:
            told = {statement.name: answer for statement, answer in zip(opening, answers, strict=False)}
            if self._shared.follow:
                clock.learn(asked, told["begin"].rows[0][0], clock.own_ms())
            self._learn_catalog(told["begin"].rows[0][1])
            answers = answers[len(opening) :]
        for statement, answer in zip(queue, answers, strict=False):
            if statement.name == "commit_sign" and answer.changed:
                self._note("change", None)  # somebody follows
        return answers[len(queue) :]

    async def hold(self, wire: Wire) -> None:
        """Begins now, on a connection that is not the pool's, until `let_go`."""
        self._wire = wire
        await self._ask("changes_place")

    async def let_go(self) -> None:
        async with self._turn:
            wire, self._wire = self._wire, None
            self.lost = self.lost or StoreError("the snapshot was let go")
        if wire is not None:
            with contextlib.suppress(psycopg.Error):
                await wire.close()

    async def leave(self) -> None:
        """Gives the connection back, once what is on it has its answer. What is still open, the server undoes."""
        # In a task of its own where that takes time: whoever is cancelled meanwhile must not keep the connection.
        if self._turn.locked() or isinstance(self.lost, ConflictError):
            task = asyncio.get_running_loop().create_task(self._leave(), name="duly leave")
            await asyncio.shield(task)
        else:
            await self._leave()

    async def _leave(self) -> None:
        async with self._turn:
            wire, self._wire = self._wire, None
            lost_a_race = isinstance(self.lost, ConflictError)
            self.lost = self.lost or StoreError("the transaction has ended")
        if wire is None:
            return
        if lost_a_race and wire.in_transaction and not wire.closed:
            # The server has just answered: that is sooner done than connecting anew.
            with contextlib.suppress(psycopg.Error):
                await wire.run([_ROLLBACK])
        self._pool.give(wire)

    def _opening(self) -> list[Statement]:
        shared = self._shared
        known = None if self._catalog is None else self._catalog.version
        begin = self._statement("begin", str(shared.idle_ms(writable=self._writable)), known)
        if self._follows and shared.may_wait():
            return [Statement(_FOLLOWING), Statement(_WAITING), begin, Statement(_HAVING_WAITED)]
        return [Statement(_WRITING if self._writable else _READING), begin]

    def _learn_catalog(self, version: int) -> None:
        self._catalog_version = version
        known = self._shared.catalog
        self._catalog = known if known is not None and known.version == version else None

    def _lose(self, fault: DulyError) -> DulyError:
        """The server gives the whole transaction up at the first error."""
        self.lost = self.lost or fault
        self.fault = self.fault or cast("StoreError", fault)
        return fault

    async def _check_again(self, queue: Sequence[Statement]) -> None:
        """Somebody who changed a document after it was read ahead may have made the very entry that we make for it."""
        for statement, expected in self._ahead.checks_again(queue):
            if (await self._shared.aside([statement], True))[0].changed != expected:
                raise self._shared.overtaken()

    def _translate(self, error: psycopg.Error) -> DulyError:
        missed = _MISSED.search(str(error)) if isinstance(error, errors.InvalidTextRepresentation) else None
        if missed is None:
            return translate(error, self._shared.where)
        name, count, expected = missed.groups()
        if name == "catalog":
            self._shared.catalog = None
        if name in _OVERTAKEN:
            return self._shared.overtaken()
        return StoreError(
            f"the database {self._shared.where} is not as duly left it: {name} changed {count} of "
            f"{expected} rows; was it changed by hand? Index entries must be in step with the documents"
        )

    async def _aside(self, *statements: Statement, again: bool = True) -> list[Answer]:
        """Questions in a transaction of their own, not serializable, on another connection: they leave no traces that
        others could conflict with, and what they find is newer than what this transaction sees."""
        self.asking += 1
        try:
            return await self._shared.aside(statements, again)
        finally:
            self.asking -= 1

    # Ending.

    async def push(self) -> None:
        await super().push()
        if self._queue:
            await self._exchange()
        self._read_bodies.clear()

    def _insert_changes(self, now: float, written: str) -> None:
        self._word = (now, written)

    def sign(self, token: str) -> None:
        """Leaves a token with what is to be committed, and word of what that is: the last that is written."""
        self.flush()
        is_long = self._begun and self._shared.clock.monotonic() - self._began > _LONG_S
        self._queue.append(self._statement("commit_sign", token, *self._word, is_long))
        self.token = token

    async def commit(self, afterwards: Statement | None = None) -> bool:
        """Whether it is committed; if not, the answer got lost: ask what became of `token`, if it has one.

        Args:
            afterwards: What the server is told right behind it.

        Raises:
            ConflictError, StoreError: It is not.
        """
        self.flush()
        if not self._begun and not self._queue and self._catalog is None and not self._ahead:
            return True  # it took nothing for granted
        try:
            answers = await self._exchange(_COMMIT, afterwards=afterwards)
        except DulyError as error:
            cause = error.__cause__
            if self.wrote and self._begun and isinstance(cause, psycopg.Error) and is_connection_lost(cause):
                return False
            raise
        if answers[0].status != "COMMIT":
            raise self._lose(self._shared.overtaken())  # a statement had failed: it was rolled back
        return True

    # Handing over.

    def _enqueue(self, text: str, *parameters: Any) -> None:
        self._queue.append(Statement(text, parameters or None))

    def _change_rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if name == "job_update":
            self._update_jobs(rows)
            return
        if name.startswith("document"):
            self._read_bodies.update((row[0], row[1] if len(row) > 1 else None) for row in rows)
        if name == "document_replace":
            ahead = self._ahead.take(rows)
            self._put_in_queue("document_replace_ahead", ahead)
            taken = {row[0] for row in ahead}
            rows = [row for row in rows if row[0] not in taken]
        self._put_in_queue(name, rows)

    def _put_in_queue(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        arrays = _columns(rows)
        size = sum(map(_size, arrays))
        if size > _PIECE_MAX and len(rows) > 1:
            half = len(rows) // 2
            self._put_in_queue(name, rows[:half])
            self._put_in_queue(name, rows[half:])
        # While an index is being filled, a document may have no entry in it yet.
        elif name in _INSERTS or (name == "entry_delete" and self._fills(arrays[0])):
            self._queue.append(Statement(self._shared.sql[name], arrays, name, size))
        else:
            self._queue.append(self._expecting(name, len(rows), *arrays, size=size))

    def _fills(self, indexes: list[int]) -> bool:
        known = self._catalog or self._shared.catalog
        return known is None or not known.filling.isdisjoint(indexes)

    def _insert_jobs(self, jobs: list[Job]) -> None:
        self._put_in_queue("job_insert", jobs)

    def _update_jobs(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._rows_updated += len(rows)
        placed: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for row in rows:
            # Once: the row that is written now will be elsewhere.
            place = self._places.pop(row[0], None)
            if place is None:
                moved.append(row)
            else:
                placed.append((*row, place))
        self._put_in_queue("job_update", placed)
        self._put_in_queue("job_update_by_id", moved)

    def _insert_tables(self, tables: dict[str, str]) -> None:
        self._queue.append(self._statement("tables_insert", list(tables), list(tables.values())))
        self.new_tables.update(tables)

    def _open_savepoint(self, level: int) -> None:
        self._enqueue(f"SAVEPOINT s{level}")

    def _release_savepoint(self, level: int) -> None:
        self._enqueue(f"RELEASE s{level}")

    def _undo_savepoint(self, level: int) -> None:
        self._enqueue(f"ROLLBACK TO s{level}")
        self._enqueue(f"RELEASE s{level}")
        # What was remembered since may be undone with it.
        self._undone = True
        self._read_bodies.clear()
        self._places.clear()
        if self._begun:
            self._catalog = None
        self.new_tables.clear()
        self._immediate = False


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _size(column: list[Any]) -> int:
    """How many characters, or bytes: of a column of either, which may have gaps."""
    first = next(filter(None, column), None)
    return sum(map(len, filter(None, column))) if isinstance(first, (str, bytes)) else 0


def _shrug(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more; what went wrong is noted in the transaction."""
    if not task.cancelled():
        task.exception()
