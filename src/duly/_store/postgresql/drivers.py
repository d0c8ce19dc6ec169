"""Connections that belong to others, each asked in the words of its driver.

They are told by the names of their classes, and a driver is imported only once there is a connection of it: nobody has
all of them.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from duly.errors import StoreError

__all__ = ["Driver", "driver_of"]

Rows = Sequence[Sequence[Any]]

_PLACE = re.compile(r"\$(\d+)")


class Driver(Protocol):
    """How to ask on a connection. Where it blocks, `execute` never suspends."""

    @property
    def is_async(self) -> bool: ...

    def errors(self) -> tuple[type[Exception], ...]:
        """What it raises when the database refuses, or can't be reached."""
        ...

    async def execute(self, statement: str, parameters: Sequence[Any]) -> Rows:
        """Executes a statement, with parameters at $1, $2, …, in the transaction that is open.

        Raises:
            StoreError: None is, so it would be committed at once and by itself; it was not executed.
        """
        ...


def driver_of(connection: object) -> Driver:
    """How to ask on a connection.

    Raises:
        TypeError: It is none that can be asked.
    """
    for base in type(connection).__mro__:
        package = base.__module__.partition(".")[0]
        make = _DRIVERS.get((package, base.__name__))
        if make is not None:
            return make(connection)
        if package in ("sqlite3", "aiosqlite", "apsw"):
            raise TypeError(f"{connection!r} is a connection to SQLite; {_NOT_SQLITE}")
    raise TypeError(
        "duly.enlist takes a connection to PostgreSQL: one of psycopg (3) or asyncpg, a session or connection of "
        f"SQLAlchemy (sync or async), or Django's django.db.connection; not {connection!r}"
    )


_NOT_SQLITE = "there, schedule in a mutation (ctx.scheduler), which may use tables of your own through ctx.sql"


def _no_transaction(advice: str) -> StoreError:
    return StoreError(
        "no transaction is open on this connection, so what is scheduled would not commit or fail together with "
        f"anything; open one first: {advice}"
    )


def _with_percents(statement: str, parameters: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The same for a driver whose places are %s, in the order of the parameters."""
    numbers = [int(place) for place in _PLACE.findall(statement)]
    return _PLACE.sub("%s", statement), tuple(parameters[number - 1] for number in numbers)


class _Psycopg:
    def __init__(self, connection: Any, *, is_async: bool) -> None:
        self._connection = connection
        self.is_async = is_async

    def errors(self) -> tuple[type[Exception], ...]:
        import psycopg  # noqa: PLC0415

        return (psycopg.Error,)

    async def execute(self, statement: str, parameters: Sequence[Any]) -> Rows:
        import psycopg  # noqa: PLC0415
        from psycopg.rows import tuple_row  # noqa: PLC0415

        connection = self._connection
        status = psycopg.pq.TransactionStatus
        if connection.autocommit and connection.info.transaction_status is status.ACTIVE:
            # In the midst of a pipeline it does not know; one within synchronizes it.
            await self._enter_and_leave(connection.pipeline())
        if connection.autocommit and connection.info.transaction_status is status.IDLE:
            raise _no_transaction(f"{'async ' if self.is_async else ''}with connection.transaction():")
        rows: Rows
        if self.is_async:
            async with psycopg.AsyncRawCursor(connection, row_factory=tuple_row) as asking:
                await asking.execute(statement.encode(), parameters or None)
                rows = await asking.fetchall()
        else:
            with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
                cursor.execute(statement.encode(), parameters or None)
                rows = cursor.fetchall()
        return rows

    async def _enter_and_leave(self, pipeline: Any) -> None:
        if self.is_async:
            async with pipeline:
                pass
        else:
            with pipeline:
                pass


class _Asyncpg:
    is_async = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def errors(self) -> tuple[type[Exception], ...]:
        import asyncpg  # noqa: PLC0415

        return (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

    async def execute(self, statement: str, parameters: Sequence[Any]) -> Rows:
        if not self._connection.is_in_transaction():
            raise _no_transaction("async with connection.transaction():")
        rows: Rows = await self._connection.fetch(statement, *parameters)
        return rows


class _SQLAlchemy:
    def __init__(self, target: Any, *, is_async: bool) -> None:
        self._target = target
        self.is_async = is_async

    def errors(self) -> tuple[type[Exception], ...]:
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        return (SQLAlchemyError,)

    async def execute(self, statement: str, parameters: Sequence[Any]) -> Rows:
        if not self.is_async:
            return self._ask(self._target, statement, parameters)
        rows: Rows = await self._target.run_sync(self._ask, statement, parameters)
        return rows

    @staticmethod
    def _ask(target: Any, statement: str, parameters: Sequence[Any]) -> Rows:
        connection = target if hasattr(target, "exec_driver_sql") else target.connection()
        dialect = connection.dialect
        if dialect.name != "postgresql":
            raise TypeError(f"{target!r} is connected to {dialect.name}, not to PostgreSQL; on SQLite {_NOT_SQLITE}")
        # A session begins one by itself; not where the driver was told otherwise.
        if connection.connection.dbapi_connection.autocommit:
            raise _no_transaction("on an engine and a connection without isolation_level='AUTOCOMMIT'")
        places: Sequence[Any] = tuple(parameters)
        if dialect.paramstyle in ("format", "pyformat"):
            statement, places = _with_percents(statement, parameters)
        return [tuple(row) for row in connection.exec_driver_sql(statement, places or None)]


class _Django:
    is_async = False

    def __init__(self, connection: Any) -> None:
        if connection.vendor != "postgresql":
            raise TypeError(
                f"{connection!r} is connected to {connection.vendor}, not to PostgreSQL; on SQLite {_NOT_SQLITE}"
            )
        self._connection = connection

    def errors(self) -> tuple[type[Exception], ...]:
        from django.db import Error  # noqa: PLC0415

        return (Error,)

    async def execute(self, statement: str, parameters: Sequence[Any]) -> Rows:
        connection = self._connection
        if not connection.in_atomic_block and connection.get_autocommit():
            raise _no_transaction("with transaction.atomic():")
        with connection.cursor() as cursor:
            cursor.execute(*_with_percents(statement, parameters))
            rows: Rows = cursor.fetchall()
        return rows


_DRIVERS: dict[tuple[str, str], Callable[[Any], Driver]] = {
    ("psycopg", "Connection"): lambda connection: _Psycopg(connection, is_async=False),
    ("psycopg", "AsyncConnection"): lambda connection: _Psycopg(connection, is_async=True),
    ("asyncpg", "Connection"): _Asyncpg,
    ("asyncpg", "PoolConnectionProxy"): _Asyncpg,
    ("sqlalchemy", "Connection"): lambda connection: _SQLAlchemy(connection, is_async=False),
    ("sqlalchemy", "Session"): lambda session: _SQLAlchemy(session, is_async=False),
    ("sqlalchemy", "scoped_session"): lambda scoped: _SQLAlchemy(scoped(), is_async=False),
    ("sqlalchemy", "AsyncConnection"): lambda connection: _SQLAlchemy(connection, is_async=True),
    ("sqlalchemy", "AsyncSession"): lambda session: _SQLAlchemy(session, is_async=True),
    ("sqlalchemy", "async_scoped_session"): lambda scoped: _SQLAlchemy(scoped(), is_async=True),
    ("django", "ConnectionProxy"): _Django,
    ("django", "BaseDatabaseWrapper"): _Django,
}
