"""PostgreSQL's errors as duly's own. No error of the driver passes this border."""

import psycopg
from psycopg import errors

from duly._store.migrate import MIGRATE
from duly.errors import ConflictError, DulyError, StoreError, StoreUnavailableError

__all__ = ["is_connection_lost", "translate"]

_CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)

# The server ended the session with it, whatever it was: its disk may be full, and the commit on it all the same.
_LAST_WORDS = ("FATAL", "PANIC")

_UNUSABLE: dict[type[psycopg.Error], str] = {
    errors.InvalidPassword: "refuses the password; check the user and password in the database URL",
    errors.InvalidAuthorizationSpecification: "refuses the user; check the database URL, and pg_hba.conf on the server",
    errors.InvalidCatalogName: "is not there; create it (createdb), or correct its name in the database URL",
    errors.InsufficientPrivilege: "does not permit that to this user; see the roles in docs/operations.md",
    errors.UndefinedTable: f"lacks a table of duly's; run: {MIGRATE}",
    errors.InvalidSchemaName: f"lacks duly's schema; run: {MIGRATE}",
    errors.UndefinedColumn: f"has tables of an older duly; run: {MIGRATE}",
}

_UNAVAILABLE: dict[type[psycopg.Error], str] = {
    errors.DiskFull: "can't be written: its disk is full; free some space and duly goes on",
    errors.TooManyConnections: "has no connection left; raise max_connections, or lower pool= in the database URL",
    errors.ReadOnlySqlTransaction: "takes no writes: it is a standby, or set to read only; duly goes on once it does",
    errors.IdleInTransactionSessionTimeout: "ended a transaction that had been silent for too long",
    errors.CannotConnectNow: "is starting or stopping; duly goes on once it is up",
    errors.AdminShutdown: "closed the connection",
    errors.CrashShutdown: "closed the connection because one of its processes crashed",
}


def is_connection_lost(error: BaseException) -> bool:
    """Whether a statement may have had its effect although it raised this: nobody could answer any more."""
    if isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized in _LAST_WORDS:
        return True
    return isinstance(error, psycopg.InterfaceError) or (
        isinstance(error, psycopg.OperationalError)
        and (error.sqlstate is None or error.sqlstate[:2] == "08" or error.sqlstate[:3] == "57P")
    )


def translate(error: psycopg.Error, where: str) -> DulyError:
    """The error as a user sees it: which database, what is wrong, what to do."""
    if isinstance(error, _CONFLICTS):
        return ConflictError(f"the transaction lost against another one ({_first_line(error)})")
    for kinds, result in ((_UNUSABLE, StoreError), (_UNAVAILABLE, StoreUnavailableError)):
        for kind, message in kinds.items():
            if isinstance(error, kind):
                return result(f"the database {where} {message} ({_first_line(error)})")
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreUnavailableError(f"the database {where} can't be reached: {_first_line(error)}")
    return StoreError(f"the database {where} refused a statement: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: psycopg.Error) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
