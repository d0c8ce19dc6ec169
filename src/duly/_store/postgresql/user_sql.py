"""`ctx.sql` on PostgreSQL: whose mistake an error is, and what is duly's own."""

import re

import psycopg

from duly._store.user_sql import OURS, bare
from duly.errors import SQLError

__all__ = ["mistake_of", "refuse_ours"]

# By class of SQLSTATE: data, constraints, syntax and names, cardinality, what is not supported, limits of a statement.
_MISTAKES = {"0A", "20", "21", "22", "23", "25", "26", "27", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F",
             "42", "44", "54", "55", "P0"}  # fmt: skip
_NOT_MISTAKES = {"25006", "25P03", "55P03", "42501"}
_HINTS = {
    "42P01": "make it first, in a migration of your own",
    "23505": "the mutation may catch this and go on: the statement is undone, and nothing else",
    "23503": "the mutation may catch this and go on: the statement is undone, and nothing else",
    "23514": "the mutation may catch this and go on: the statement is undone, and nothing else",
    "23502": "the mutation may catch this and go on: the statement is undone, and nothing else",
}


def refuse_ours(statement: str, schema: str) -> None:
    """Refuses what would write to duly's own tables, as far as the text shows it. Their owner may deny it for certain.

    Raises:
        SQLError: It names the schema, and does more than to read.
    """
    code = bare(statement)
    if re.search(rf"(?<![\w.]){schema}\s*\.", code) and not re.match(r"(?i)select\b(?!.*\bfor\s+(update|share))", code):
        raise SQLError(OURS.replace("whose names begin with '_'", f"in the schema {schema}"))


def mistake_of(error: psycopg.Error) -> SQLError | None:
    """What the user got wrong; None if it is the store's fault."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError)):
            return SQLError(str(error))
        return None
    if state in _NOT_MISTAKES and state != "42501":
        return None
    if state[:2] not in _MISTAKES:
        return None
    message = error.diag.message_primary or str(error)
    return SQLError(message, state, _HINTS.get(state, ""))
