"""`ctx.sql` on PostgreSQL: what is duly's own, how values get there, and whose mistake an error is."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.types.numeric import Int4, Int8

from duly._store.user_sql import OURS, PLACEHOLDERS, bare
from duly.errors import SQLError

__all__ = ["as_literals", "is_race", "mistake_of", "refuse"]

_TEMPORARY = re.compile(
    r"\b(?:CREATE|INTO)\s+(?:GLOBAL\s+|LOCAL\s+)?(?:OR\s+REPLACE\s+)?TEMP(?:ORARY)?\b", re.IGNORECASE
)
_SETTING = re.compile(r"\bset_config\s*\(", re.IGNORECASE)
_SESSION_LOCK = re.compile(r"\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(", re.IGNORECASE)
# What may read any table while it does something else. Everything else may not so much as name one of duly's.
_MAY_READ = re.compile(r"\(*\s*(?:SELECT|WITH|TABLE|VALUES|INSERT|UPDATE|DELETE|MERGE|EXPLAIN)\b", re.IGNORECASE)
_CREATE = re.compile(r"CREATE\b", re.IGNORECASE)
_LOCKS = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b", re.IGNORECASE)
_HAS_CODE_IN_STRINGS = re.compile(r"(?:DO|CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE))\b", re.IGNORECASE)
# As other libraries and SQLite have them: ?, %s, %(name)s, :name. All but the first are no SQL of PostgreSQL's.
_OTHER_PLACEHOLDER = re.compile(r"\?|%s|%\(|(?<!:):[a-z_]", re.IGNORECASE)
_OWNED = re.compile(r"(?:DROP|REASSIGN)\s+OWNED\b", re.IGNORECASE)

# By class of SQLSTATE: data, constraints, syntax and names, cardinality, what is not supported, limits of a statement,
# what a function raises or may not do, a foreign server.
_MISTAKES = {"0A", "20", "21", "22", "23", "25", "26", "27", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F",
             "42", "44", "54", "55", "HV", "P0"}  # fmt: skip
# The database takes no writes; it has ended the session; it has been waited for long enough.
_NOT_MISTAKES = {"25006", "25P03", "25P04", "55P03"}
_CANCELED = "57014"
_LOCK_NOT_AVAILABLE = "55P03"
_CATCH = "the mutation may catch this and go on: the statement is undone, and nothing else"
_HINTS = {
    "42P01": "make it first: CREATE TABLE IF NOT EXISTS …",
    "42P18": "say what type it is of: $1::text",
    **dict.fromkeys(["23502", "23503", "23505", "23514", "23P01"], _CATCH),
}


@lru_cache(maxsize=512)
def _problem(statement: str, schema: str) -> str | None:
    code = bare(statement)
    if _TEMPORARY.search(code):
        return "a temporary table would outlive the mutation, on one connection only; make an ordinary one"
    if _SETTING.search(code):
        return "set_config can't be used in ctx.sql: the connection is duly's, and all mutations share it"
    if _SESSION_LOCK.search(code):
        return "this lock would outlive the mutation, on one connection only; take pg_advisory_xact_lock instead"
    if _touches_ours(code, statement, re.escape(schema)):
        return OURS.replace("tables whose names begin with '_'", f"the tables in the schema {schema}")
    return None


def refuse(statement: str, schema: str) -> None:
    """Refuses what reaches further than the mutation, and what would write to duly's own tables.

    As far as the text shows it: for certain, only a role can be denied that.

    Raises:
        SQLError: The reason.
    """
    problem = _problem(statement, schema)
    if problem is not None:
        raise SQLError(problem)


def _touches_ours(code: str, statement: str, schema: str) -> bool:
    """Whether it does anything with what is in the schema but read it."""
    if _OWNED.match(code):
        return True
    if _HAS_CODE_IN_STRINGS.match(code):
        # What is executed is in strings, and may be put together there.
        return re.search(rf"\b{schema}\b", statement, re.IGNORECASE) is not None
    name = rf"(?<![\w$])(?:\w+\s*\.\s*)?{schema}\s*\."
    named = re.search(name, code, re.IGNORECASE)
    if _MAY_READ.match(code):
        written = rf"\b(?:INTO|UPDATE|DELETE\s+FROM|TRUNCATE)\s+(?:TABLE\s+)?(?:ONLY\s+)?\(?\s*{name}"
        return named is not None and bool(_LOCKS.search(code) or re.search(written, code, re.IGNORECASE))
    if re.search(rf"\bSCHEMA\b.*\b{schema}\b", code, re.IGNORECASE | re.DOTALL):
        return True
    if named is None:
        return False
    # CREATE TABLE mine AS SELECT … reads what comes last.
    query = re.search(r"\bAS\b\s*\(*\s*(?:SELECT|WITH|TABLE|VALUES)\b", code, re.IGNORECASE)
    if query is None or not _CREATE.match(code) or named.start() < query.start():
        return True
    return _touches_ours(code[query.start() + 2 :].strip(), "", schema)


def as_literals(parameters: Sequence[Any]) -> list[Any]:
    """Integers as PostgreSQL would take them from the text: small ones as such would overflow in a sum of two."""
    return [
        (Int4(value) if -(2**31) <= value < 2**31 else Int8(value)) if type(value) is int else value
        for value in parameters
    ]


def mistake_of(error: psycopg.Error, statement: str) -> SQLError | None:
    """What the user got wrong; None if it is the store's fault, or a conflict."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError)):
            return SQLError(str(error))
        return None
    asked_not_to_wait = state == _LOCK_NOT_AVAILABLE and "NOWAIT" in bare(statement).upper()
    # Who sets statement_timeout, or cancels by hand, means this statement.
    if not asked_not_to_wait and state != _CANCELED and (state in _NOT_MISTAKES or state[:2] not in _MISTAKES):
        return None
    if is_race(error):
        return None
    message = error.diag.message_primary or str(error)
    if state == "42601" and "multiple commands" in message:
        message = "these are several statements; run each with a ctx.sql of its own"
    if state == "42601" and _OTHER_PLACEHOLDER.search(bare(statement)):
        return SQLError(message, state, PLACEHOLDERS)
    return SQLError(message, state, _HINTS.get(state, ""))


def is_race(error: psycopg.Error) -> bool:
    """Whether two transactions changed the catalog at once: both made a table IF NOT EXISTS, and one was first."""
    if error.sqlstate == "23505":
        return error.diag.schema_name == "pg_catalog"
    return error.sqlstate == "XX000" and "tuple concurrently" in str(error)
