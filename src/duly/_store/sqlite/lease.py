"""A worker's lease on SQLite: a file beside the database that the worker keeps locked, with the time it expires.

The operating system lets go of the lock when the process dies, however it dies, so a restart knows at once. A process
that is stopped or stuck keeps the lock; the time in the file, renewed by the worker's own thread, tells that one. A
file and not a row, because a row could not be renewed while a mutation of the same worker holds the only write lock:
the blocking code of one function would make a live worker look dead. Time here is monotonic, which all processes of a
machine share: setting the wall clock expires nobody.
"""

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from duly._ground.clock import Clock
from duly._ground.forks import in_children

__all__ = ["FileLease", "MemoryLease", "forget_lease", "is_held", "seconds_left"]

_EXPIRY = struct.Struct("<d")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
# Other users who share the file must be able to see whether we live.
_MODE = 0o644
_TRIES_MAX = 100


class FileLease:
    """Taken when made; renewed from any thread."""

    lapses = False

    def __init__(self, path: Path, clock: Clock, lease_s: float) -> None:
        self._path = path
        self._clock = clock
        self._lease_s = lease_s
        self._file = _create(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.renew()
        except OSError:
            self.release()
            raise
        in_children(self, FileLease._close)

    def renew(self) -> None:
        os.pwrite(self._file, _EXPIRY.pack(self._clock.monotonic() + self._lease_s), 0)

    async def ensure(self) -> None:
        self.renew()

    def release(self) -> None:
        forget_lease(self._path)
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1  # the number may soon be another file's


class MemoryLease:
    """The same for workers that share a database in memory: their leases are kept there, with their expiry."""

    lapses = False

    def __init__(self, leases: dict[str, float], worker: str, clock: Clock, lease_s: float) -> None:
        self._leases = leases
        self._worker = worker
        self._clock = clock
        self._lease_s = lease_s
        self.renew()

    def renew(self) -> None:
        self._leases[self._worker] = self._clock.monotonic() + self._lease_s

    async def ensure(self) -> None:
        self.renew()

    def release(self) -> None:
        self._leases.pop(self._worker, None)


def _create(path: Path) -> int:
    """A file in the folder of leases, which whoever leaves it last removes: perhaps just now."""
    for _ in range(_TRIES_MAX):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(exist_ok=True)
            return os.open(path, _FLAGS, _MODE)
    return os.open(path, _FLAGS, _MODE)


def is_held(path: Path) -> bool:
    """Whether the process that took the lease still exists."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)


def seconds_left(path: Path, clock: Clock) -> float:
    """How long the lease still holds; 0 or less if it has expired or its process is gone."""
    if not is_held(path):
        return 0
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return 0
    return _EXPIRY.unpack(written)[0] - clock.monotonic() if len(written) == _EXPIRY.size else 0


def forget_lease(path: Path) -> None:
    """Removes the file. Its folder goes with the last one."""
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.with_suffix(".sock").unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()
