"""SQLite's errors as duly's own. No error of the driver passes this border."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from duly.errors import StoreError, StoreUnavailableError

__all__ = ["translate", "translated"]

_UNUSABLE: dict[type[apsw.Error], str] = {
    apsw.NotADBError: "is not a duly database: it is no SQLite file; give another file name, or move it away",
    apsw.CorruptError: "is damaged; restore it from a backup (sqlite3's '.recover' may save what is readable)",
    apsw.ReadOnlyError: "is read-only; make the file and its folder writable for this user",
    apsw.PermissionsError: "can't be opened: no permission; make the file and its folder writable for this user",
    apsw.AuthError: "can't be opened for lack of permission",
    apsw.CantOpenError: "can't be opened; check that its folder exists and is writable, and that it is a file",
}

_UNAVAILABLE: dict[type[apsw.Error], str] = {
    apsw.FullError: "can't be written: the disk is full; free some space and duly goes on",
    apsw.IOError: "can't be read or written: the disk reported an error",
    apsw.BusyError: "is held by another program that does not let go; end it and duly goes on",
    apsw.LockedError: "is held by another connection that does not let go",
    apsw.NoMemError: "can't be used: there is no memory left",
    apsw.InterruptError: "was interrupted",
}


def translate(error: apsw.Error, path: str) -> StoreError:
    """The error as a user sees it: which file, what is wrong, what to do."""
    for kinds, result in ((_UNUSABLE, StoreError), (_UNAVAILABLE, StoreUnavailableError)):
        for kind, message in kinds.items():
            if isinstance(error, kind):
                return result(f"the database {path} {message} ({error})")
    return StoreError(f"the database {path} refused a statement: {type(error).__name__}: {error}")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turns what the driver raises into duly's errors."""
    try:
        yield
    except apsw.Error as error:
        raise translate(error, path) from error
