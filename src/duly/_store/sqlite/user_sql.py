"""`ctx.sql` on SQLite: what a statement would do is checked before it first runs, then it runs."""

import math
import re
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import apsw

from duly._model.limits import READS_MAX
from duly._store.user_sql import OURS, PLACEHOLDERS, bare
from duly.errors import SQLError

__all__ = ["mistake_of", "run"]

_CHECKED_MAX = 1_000

_READING = {apsw.SQLITE_READ, apsw.SQLITE_SELECT, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
_ONE_NAME = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_CONTROL = {
    apsw.SQLITE_TRANSACTION,
    apsw.SQLITE_SAVEPOINT,
    apsw.SQLITE_PRAGMA,
    apsw.SQLITE_ATTACH,
    apsw.SQLITE_DETACH,
}
_TEMPORARY = {
    apsw.SQLITE_CREATE_TEMP_INDEX,
    apsw.SQLITE_CREATE_TEMP_TABLE,
    apsw.SQLITE_CREATE_TEMP_TRIGGER,
    apsw.SQLITE_CREATE_TEMP_VIEW,
}

# What a statement gets wrong. Everything else that SQLite raises is the store's fault.
_MISTAKES = (
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.RangeError,
)
_HINTS: list[tuple[str, str]] = [
    ("no such table", "make it first: CREATE TABLE IF NOT EXISTS …"),
    ("constraint failed", "the mutation may catch this and go on: the statement is undone, and nothing else"),
]


def run(
    connection: apsw.Connection, checked: set[str], statement: str, parameters: Sequence[Any]
) -> list[dict[str, Any]]:
    """The rows of one statement, by column name; up to one more than a transaction may read.

    Args:
        connection: In a transaction, in a savepoint that is rolled back when this raises.
        checked: The statements that may run; shared by all calls.
        statement, parameters: The user's.

    Raises:
        SQLError: It is refused.
        apsw.Error: Whatever else. See `mistake_of`.
    """
    if any(isinstance(value, float) and math.isnan(value) for value in parameters):
        raise SQLError("a parameter is NaN, which SQLite would store as NULL; pass None, or a str")
    bindings = {str(number): value for number, value in enumerate(parameters, start=1)}
    if statement not in checked:
        _check(connection, checked, statement, bindings)
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    with closing(connection.cursor()) as cursor:
        for row in islice(cursor.execute(statement, bindings), READS_MAX + 1):
            if not rows:
                names = _names(cursor)
            rows.append(dict(zip(names, row, strict=True)))
    if connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
        # Left to the commit, it would fail all the mutations that commit together.
        raise SQLError(
            "FOREIGN KEY constraint failed", "SQLITE_CONSTRAINT_FOREIGNKEY", "deferred ones, too, hold at once here"
        )
    return rows


def _names(cursor: apsw.Cursor) -> list[str]:
    names = [column[0] for column in cursor.get_description()]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SQLError(f"more than one column is named {twice.pop()!r}; give each a name of its own: … AS name")
    return names


def _check(connection: apsw.Connection, checked: set[str], statement: str, bindings: dict[str, Any]) -> None:
    """Prepares the statement under SQLite's authorizer, which sees through views and triggers, and does not run it.

    Once for each text: SQLite plans every statement anew after an authorizer was set.
    """
    if re.search(r"\bROLLBACK\b", bare(statement), re.IGNORECASE):
        raise SQLError("ROLLBACK undoes other mutations, too; use ABORT in its place: INSERT OR ABORT, RAISE(ABORT, …)")
    reasons: list[str] = []
    makes_trigger = False
    first = statement

    def authorize(action: int, one: str | None, two: str | None, _database: str | None, _within: str | None) -> int:
        nonlocal makes_trigger
        makes_trigger = makes_trigger or action == apsw.SQLITE_CREATE_TRIGGER
        reason = _reason(action, one, two)
        if reason is None:
            return apsw.SQLITE_OK
        reasons.append(reason)
        return apsw.SQLITE_DENY

    def stop(_cursor: apsw.Cursor, text: str, _bindings: Any) -> bool:
        nonlocal first
        first = text
        return False

    with closing(connection.cursor()) as cursor:
        cursor.exec_trace = stop
        connection.authorizer = authorize
        try:
            cursor.execute(statement, bindings, can_cache=False)
        except apsw.ExecTraceAbort:
            pass
        except (apsw.BindingsError, KeyError):
            raise SQLError(f"{PLACEHOLDERS}, and in no other way") from None
        except apsw.AuthError:
            raise SQLError(reasons[0] if reasons else "the statement is not allowed") from None
        finally:
            connection.authorizer = None
    if bare(statement[len(first) :]):
        raise SQLError("these are several statements; run each with a ctx.sql of its own")
    if makes_trigger or len(checked) >= _CHECKED_MAX:
        checked.clear()  # what passed before may now set off more than it did
    if not makes_trigger:
        checked.add(statement)


def _reason(action: int, one: str | None, two: str | None) -> str | None:
    """Why an action is not allowed, if it is not."""
    if action in _READING:
        return None
    if action in _CONTROL:
        return "the transaction and the connection are duly's; ctx.sql reads and writes tables"
    if action in _TEMPORARY:
        return "a temporary table would outlive the mutation, in this process only; make an ordinary one"
    names = (one,) if action in _ONE_NAME else (one, two)
    return OURS if any(name is not None and name.startswith("_") for name in names) else None


def mistake_of(error: apsw.Error) -> SQLError | None:
    """What the user got wrong; None if it is the store's fault."""
    if not isinstance(error, _MISTAKES):
        return None
    code = apsw.mapping_extended_result_codes.get(getattr(error, "extendedresult", -1))
    name = code or apsw.mapping_result_codes.get(getattr(error, "result", -1))
    message = str(error)
    hint = next((hint for part, hint in _HINTS if part in message), "")
    return SQLError(message, str(name) if name is not None else None, hint)
