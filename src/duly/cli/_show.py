"""`duly show`: everything about one scheduled function. `duly cancel`: cancels one."""

import sys

from rich.console import Console
from rich.text import Text

from duly._app import App
from duly._ground.clock import SystemClock
from duly._model.job import Job, job_document
from duly.cli._console import make_console, reveal
from duly.cli._find import find_job, must_exist
from duly.cli._look import STATES, state_text
from duly.cli._problem import CommandError
from duly.cli._times import duration, full_time, relative_time
from duly.cli._values import json_text
from duly.errors import AlreadyFinishedError, ScheduledFunctionNotFoundError

__all__ = ["cancel", "show"]

_LABEL = 15


async def show(app: App, id: str, *, as_json: bool) -> None:
    """Prints all fields of a scheduled function."""
    must_exist(app)
    async with app.client():
        job = await find_job(app, id)
    document = job_document(job)
    if as_json:
        sys.stdout.write(json_text(document, pretty=sys.stdout.isatty()) + "\n")
        return
    console = make_console()
    console.print(Text.assemble((reveal(job.name), "bold"), "  ", state_text(job.state)))
    console.print()
    for label, value in _facts(job, document["_creationTime"], SystemClock().now_ms()):
        console.print(Text.assemble((f"  {label:<{_LABEL}}", "dim"), reveal(value)))
    _block(console, "args", json_text(document["args"][0], pretty=True), "default")
    if job.state == "failed":
        _block(console, "error", job.error or "", STATES["failed"][1])


def _facts(job: Job, created_ms: float, now_ms: float) -> list[tuple[str, str]]:
    def at(ms: float) -> str:
        return f"{full_time(ms)}  ({relative_time(ms, now_ms)})"

    facts = [("id", str(job.id)), ("kind", job.kind), ("created", at(created_ms))]
    facts.append(("scheduled for", at(job.scheduled_time)))
    if job.started_time is not None:
        facts.append(("started", at(job.started_time)))
    if job.completed_time is not None:
        took = "" if job.started_time is None else f", took {duration(job.completed_time - job.started_time)}"
        facts.append(("completed", at(job.completed_time)[:-1] + took + ")"))
    elif job.started_time is not None:
        facts.append(("running for", duration(now_ms - job.started_time)))
    facts.append(("attempts", str(job.attempts)))
    if job.state == "pending" and job.due is not None and job.due != job.scheduled_time:
        facts.append(("next attempt", at(job.due)))
    if job.state == "pending" and job.pending_reason:
        facts.append(("waits because", job.pending_reason.replace("\n", " ")))
    if job.worker is not None:
        facts.append(("worker", job.worker))
    return facts


def _block(console: Console, label: str, text: str, style: str) -> None:
    """Text of several lines, the first of which stands out."""
    console.print(Text(f"\n  {label}", "dim"))
    for number, line in enumerate(reveal(text).split("\n")):
        console.print(Text(f"    {line}" if line else "", style if number == 0 else "default"))


async def cancel(app: App, id: str, *, missing_ok: bool) -> None:
    """Cancels a scheduled function that has not finished."""
    must_exist(app)
    async with app.client():
        try:
            job = await find_job(app, id)
        except CommandError as problem:
            if missing_ok and problem.is_missing:
                sys.stdout.write(f"there is no scheduled function {id}; nothing to cancel\n")
                return
            raise
        try:
            await app.scheduler.cancel(job.id, missing_ok=missing_ok)
        except AlreadyFinishedError as error:
            raise CommandError(
                f"{job.name} ({job.id}) has already finished ({error.state}) and can't be canceled",
                hint="pass --missing-ok if that is fine",
            ) from None
        except ScheduledFunctionNotFoundError:
            raise CommandError(f"there is no scheduled function {job.id} any more") from None
        after = await find_job(app, job.id)
    if job.state == "canceled":
        done = "was canceled already"
    elif after.state == "canceled":
        done = (
            "canceled; its body runs on, and what it does is not recorded" if job.state == "inProgress" else "canceled"
        )
    else:
        done = f"has already finished ({after.state}); nothing to cancel"
    sys.stdout.write(f"{job.name} ({job.id}) {done}\n")
