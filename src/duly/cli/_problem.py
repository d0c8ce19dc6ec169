"""What went wrong, as a person reads it: one message, what is known, what to do. Never duly's own traceback."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.text import Text

from duly._model.failure import describe_failure
from duly._store.migrate import MIGRATE
from duly.cli._console import make_console, reveal
from duly.errors import DulyError, StoreError

__all__ = ["FAILED", "USAGE", "CommandError", "failure", "perform", "problems_shown", "relative"]

T = TypeVar("T")

FAILED = 1
USAGE = 2
_INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command.

    Args:
        message: What is wrong, in one sentence.
        notes: What else is known, a line each.
        detail: Code or a traceback, shown as it is.
        hint: What to do.
        exit_code: 1: what was asked for failed; 2: it was asked for wrongly.
        is_missing: What was asked for is not there.
    """

    def __init__(
        self,
        message: str,
        *,
        notes: Sequence[str] = (),
        detail: Text | None = None,
        hint: str = "",
        exit_code: int = FAILED,
        is_missing: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.notes = notes
        self.detail = detail
        self.hint = hint
        self.exit_code = exit_code
        self.is_missing = is_missing

    def show(self) -> None:
        """Prints it on stderr."""
        console = make_console(stderr=True)
        console.print(Text.assemble(("error: ", "bold red"), (reveal(self.message), "bold")))
        for note in self.notes:
            console.print(Text(f"  {reveal(note)}"))
        if self.detail is not None:
            console.print()
            for line in self.detail.split("\n", allow_blank=True):
                console.print(Text("  ").append_text(line) if line.plain else line)
            console.print()
        if self.hint:
            console.print(Text.assemble(("hint: ", "cyan"), reveal(self.hint)))


def relative(path: str) -> str:
    """A file name as one would type it here."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return path


def failure(message: str, error: BaseException) -> CommandError:
    """What the user's code raised: type, message, and their part of the traceback."""
    headline, _, rest = describe_failure(error).partition("\n")
    detail = Text(reveal(headline), "red")
    if rest := rest.strip("\n"):
        detail.append("\n\n" + reveal(rest.replace(f'File "{Path.cwd()}/', 'File "')), "default")
    return CommandError(message, detail=detail)


@contextmanager
def problems_shown(app: str = "APP", database: str | None = None) -> Iterator[None]:
    """Ends the process as it should end when the block raises a problem, an error of duly's, or Ctrl-C.

    Args:
        app, database: As the user typed them; for commands to be typed next.
    """
    try:
        yield
    except CommandError as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except StoreError as error:
        # The URL itself may hold a password.
        migrate = MIGRATE.replace("APP", f"{app} --database URL" if database else app)
        CommandError(str(error).replace(MIGRATE, migrate)).show()
        sys.exit(FAILED)
    except DulyError as error:
        CommandError(f"{type(error).__name__}: {error}").show()
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def perform(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine on an event loop of its own."""
    return asyncio.run(work)
