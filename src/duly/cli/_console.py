"""Consoles: colours where a terminal shows them, whole lines where a program reads them."""

import os
import sys
from io import TextIOWrapper

from rich.console import Console

__all__ = ["line_by_line", "make_console", "reveal"]

_WIDTH_OF_A_PIPE = 120


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints what it is given: no markup, no guesses about what to colour.

    Into a pipe or a file, lines are as long as they need to be; only tables have a width there.
    """
    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_PIPE
    return Console(
        stderr=stderr,
        width=wide,
        soft_wrap=not stream.isatty(),
        markup=False,
        emoji=False,
        highlight=False,
    )


def reveal(text: str) -> str:
    """Text from elsewhere, with control characters made visible: it shall not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else character.encode("unicode_escape").decode()
        for character in text
    )


def line_by_line() -> None:
    """Output appears when it is written, also in a pipe, and never fails for a character that the terminal lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
