"""A scheduled function, its states, and the moves between them.

    mutation:  pending ─► success | failed | canceled
    action:    pending ─► inProgress ─► success | failed | canceled

A job may also be created `canceled` (rule C2). The last three states are final.
"""

from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from duly._ground import values
from duly._ground.ids import Id, creation_time_of

__all__ = [
    "FINISHED",
    "MOVES",
    "SYSTEM_TABLE",
    "Job",
    "JobKind",
    "JobState",
    "ScheduledFunction",
    "ScheduledFunctionState",
    "become",
    "check_move",
    "job_document",
    "park",
    "postpone",
    "refuse",
    "settle",
    "start",
]

SYSTEM_TABLE = "_scheduled_functions"

JobKind = Literal["mutation", "action"]
JobState = Literal["pending", "inProgress", "success", "failed", "canceled"]

FINISHED: frozenset[JobState] = frozenset(["success", "failed", "canceled"])

MOVES: dict[JobKind, frozenset[tuple[JobState, JobState]]] = {
    "mutation": frozenset([("pending", "success"), ("pending", "failed"), ("pending", "canceled")]),
    "action": frozenset(
        [
            ("pending", "inProgress"),
            ("pending", "failed"),  # it could not be started: bad arguments, or it has become a query
            ("pending", "canceled"),
            ("inProgress", "success"),
            ("inProgress", "failed"),
            ("inProgress", "canceled"),
        ]
    ),
}


def check_move(kind: JobKind, before: JobState, after: JobState) -> None:
    """Refuses a move that is none of `MOVES`. A bug of ours, so it holds under `python -O` as well."""
    if (before, after) not in MOVES[kind]:
        raise AssertionError(f"no {kind} goes from {before} to {after}")


class ScheduledFunctionState(TypedDict):
    """The state of a scheduled function; `error` is there when it failed.

    Example:
        {"kind": "failed", "error": "ValueError: no such order"}
    """

    kind: JobState
    error: NotRequired[str]


class ScheduledFunction(TypedDict):
    """A document of the system table `_scheduled_functions`. All times are milliseconds since the Unix epoch.

    Example:
        job = await ctx.db.system.get(job_id)
        if job is not None and job["state"]["kind"] == "failed":
            print(job["name"], job["state"]["error"])
    """

    name: str
    args: list[dict[str, Any]]
    scheduledTime: float
    state: ScheduledFunctionState
    attempts: int
    completedTime: NotRequired[float]
    startedTime: NotRequired[float]
    nextAttemptTime: NotRequired[float]
    pendingReason: NotRequired[str]


class Job(NamedTuple):
    """A row of the job table, with real columns. `due` is None once the job has started or finished.

    `attempts` counts the attempts that were begun and recorded, and is the fence: an outcome is only written while it
    still is what it was when the attempt began. `parked`: no code that looked at it could run it. `refused` holds the
    fingerprints, with spaces between them, of the signatures that do not take its arguments. `trace` is the span of the
    call that scheduled it, as a W3C traceparent.
    """

    id: Id[ScheduledFunction]
    name: str
    kind: JobKind
    state: JobState
    due: float | None
    scheduled_time: float
    started_time: float | None
    completed_time: float | None
    attempts: int
    worker: str | None
    error: str | None
    pending_reason: str | None
    args: str
    parked: bool = False
    refused: str = ""
    trace: str | None = None


def start(job: Job, now: float, worker: str) -> Job:
    """The action as it is once it has begun."""
    check_move(job.kind, job.state, "inProgress")
    return job._replace(
        state="inProgress",
        due=None,
        started_time=now,
        attempts=job.attempts + 1,
        worker=worker,
        pending_reason=None,
        parked=False,
        refused="",
    )


def settle(job: Job, after: JobState, now: float, error: str | None, started: float | None) -> Job:
    """The job as it is once it has finished. `started` is given for one that was pending and did run: an attempt."""
    return Job(
        job.id,
        job.name,
        job.kind,
        after,
        None,
        job.scheduled_time,
        started if job.started_time is None else job.started_time,
        now,
        job.attempts if started is None else job.attempts + 1,
        job.worker,
        error,
        None,
        job.args,
        trace=job.trace,
    )


def postpone(job: Job, due: float, reason: str) -> Job:
    """The job after a transient fault: due later again, and why stands where people can see it (rule M3)."""
    return job._replace(due=due, attempts=job.attempts + 1, pending_reason=reason)


def park(job: Job, reason: str) -> Job:
    """The job set aside, out of the way of the due look-up, for a worker that can run it."""
    return job._replace(pending_reason=reason, parked=True)


def refuse(job: Job, fingerprint: str, reason: str) -> Job:
    """The job set aside for a worker with another signature than this one, which does not take its arguments."""
    refused = " ".join(sorted({*job.refused.split(), fingerprint}))
    return park(job, reason)._replace(refused=refused)


def become(job: Job, kind: JobKind) -> Job:
    """The job as one of this kind, which its function may have become since, for whoever looks for what is due."""
    return job._replace(kind=kind, pending_reason=None, parked=False, refused="")


def job_document(job: Job) -> dict[str, Any]:
    """The job as users see it: DESIGN section 3.6."""
    state: dict[str, Any] = {"kind": job.state}
    if job.state == "failed":
        state["error"] = job.error or ""
    document: dict[str, Any] = {
        "_id": job.id,
        "_creationTime": creation_time_of(job.id),
        "name": job.name,
        "args": [values.decode(job.args)],
        "scheduledTime": job.scheduled_time,
        "state": state,
        "attempts": job.attempts,
    }
    optional = {
        "completedTime": job.completed_time,
        "startedTime": job.started_time,
        "nextAttemptTime": job.due if job.state == "pending" else None,
        "pendingReason": job.pending_reason if job.state == "pending" else None,
    }
    return document | {field: value for field, value in optional.items() if value is not None}
