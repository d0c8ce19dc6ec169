"""What fails a test."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from duly._model.job import ScheduledFunction

__all__ = ["FunctionFailedError", "NotIdleError", "StillRunningError"]


class FunctionFailedError(AssertionError):
    """A scheduled function failed while a test ran that did not `allow_failures`.

    `jobs` are the documents of those that failed.
    """

    def __init__(self, jobs: Sequence[ScheduledFunction]) -> None:
        self.jobs = list(jobs)
        told = "\n\n".join(
            f"{job['name']}({_shown(job['args'])}) failed: {job['state'].get('error', '')}" for job in jobs
        )
        super().__init__(f"{told}\n\nIf it is meant to fail, call t.allow_failures() first.")


class NotIdleError(AssertionError):
    """So many functions ran that they seem to schedule each other for ever. `path` is the one that ran most often."""

    def __init__(self, path: str, runs: int, runs_max: int) -> None:
        self.path = path
        self.runs = runs
        super().__init__(
            f"{runs_max:,} functions ran and there is still something to run: {path!r}, which ran {runs:,} times, "
            "seems to schedule itself for ever; use t.advance() to run a stretch of time, or allow more with runs_max"
        )


class StillRunningError(AssertionError):
    """Actions did not end, in real time. `paths` are their functions."""

    def __init__(self, paths: Sequence[str], patience: timedelta) -> None:
        self.paths = list(paths)
        super().__init__(
            f"still running after {patience.total_seconds():g} s of real time: {', '.join(paths)}; let them end, give "
            "them longer with run(…, patience=…), or let their timeout pass with t.advance()"
        )


def _shown(args: Sequence[dict[str, Any]]) -> str:
    text = ", ".join(f"{name}={value!r}" for name, value in args[0].items())
    return text if len(text) <= 200 else text[:197] + "..."
