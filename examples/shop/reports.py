"""A report that takes a while: plain blocking Python, in a thread of its own."""

import time
from pathlib import Path

import duly


@duly.internal_action
def write_report(ctx: duly.SyncActionCtx, file: str, seconds: float) -> None:
    """Notes in a file that it has begun, works, and notes that it has ended."""
    path = Path(file)
    with path.open("a") as report:
        report.write(f"report {ctx.scheduled_function_id} begun\n")
    time.sleep(seconds)
    with path.open("a") as report:
        report.write(f"report {ctx.scheduled_function_id} ended\n")
