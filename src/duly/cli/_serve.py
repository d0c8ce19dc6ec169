"""What running an executor has in common, in `duly worker` and `duly dev`."""

import asyncio
import re
import sys

from duly._app import App
from duly.cli._problem import CommandError
from duly.cli._times import duration

__all__ = ["database_shown", "say", "say_stopping", "until_stopped"]


def say(line: str) -> None:
    """One line that a script may be waiting for."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_stopping(app: App, word: str, escape: str) -> None:
    """Says what a stop waits for, if it does."""
    executor = app._executor
    running = executor.actions.running if executor is not None and executor.actions is not None else 0
    if running:
        drain = duration(app._drain.total_seconds() * 1_000)
        what = "a running action" if running == 1 else f"{running} running actions"
        say(f"{word}: takes nothing new and waits up to {drain} for {what}{escape}")


async def until_stopped(app: App, stop: asyncio.Event, *serving: asyncio.Task[None]) -> None:
    """Waits for the event.

    Raises:
        CommandError: The executor, or what else serves, has ended by itself: a process that does nothing must not
            live on.
    """
    loops = [*(app._executor._tasks if app._executor is not None else ()), *serving]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({stopped, *loops}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    for task in loops:
        if task.done():
            error = task.exception()
            raise CommandError(f"the worker has broken down: {type(error).__name__}: {error}") from error


def database_shown(app: App) -> str:
    """The database URL, without a password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", app.database)
