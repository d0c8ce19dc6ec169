"""A connection to PostgreSQL, on which statements go out together: one round trip for many.

Nothing on it depends on the session: no prepared statement, no setting but for one transaction, no lock that outlives
it. So it works through a pooler that gives each transaction another session.
"""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.types.array import ListBinaryDumper

from duly._ground.clock import SystemClock
from duly._model.limits import READS_MAX
from duly._store.postgresql.address import Address
from duly._store.postgresql.faults import translate
from duly.errors import SQLError

__all__ = ["KEEPALIVE", "Answer", "Statement", "Wire", "break_off"]

CONNECT_S = 5
ANSWER_S = 15.0
"""How long an answer may take before the connection is given up. Other workers have long gone on by then."""
SLOWEST = 250_000
"""How many characters a second must get through at least, where many are sent: so much longer the answer may take."""

_ASK_AGAIN_S = 0.5
# That the other side sends no more, where that can be told before all it has sent is read; errors are reported anyway.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
# Of a user's statement, at a time.
_CHUNK = 500

KEEPALIVE: dict[str, Any] = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "duly",
}
"""A peer that is gone without a word is noticed within seconds. What the URL says otherwise comes first."""

_REAL = SystemClock()
"""The network is in the real world, also in a test that stops time."""


class Statement(NamedTuple):
    """A statement with its parameters; `name` is for messages, `size` how many characters these are if many."""

    text: str
    parameters: Sequence[Any] | None = None
    name: str = ""
    size: int = 0


class Answer(NamedTuple):
    rows: list[Any]
    changed: int
    status: str | None


@dataclass(slots=True)
class _Call:
    """A user's statement on the wire: whether it has come to its end, and who sees to that."""

    answered: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ending: asyncio.Task[None] | None = None


