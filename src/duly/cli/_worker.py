"""`duly worker`: an executor that stops gracefully (rule A4)."""

import logging
import os

from duly._model.event import Event, EventKind
from duly.cli._load import Loaded
from duly.cli._serve import database_shown, log_to_stderr, say, say_stopping, until_stopped
from duly.cli._signals import stop_requested

__all__ = ["log_failures", "work"]

_log = logging.getLogger("duly")

_TOLD: dict[EventKind, str] = {
    "failed": "failed",
    "interrupted": "failed",
    "retry": "is tried again later",
    "parked": "waits",
}


async def work(loaded: Loaded) -> None:
    """Runs due functions until SIGTERM or SIGINT."""
    app = loaded.app
    log_to_stderr()
    app._parts.observer = log_failures
    with stop_requested() as stop:
        async with app:
            assert app._executor is not None
            say(f"worker {app._executor.worker} runs {loaded.name} on {database_shown(app)} (pid {os.getpid()})")
            await until_stopped(app, stop)
            say_stopping(app, "stopping", "; a second signal stops at once")
    say("stopped")


def log_failures(event: Event) -> None:
    """One line for what an operator wants to know of; the whole error is in the database."""
    what = _TOLD.get(event.kind)
    if what is None:
        return
    reason = (event.detail or "").partition("\n")[0]
    _log.warning("%s %s: %s (%s)", event.path, what, reason, event.job_id)
