"""`duly run`: calls a function and prints what it returns."""

import json
import sys
from typing import Any

from rich.text import Text

from duly._app import App
from duly._call.registry import Function
from duly._ground import values
from duly.cli._console import make_console, reveal
from duly.cli._functions import parameters_of
from duly.cli._problem import USAGE, CommandError, failure
from duly.cli._values import json_text
from duly.errors import ArgumentError, DulyError, FunctionNotFoundError

__all__ = ["run"]

_EXCERPT = 60
_LISTED_MAX = 12


async def run(app: App, path: str, text: str | None) -> None:
    """Calls a function, whatever its kind, with a JSON object of arguments."""
    function = _resolve(app, path)
    arguments = _arguments(app, function, sys.stdin.read() if text == "-" else text or "{}")
    async with app.client():
        call = {"query": app.query, "mutation": app.mutation, "action": app.action}[function.kind]
        try:
            result = await call(function.path, **arguments)
        except Exception as error:  # noqa: BLE001 - their function may raise anything
            raise failure(f"{function.path} failed", error) from None
    console = make_console()
    try:
        written = json_text(result, pretty=console.is_terminal)
    except ValueError as error:
        raise CommandError(
            f"{function.path} ran, but what it returned is no JSON: {error}", hint="return what JSON has"
        ) from None
    if console.is_terminal:
        console.print_json(written)
    else:
        sys.stdout.write(written + "\n")


def _resolve(app: App, path: str) -> Function:
    try:
        return app._registry.resolve(path)
    except FunctionNotFoundError as error:
        known = list(app._registry.functions)
        if error.nearest:
            hint = f"did you mean {' or '.join(error.nearest)}?"
        elif known:
            left_out = f", and {len(known) - _LISTED_MAX} more" if len(known) > _LISTED_MAX else ""
            hint = f"its functions are: {', '.join(known[:_LISTED_MAX])}{left_out}"
        else:
            hint = f"it has no functions at all; define them in {app.name!r} or its submodules"
        raise CommandError(f"there is no function {path!r} in this app", hint=hint, exit_code=USAGE) from None


def _arguments(app: App, function: Function, text: str) -> dict[str, Any]:
    try:
        given = values.decode(text)
    except json.JSONDecodeError as error:
        raise _bad_json(text, error) from None
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"the arguments hold an escape that can't be read: {error}", exit_code=USAGE) from None
    if not isinstance(given, dict):
        raise CommandError(
            f"the arguments are a JSON object, not {_json_kind(given)}",
            hint=_taken(function),
            exit_code=USAGE,
        )
    try:
        return function.signature.load(text, app._registry.tags)
    except ArgumentError as error:
        raise CommandError(
            f"the arguments don't fit {function.path}",
            notes=error.problems,
            hint=_taken(function),
            exit_code=USAGE,
        ) from None
    except DulyError as error:
        raise CommandError(str(error), exit_code=USAGE) from None


def _bad_json(text: str, error: json.JSONDecodeError) -> CommandError:
    line = (text.splitlines() or [""])[error.lineno - 1 : error.lineno]
    shown, caret = line[0] if line else "", error.colno - 1
    if len(shown) > 2 * _EXCERPT:
        start = max(0, caret - _EXCERPT)
        shown, caret = shown[start : start + 2 * _EXCERPT], caret - start
    detail = Text(reveal(shown).replace("\t", " "), "default")
    detail.append("\n" + " " * caret + "^", "bold red")
    what = error.msg.partition(":")[0]
    return CommandError(
        f"the arguments are not valid JSON: {what}, line {error.lineno}, column {error.colno}",
        detail=detail,
        hint="""in a shell, put JSON in single quotes: '{"name": "tea"}'""",
        exit_code=USAGE,
    )


def _json_kind(value: object) -> str:
    kinds: dict[type, str] = {list: "a list", str: "a string", bool: "a boolean", type(None): "null", bytes: "bytes"}
    return kinds.get(type(value), "a number")


def _taken(function: Function) -> str:
    """The parameters of a function, for a hint."""
    return f"{function.path} takes {parameters_of(function) or 'no arguments'}"
