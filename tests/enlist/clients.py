"""Connections of every driver that `duly.enlist` takes, behind one face for the tests."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import django
import psycopg
from django.conf import settings
from django.db import connection as default_connection
from django.db import connections
from django.db.transaction import atomic
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

__all__ = ["CLIENTS", "Client", "done"]


@dataclass
class Client:
    """A connection that is in no transaction yet.

    Args:
        target: What is enlisted.
        run: Executes a statement.
        begin: A transaction, as a context manager of either kind.
        nest: A savepoint, likewise.
    """

    target: Any
    run: Callable[[str], Any]
    begin: Callable[[], Any]
    nest: Callable[[], Any]

    async def execute(self, statement: str) -> None:
        await done(self.run(statement))

    def transaction(self) -> AbstractAsyncContextManager[None]:
        return entered(self.begin())

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return entered(self.nest())


async def done(result: Any) -> Any:
    """What a method returned that is awaited, or blocks."""
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def entered(context: Any) -> AsyncIterator[None]:
    if hasattr(context, "__aenter__"):
        async with context:
            yield
    else:
        with context:
            yield


Opener = Callable[[str, bool], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def of_psycopg(url: str, autocommit: bool) -> AsyncIterator[Client]:
    connection: Any
    with psycopg.connect(url, autocommit=True) as connection:
        yield Client(connection, connection.execute, connection.transaction, connection.transaction)


@asynccontextmanager
async def of_psycopg_by_itself(url: str, autocommit: bool) -> AsyncIterator[Client]:
    """Whose first statement begins a transaction. Rows are dictionaries there."""

    @contextmanager
    def until_commit() -> Any:
        try:
            yield
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    connection: Any
    rows: Any = dict_row
    with psycopg.connect(url, autocommit=autocommit, row_factory=rows) as connection:
        yield Client(connection, connection.execute, until_commit, connection.transaction)


@asynccontextmanager
async def of_async_psycopg(url: str, autocommit: bool) -> AsyncIterator[Client]:
    connection: Any
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield Client(connection, connection.execute, connection.transaction, connection.transaction)


@asynccontextmanager
async def of_asyncpg(url: str, autocommit: bool) -> AsyncIterator[Client]:
    connection: Any = await asyncpg.connect(url)
    try:
        yield Client(connection, connection.execute, connection.transaction, connection.transaction)
    finally:
        await connection.close()


@asynccontextmanager
async def of_asyncpg_pool(url: str, autocommit: bool) -> AsyncIterator[Client]:
    pool: Any
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        yield Client(connection, connection.execute, connection.transaction, connection.transaction)


# --- SQLAlchemy -----------------------------------------------------------------------------------------------------


def options(autocommit: bool) -> dict[str, Any]:
    return {"poolclass": NullPool} | ({"isolation_level": "AUTOCOMMIT"} if autocommit else {})


def dialect(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://")


def of_session(make: Callable[[sessionmaker[Session]], Any]) -> Opener:
    @asynccontextmanager
    async def opened(url: str, autocommit: bool) -> AsyncIterator[Client]:
        engine = create_engine(dialect(url, "psycopg"), **options(autocommit))
        session = make(sessionmaker(engine))
        try:
            yield Client(
                session, lambda statement: session.execute(text(statement)), session.begin, session.begin_nested
            )
        finally:
            session.close()
            engine.dispose()

    return opened


@asynccontextmanager
async def of_connection(url: str, autocommit: bool) -> AsyncIterator[Client]:
    engine = create_engine(dialect(url, "psycopg"), **options(autocommit))
    with engine.connect() as connection:
        yield Client(connection, connection.exec_driver_sql, connection.begin, connection.begin_nested)
    engine.dispose()


def of_async_session(driver: str, make: Callable[[async_sessionmaker[AsyncSession]], Any]) -> Opener:
    @asynccontextmanager
    async def opened(url: str, autocommit: bool) -> AsyncIterator[Client]:
        engine = create_async_engine(dialect(url, driver), **options(autocommit))
        session = make(async_sessionmaker(engine))
        try:
            yield Client(
                session, lambda statement: session.execute(text(statement)), session.begin, session.begin_nested
            )
        finally:
            await session.close()
            await engine.dispose()

    return opened


def of_async_connection(driver: str) -> Opener:
    @asynccontextmanager
    async def opened(url: str, autocommit: bool) -> AsyncIterator[Client]:
        engine = create_async_engine(dialect(url, driver), **options(autocommit))
        connection: AsyncConnection
        async with engine.connect() as connection:
            yield Client(connection, connection.exec_driver_sql, connection.begin, connection.begin_nested)
        await engine.dispose()

    return opened


# --- Django ---------------------------------------------------------------------------------------------------------


def of_django(pick: Callable[[], Any]) -> Opener:
    @asynccontextmanager
    async def opened(url: str, autocommit: bool) -> AsyncIterator[Client]:
        at = conninfo_to_dict(url)
        if not settings.configured:
            database = {"ENGINE": "django.db.backends.postgresql", "NAME": at["dbname"], "USER": at["user"]}
            database |= {"PASSWORD": at.get("password", ""), "HOST": at["host"], "PORT": at["port"]}
            settings.configure(DATABASES={"default": database}, USE_TZ=True, LOGGING_CONFIG=None)
            django.setup()
        connection = connections["default"]

        def execute(statement: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(statement)

        def begin() -> Any:
            # To Django a fixture and its test are two tasks, each with connections of its own.
            connections["default"] = connection
            return atomic()

        try:
            yield Client(pick(), execute, begin, atomic)
        finally:
            connection.close()

    return opened


CLIENTS: dict[str, Opener] = {
    "psycopg": of_psycopg,
    "psycopg-by-itself": of_psycopg_by_itself,
    "psycopg-async": of_async_psycopg,
    "asyncpg": of_asyncpg,
    "asyncpg-pool": of_asyncpg_pool,
    "sqlalchemy-session": of_session(lambda maker: maker()),
    "sqlalchemy-scoped-session": of_session(scoped_session),
    "sqlalchemy-connection": of_connection,
    "sqlalchemy-async-session": of_async_session("asyncpg", lambda maker: maker()),
    "sqlalchemy-async-session-psycopg": of_async_session("psycopg", lambda maker: maker()),
    "sqlalchemy-async-scoped-session": of_async_session(
        "asyncpg", lambda maker: async_scoped_session(maker, lambda: 1)
    ),
    "sqlalchemy-async-connection": of_async_connection("asyncpg"),
    "django": of_django(lambda: default_connection),
    "django-by-name": of_django(lambda: connections["default"]),
}
