"""`duly jobs`: scheduled functions, newest first."""

import sys

from rich.live import Live
from rich.text import Text

from duly._app import App
from duly._ground.clock import SystemClock
from duly._model.job import JobState, job_document
from duly.cli._console import make_console
from duly.cli._find import find_jobs, must_exist
from duly.cli._table import JobTable
from duly.cli._values import json_text

__all__ = ["list_jobs", "watch_jobs"]

_WATCH_S = 0.5


async def list_jobs(app: App, state: JobState | None, name: str, limit: int, *, as_json: bool) -> None:
    """Prints the table, or a line of JSON for each."""
    must_exist(app)
    async with app.client():
        jobs = await find_jobs(app, state, name, limit + 1)
    if as_json:
        for job in jobs[:limit]:
            sys.stdout.write(json_text(job_document(job)) + "\n")
        return
    console = make_console()
    console.print(JobTable(jobs, limit, SystemClock().now_ms(), filtered=bool(state or name)))


async def watch_jobs(app: App, state: JobState | None, name: str, limit: int) -> None:
    """Shows the table until Ctrl-C, and keeps it true. Into a pipe, prints it whenever a job has changed."""
    console = make_console()
    clock = SystemClock()
    shown: object = None
    must_exist(app)
    async with app.client():
        with Live(Text(), console=console, auto_refresh=False, transient=not console.is_terminal) as live:
            while True:
                jobs = await find_jobs(app, state, name, limit + 1)
                table = JobTable(jobs, limit, clock.now_ms(), filtered=bool(state or name), fit=console.is_terminal)
                if console.is_terminal:
                    live.update(table, refresh=True)
                elif jobs != shown:
                    console.print(table)
                    sys.stdout.flush()
                shown = jobs
                await clock.sleep(_WATCH_S)
