"""A moment of a SQLite database that is held."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import apsw

from duly._store.port import Transaction
from duly._store.sqlite.shared import Shared
from duly._store.sqlite.transaction import SQLiteTransaction
from duly.errors import StoreError

__all__ = ["SQLiteSnapshot", "copy"]

T = TypeVar("T")


class SQLiteSnapshot:
    """A reader whose transaction stays open."""

    def __init__(self, connection: apsw.Connection, shared: Shared, held: set[apsw.Connection]) -> None:
        self._held = held
        self._connection = connection
        self._shared = shared

    async def read(self, body: Callable[[Transaction], Awaitable[T]], /) -> T:
        if self._connection not in self._held:
            raise StoreError("the snapshot was let go")
        return await body(cast("Transaction", SQLiteTransaction(self._connection, self._shared, writable=False)))

    async def close(self) -> None:
        self._held.discard(self._connection)
        self._connection.close()


async def copy(source: apsw.Connection, target: apsw.Connection) -> None:
    with target.backup("main", source, "main") as backup:
        backup.step()