class Wire:
    """Use `connect` to make one. After an error of the connection it is of no more use."""

    def __init__(self, connection: AsyncConnection[Any], where: str) -> None:
        self._connection = connection
        self._where = where
        self._lock = asyncio.Lock()
        connection.adapters.register_dumper(list, ListBinaryDumper)

    @classmethod
    async def connect(cls, address: Address) -> "Wire":
        """Raises `StoreError` or `StoreUnavailableError`."""
        options = {name: value for name, value in KEEPALIVE.items() if f"{name}=" not in address.conninfo}
        made: list[AsyncConnection[Any]] = []

        async def connect() -> None:
            made.append(
                await AsyncConnection.connect(
                    address.conninfo, autocommit=True, prepare_threshold=None, cursor_factory=AsyncRawCursor, **options
                )
            )

        try:
            await asyncio.get_running_loop().create_task(connect(), name="duly connect")
        except psycopg.Error as error:
            raise translate(error, address.where) from error
        except asyncio.CancelledError:
            for connection in made:  # it came at the same moment, and nobody will use it
                await connection.close()
            raise
        return cls(made[0], address.where)

    @property
    def closed(self) -> bool:
        return self._connection.closed

    @property
    def hung_up(self) -> bool:
        """Whether the server has left, as a connection that nobody used meanwhile does not tell by itself."""
        if self._connection.closed:
            return True
        poll = select.poll()
        poll.register(self._connection.fileno(), _HUNG_UP)
        return bool(poll.poll(0))

    @property
    def connection(self) -> AsyncConnection[Any]:
        return self._connection

    @property
    def in_transaction(self) -> bool:
        return self._connection.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE

    async def run(self, statements: Sequence[Statement]) -> list[Answer]:
        """Sends statements in one go, and returns what each of them answered.

        Raises:
            psycopg.Error: The first that failed did so; those after it were not executed.
        """
        # In a task of its own: what is on the wire is to be answered, also when its function is out of time.
        task = asyncio.get_running_loop().create_task(self.run_here(statements), name="duly statement")
        try:
            return await asyncio.shield(task)
        except BaseException:  # cancelled, or whatever its function is told instead
            task.add_done_callback(_shrug)
            raise

    async def run_sql(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        """Runs a user's statement, and returns its rows by column name, one more than may be read at most.

        It may take long: whoever has no time left is cancelled, and the server is asked to end it.

        Raises:
            psycopg.Error: It failed, and with it everything up to the last savepoint.
            SQLError: It returns two columns of one name.
        """
        call = _Call()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run_sql(call, statement, parameters), name="duly statement")
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done():
                raise
            # Cancelled, or whatever its function is told instead.
            call.ending = loop.create_task(self._end(call), name="duly statement ends")
            task.add_done_callback(_shrug)
            raise

    async def _run_sql(self, call: "_Call", statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        async with self._lock:
            try:
                return await self._stream(statement, parameters)
            finally:
                call.answered = True
                call.wake.set()
                if call.ending is not None:
                    await call.ending  # what is asked late must not end the next statement

    async def _stream(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        """Row by row: a table that is too large is not read to its end. (Nor does it allow several statements.)"""
        cursor: Any = self._connection.cursor()
        size = _CHUNK if psycopg.capabilities.has_stream_chunked() else 1
        names: list[str] = []
        rows: list[dict[str, Any]] = []
        try:
            async with contextlib.aclosing(cursor.stream(statement.encode(), parameters, size=size)) as stream:
                async for row in stream:
                    names = names or _names(cursor)
                    rows.append(dict(zip(names, row, strict=True)))
                    if len(rows) > READS_MAX:
                        break
        except psycopg.ProgrammingError as error:
            if error.sqlstate is not None or "didn't produce a result" not in str(error):
                raise
        return rows

    async def _end(self, call: "_Call") -> None:
        """Asks the server to end the user's statement, until it has."""
        overdue = _REAL.call_later(ANSWER_S, self.break_off)
        try:
            while not call.answered:
                with contextlib.suppress(psycopg.Error):
                    await self._connection.cancel_safe(timeout=CONNECT_S)
                # It may not have been there yet, or may not have heard.
                again = _REAL.call_later(_ASK_AGAIN_S, call.wake.set)
                await call.wake.wait()
                again.cancel()
                call.wake.clear()
        finally:
            overdue.cancel()

    async def run_here(self, statements: Sequence[Statement], afterwards: Statement | None = None) -> list[Answer]:
        """As `run`, in a task that nobody cancels.

        Args:
            statements: What is to be answered.
            afterwards: Goes out along with them, and is executed after them, unless one of them fails. What becomes of
                it, nobody is told. If the last of them ends the transaction, it is one by itself.
        """
        async with self._lock:
            size = sum([statement.size for statement in statements])
            overdue = _REAL.call_later(ANSWER_S + size / SLOWEST, self.break_off)
            try:
                if len(statements) == 1 and afterwards is None:
                    return [await _answer(await self._send(statements[0]))]
                return await self._run_together(statements, afterwards)
            finally:
                overdue.cancel()

    async def _run_together(self, statements: Sequence[Statement], afterwards: Statement | None) -> list[Answer]:
        cursors: list[AsyncRawCursor[Any]] = []
        first: psycopg.Error | None = None  # those after it fail only because it did
        try:
            # Nothing in it may call `Pipeline.sync`: psycopg 3.3 then waits for answers before all is sent, which the
            # server waits for.
            async with self._connection.pipeline():
                try:
                    for statement in statements:
                        cursors.append(await self._send(statement))  # noqa: PERF401 (one after the other)
                    if afterwards is not None:
                        await self._send(afterwards)
                except psycopg.Error as error:
                    first = error
        except psycopg.Error as error:
            first = first or error
        if first is not None and (len(cursors) < len(statements) or any(cursor.pgresult is None for cursor in cursors)):
            raise first
        return [await _answer(cursor) for cursor in cursors]

    async def _send(self, statement: Statement) -> AsyncRawCursor[Any]:
        cursor: Any = self._connection.cursor(binary=True)
        await cursor.execute(statement.text, statement.parameters)
        return cursor  # type: ignore[no-any-return]

    def break_off(self) -> None:
        """Ends the connection at once: whoever waits for an answer gets an error."""
        with contextlib.suppress(psycopg.Error):
            break_off(self._connection.fileno())

    async def close(self) -> None:
        async with self._lock:  # what is still on the wire has its end first: the driver would read freed memory
            await self._connection.close()


def break_off(file: int) -> None:
    """Shuts a socket down that others may be waiting on."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(file)) as copy:
        copy.shutdown(socket.SHUT_RDWR)


async def _answer(cursor: AsyncRawCursor[Any]) -> Answer:
    return Answer(await cursor.fetchall() if cursor.description else [], cursor.rowcount, cursor.statusmessage)


def _names(cursor: AsyncRawCursor[Any]) -> list[str]:
    names = [column.name for column in cursor.description or ()]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SQLError(f"more than one column is named {twice.pop()!r}; give each a name of its own: … AS name")
    return names


def _shrug(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
