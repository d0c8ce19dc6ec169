"""A worker's lease on PostgreSQL: a row with the time until which the worker is to be taken for alive.

Renewed on a connection of its own, from a thread of its own: neither blocking code in a function nor a pool that is
exhausted makes a live worker look dead. Each renewal asks for the database's clock as well.
"""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from psycopg import Connection, RawCursor

from duly._store.postgresql.address import Address
from duly._store.postgresql.clock import DatabaseClock
from duly._store.postgresql.faults import translate
from duly._store.postgresql.wire import KEEPALIVE, break_off

__all__ = ["PostgreSQLLease"]


class PostgreSQLLease:
    """Not taken until it is first renewed.

    Args:
        address: Where the database is.
        sql: The statements.
        clock: The database's.
        worker: Whose it is.
        lease_s: How long it lasts from each renewal.
        functions: JSON: what the worker publishes with it.
        follow: Whether to learn from the database what time it is.
    """

    lapses = True

    def __init__(
        self,
        address: Address,
        sql: dict[str, str],
        clock: DatabaseClock,
        worker: str,
        lease_s: float,
        functions: str,
        *,
        follow: bool,
    ) -> None:
        self._address = address
        self._sql = sql
        self._clock = clock
        self._worker = worker
        self._lease_s = lease_s
        self._functions = functions
        self._follow = follow
        self._connection: Connection[Any] | None = None
        self._lock = threading.Lock()
        self._renewed = float("-inf")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duly lease")

    async def ensure(self) -> None:
        # A third of it may pass between two renewals. A process that was stopped may come here before its thread.
        if self._clock.monotonic() - self._renewed > self._lease_s / 2:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.renew)

    def renew(self) -> None:
        with self._lock:
            began = self._clock.monotonic()
            if self._follow:
                asked = self._clock.own_ms()
                database_ms = self._execute("clock")[0][0]
                self._clock.learn(asked, database_ms, self._clock.own_ms())
            now = self._clock.now_ms()
            expires = now + self._lease_s * 1_000
            if not self._execute("worker_renew", self._worker, expires):
                # The first time; or somebody has found it expired, and settled what we had in progress.
                self._execute("worker_insert", self._worker, expires, now, self._functions)
            self._renewed = began

    def release(self) -> None:
        with self._lock:
            with contextlib.suppress(Exception):
                self._execute("worker_delete", self._worker)
            self._disconnect()

    def disconnect(self) -> None:
        """Without giving it back: it expires."""
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._thread.shutdown(wait=False)

    def _execute(self, name: str, *parameters: Any) -> list[Any]:
        """The rows, or one for each row that was changed."""
        connection = self._connection
        try:
            if connection is None or connection.closed:
                options = {key: value for key, value in KEEPALIVE.items() if f"{key}=" not in self._address.conninfo}
                connection = self._connection = Connection.connect(
                    self._address.conninfo,
                    autocommit=True,
                    prepare_threshold=None,
                    cursor_factory=RawCursor,
                    **options,
                )
            overdue = threading.Timer(max(self._lease_s / 3, 1.0), break_off, [connection.fileno()])
            overdue.daemon = True
            overdue.start()
            try:
                cursor = connection.execute(self._sql[name].encode(), parameters or None)
                return cursor.fetchall() if cursor.description else [()] * cursor.rowcount
            finally:
                overdue.cancel()
        except psycopg.Error as error:
            if connection is not None:
                connection.close()
            raise translate(error, self._address.where) from error
