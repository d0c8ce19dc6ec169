"""`ctx.sql`: the user's own tables, in the transaction of the mutation."""

from typing import Any

from duly._call.scope import Scope
from duly._ground import values
from duly._ground.values import Int64
from duly._model.signature import storable
from duly.errors import InvalidValueError

__all__ = ["run_sql"]


async def run_sql(scope: Scope, statement: str, parameters: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Runs one statement. It counts as one write; the rows that it returns count as read."""
    if not isinstance(statement, str):
        raise TypeError(f"a statement is a str, not {statement!r}")
    bound = [_bindable(number, value) for number, value in enumerate(parameters, start=1)]
    return await scope.operation(_run(scope, statement, bound))


async def _run(scope: Scope, statement: str, bound: list[Any]) -> list[dict[str, Any]]:
    if scope.enter():
        await scope.turn()
    scope.usage.write()
    rows = await scope.tx.sql(statement, bound)
    scope.usage.read(len(rows))
    return rows


def _bindable(number: int, value: Any) -> bool | int | float | str | bytes | None:
    """What the database gets: the value as it would stand in a document."""
    try:
        plain = values.normalize(value, storable)
    except InvalidValueError as error:
        if isinstance(value, (str, int)):
            raise InvalidValueError(f"the parameter ${number}: {error}") from None
        plain = value  # of no type that can be written
    if plain is None or isinstance(plain, (bool, float, str, bytes)):
        return plain
    if isinstance(plain, int):
        return int(plain) if type(plain) is Int64 else plain
    raise TypeError(
        f"the parameter ${number} is of type {type(value).__name__!r}; pass None, bool, int, float, str, bytes or what "
        "is written as one of them, such as a datetime; write lists and dicts as text: json.dumps(…)"
    )
