"""What `ctx.sql` takes, on every engine: one statement that leaves the transaction and duly's own tables alone.

What an engine can only tell by preparing the statement (several of them, views, triggers) it refuses by itself.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from duly.errors import SQLError

__all__ = ["OURS", "PLACEHOLDERS", "bare", "check_statement"]

PLACEHOLDERS = "parameters are written $1, $2 and so on"

OURS = (
    "tables whose names begin with '_' are duly's own: ctx.sql may read them, and only ctx.db and ctx.scheduler write "
    "them; give your own another name, and no foreign keys to these"
)

_TRANSACTION = "a mutation is one transaction already: it commits when it returns, and raising rolls it back"
_CONNECTION = "it is about the connection, which all mutations share; run it with the database's own tools"
_ABOUT_CONNECTION = ["PRAGMA", "ATTACH", "DETACH", "VACUUM", "SET", "RESET", "DISCARD", "COPY", "LISTEN", "UNLISTEN",
                     "DECLARE", "EXECUTE", "DEALLOCATE", "LOAD"]  # fmt: skip
_REFUSED = {
    **dict.fromkeys(
        ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"], _TRANSACTION
    ),
    **dict.fromkeys(_ABOUT_CONNECTION, _CONNECTION),
}

# What is no code: comments, strings ('…', E'…\'…', $tag$…$tag$) and quoted names.
_NO_CODE = re.compile(
    r"""--[^\n]* | /\*.*?(?:\*/|\Z) | \b[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | (?P<name>"(?:[^"]|"")*")
    | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$""",
    re.VERBOSE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"\$(\d+)")
_WRITES_OURS = re.compile(
    r"\b(?:INTO|UPDATE|DELETE\s+FROM|TABLE|TRUNCATE|REFERENCES)\s+(?:ONLY\s+|IF\s+(?:NOT\s+)?EXISTS\s+)?(?:\w+\s*\.\s*)?_",
    re.IGNORECASE,
)


class _Examined(NamedTuple):
    """What a look at the text tells."""

    problem: str | None
    placeholders: int


def check_statement(statement: str, given: int) -> None:
    """Refuses what no engine takes.

    Args:
        statement: One SQL statement.
        given: How many parameters come with it.

    Raises:
        SQLError: It is none, or of a kind that has no place in a mutation.
        TypeError: The number of parameters is wrong.
    """
    problem, placeholders = _examine(statement)
    if problem is not None:
        raise SQLError(problem)
    if placeholders != given:
        wanted = {0: "no parameters", 1: "one parameter ($1)"}.get(placeholders, f"{placeholders} parameters")
        # Whoever gives more than there are may have written them as another library has them: ?, %s, :name.
        hint = f"; {PLACEHOLDERS}" if given > placeholders else ""
        raise TypeError(f"the statement takes {wanted}, and {given} {'was' if given == 1 else 'were'} given{hint}")


@lru_cache(maxsize=512)
def _examine(statement: str) -> _Examined:
    if "\0" in statement:
        return _Examined("there is a NUL in the statement", 0)
    if re.search("[\ud800-\udfff]", statement):
        return _Examined("there is half a surrogate pair in the statement", 0)
    code = bare(statement)
    keyword = re.match(r"\w*", code).group().upper()  # type: ignore[union-attr]
    numbers = {int(number) for number in _PLACEHOLDER.findall(code)}
    problem = None
    if not code:
        problem = "there is no statement"
    elif keyword in _REFUSED:
        problem = f"{keyword} can't be used in ctx.sql: {_REFUSED[keyword]}"
    elif numbers != set(range(1, len(numbers) + 1)):
        problem = f"{PLACEHOLDERS}, none left out; these are {', '.join(f'${number}' for number in sorted(numbers))}"
    elif _WRITES_OURS.search(code):
        problem = OURS
    return _Examined(problem, len(numbers))


def bare(statement: str) -> str:
    """The statement without comments and strings, names without their quotes."""
    return _NO_CODE.sub(_without, statement).strip("\ufeff; \t\r\n\f\v")


def _without(found: re.Match[str]) -> str:
    return " " if found["name"] is None else re.sub(r"\W", "", found["name"])
