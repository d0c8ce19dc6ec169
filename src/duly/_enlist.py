"""Scheduling from code that has a transaction of its own: `duly.enlist`."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast, overload

from duly._app import App
from duly._call.scheduler import Scheduler, SyncScheduler
from duly._call.scope import FROM_OUTSIDE, Environment, Scope
from duly._model.limits import Usage
from duly._store.port import Transaction
from duly._store.postgresql.drivers import Driver, driver_of
from duly.errors import StoreError

__all__ = ["enlist"]

T = TypeVar("T")


class AsyncConnection(Protocol):
    """A connection of psycopg or asyncpg, or a session or connection of SQLAlchemy, whose methods are awaited."""

    def close(self) -> Awaitable[object]: ...


class SyncConnection(Protocol):
    """A connection of psycopg or Django, or a session or connection of SQLAlchemy, whose methods block."""

    def close(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


class UntypedConnection(Protocol):
    """`django.db.connection`, or a connection of an asyncpg pool, which tell type checkers nothing of what they are."""

    def __getattr__(self, name: str, /) -> Any: ...


@overload
def enlist(connection: SyncConnection, app: App, /) -> SyncScheduler: ...
@overload
def enlist(connection: AsyncConnection, app: App, /) -> Scheduler: ...
@overload
def enlist(connection: UntypedConnection, app: App, /) -> Any: ...
def enlist(connection: object, app: App, /) -> Scheduler | SyncScheduler:
    """A scheduler that schedules, and cancels, inside a transaction of your own on PostgreSQL.

    The function commits with your rows or not at all, and a worker is woken by that commit. The app need not be open;
    its tables must be in the database that you are connected to. Times count from the database's clock. One scheduler
    is for one transaction: rule S9's limits hold for all that it schedules.

    Args:
        connection: A connection of psycopg (3), of asyncpg or of its pool; a session or connection of SQLAlchemy;
            Django's `django.db.connection`, or another of its `connections`. In a transaction, or one that begins it
            by itself.
        app: The app whose functions are to be scheduled, with a PostgreSQL URL.

    Returns:
        What schedules: its methods are awaited if the connection's are, and block if those do.

    Raises:
        TypeError: That is no connection, or it is to another kind of database.
        StoreError: The app is not on PostgreSQL. The methods raise it if no transaction is open, or duly's tables are
            not there.

    Example:
        async with connection.transaction():
            await connection.execute("INSERT INTO invoices (item) VALUES ('tea')")
            await duly.enlist(connection, app).run_after(0, send_confirmation, order_id=order_id)
    """
    if not isinstance(app, App):
        raise TypeError(f"the second argument of duly.enlist is a duly.App, not {app!r}")
    driver = driver_of(connection)
    if not app.database.startswith(("postgresql://", "postgres://")):
        raise StoreError(
            f"{app!r} is not on PostgreSQL, so it can't have a part in the transactions of others; make it with "
            "database='postgresql://…', or set DULY_DATABASE_URL"
        )
    scheduler = _EnlistedScheduler(app._enlist(), driver)
    return scheduler if driver.is_async else SyncScheduler(scheduler, _at_once)


class _EnlistedScheduler(Scheduler):
    """One whose place is somebody else's transaction."""

    def __init__(self, environment: Environment, driver: Driver) -> None:
        super().__init__(environment, FROM_OUTSIDE, self._in_scope)
        store: Any = environment.store
        self._tx = store.enlist(driver)
        self._usage = Usage()

    async def _now_ms(self) -> float:
        await self._tx.learn_time()
        return self._environment.clock.now_ms()

    async def _in_scope(self, body: Callable[[Scope], Awaitable[T]]) -> T:
        now = await self._now_ms()
        tx = cast("Transaction", self._tx)
        return await body(Scope(self._environment, tx, FROM_OUTSIDE, "enlist", now, usage=self._usage))


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs what never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        result: T = returned.value
        return result
    coroutine.close()
    raise AssertionError("a connection that blocks has been waited for")
