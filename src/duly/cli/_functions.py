"""`duly functions`: what an app has to call and schedule."""

from collections.abc import Iterator

from rich.text import Text

from duly._app import App
from duly._call.registry import Function
from duly.cli._console import make_console, reveal

__all__ = ["function_lines", "list_functions", "parameters_of"]


def list_functions(app: App) -> None:
    """Prints each function with its kind and its parameters."""
    console = make_console()
    for line in function_lines(app):
        console.print(line)


def function_lines(app: App) -> Iterator[Text]:
    """A line for each function; one that helps if there is none."""
    functions = app._registry.functions
    width = max(map(len, functions), default=0)
    for path, function in functions.items():
        kind = function.kind if function.public else f"internal {function.kind}"
        yield Text.assemble(
            reveal(path.ljust(width)), (f"  {kind:<17}", "dim"), (f"  {parameters_of(function)}", "dim")
        )
    if not functions:
        yield Text(f"none found in {app.name!r}: decorate one with @duly.mutation or @duly.action", "yellow")


def parameters_of(function: Function) -> str:
    """The names of its parameters, those that may be left out in brackets."""
    names = [
        parameter.name if parameter.default is parameter.empty else f"[{parameter.name}]"
        for parameter in function.signature.parameters
    ]
    return ", ".join(names)
