"""`duly worker`: an executor that stops gracefully (rule A4)."""

import os

from duly.cli._load import Loaded
from duly.cli._logs import LogFormat, log_failures, log_to_stderr
from duly.cli._serve import database_shown, say, say_stopping, until_stopped
from duly.cli._server import metrics_shown
from duly.cli._signals import stop_requested

__all__ = ["work"]


async def work(loaded: Loaded, metrics_port: int | None, log_format: LogFormat) -> None:
    """Runs due functions until SIGTERM or SIGINT."""
    app = loaded.app
    log_to_stderr(log_format)
    app._observe(log_failures)
    with stop_requested() as stop:
        async with app, metrics_shown(app, metrics_port) as showing:
            assert app._executor is not None
            say(f"worker {app._executor.worker} runs {loaded.name} on {database_shown(app)} (pid {os.getpid()})")
            await until_stopped(app, stop, *showing)
            say_stopping(app, "stopping", "; a second signal stops at once")
    say("stopped")
