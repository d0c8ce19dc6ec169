"""Opening connections: pragmas, the write lock of a file, and bringing its schema up to date."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import apsw

from duly._ground.clock import Clock
from duly._ground.forks import in_children
from duly._store.migrate import pending_migrations
from duly._store.sqlite.faults import translate, translated
from duly.errors import StoreError

__all__ = ["WriteLock", "connect", "migrate", "patiently"]

_PATIENCE_S = 60.0
_PAUSE_S = 0.01
_BUSY_MS = 10_000


def connect(path: Path | None) -> apsw.Connection:
    """A connection as duly wants it. Raises `StoreError`.

    It waits for whoever makes, recovers or closes the file at this moment; who writes with it waits by other means.
    """
    where = str(path) if path else "in memory"
    if path is not None and not path.parent.is_dir():
        raise StoreError(f"the folder of the database {path} does not exist; create it, or give another file name")
    with translated(where):
        connection = apsw.Connection(str(path) if path else ":memory:", statementcachesize=256)
        connection.set_busy_timeout(_BUSY_MS)
        # Plans don't depend on what is bound. Otherwise SQLite plans a statement anew whenever its `LIMIT ?` is bound.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        # fullfsync: on macOS fsync alone leaves what was written in the drive's cache. It means nothing elsewhere.
        # foreign_keys: those of the user's own tables; duly's have none.
        for pragma in ("synchronous=FULL", "fullfsync=ON", "temp_store=MEMORY", "cache_size=-65536", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection


def migrate(connection: apsw.Connection, migrations: Sequence[str], where: str) -> None:
    """Brings the schema to the newest version, in the transaction that is open. Raises `StoreError`."""
    connection.execute("CREATE TABLE IF NOT EXISTS _duly (schema_version INTEGER NOT NULL)")
    rows: list[Any] = connection.execute("SELECT schema_version FROM _duly").fetchall()
    version = rows[0][0] if rows else 0
    pending = pending_migrations(version, migrations, where)
    for script in pending:
        connection.execute(script)
    if not rows:
        connection.execute("INSERT INTO _duly (schema_version) VALUES (?)", (len(migrations),))
    elif pending:
        connection.execute("UPDATE _duly SET schema_version = ?", (len(migrations),))


class WriteLock:
    """Who may write to the file, among duly's processes: a blocking lock on a file beside it.

    SQLite's own lock is retried by sleeping, which starves; this one is granted in order (measured: with four writers
    the longest wait went from 1132 ms to 7 ms).
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + "-lock")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"the database {database} can't be used: {path.name} beside it can't be written ({error.strerror}); "
                "make the folder writable for this user"
            ) from error
        in_children(self, WriteLock.close)

    def try_acquire(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def acquire(self, thread: Executor) -> None:
        if not self.try_acquire():
            # Held by another process, for some milliseconds as a rule. A thread waits, so that this loop does not.
            await asyncio.get_running_loop().run_in_executor(thread, fcntl.flock, self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1  # the number may soon be another file's


async def patiently(connection: apsw.Connection, statement: str, clock: Clock, where: str) -> None:
    """Executes a statement that another *program* may stand in the way of (duly's own are kept out by `WriteLock`).

    Raises:
        StoreUnavailableError: After a minute.
    """
    deadline = clock.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute(statement)
        except (apsw.BusyError, apsw.LockedError) as error:
            if clock.monotonic() > deadline:
                raise translate(error, where) from error
        except apsw.Error as error:
            raise translate(error, where) from error
        else:
            return
        await clock.sleep(_PAUSE_S)
