"""Whether this worker's code can run a job, and what becomes of one that it can't (rule S3)."""

from duly._call.registry import Function, Registry
from duly._model.event import Event
from duly._model.failure import describe_failure
from duly._model.job import Job
from duly._store.port import Transaction
from duly.errors import ConflictError, StoreError

__all__ = ["accept", "published"]

_LEFT_TO_OTHERS = "left to a worker with another version of {path!r}; this one's can't run it: {error}"


def published(registry: Registry) -> dict[str, str]:
    """What a worker says it can run: the fingerprint of each function that can be scheduled, by its path."""
    return {path: known.fingerprint for path, known in registry.functions.items() if known.kind != "query"}


async def accept(
    tx: Transaction, registry: Registry, job: Job, function: Function, now: float, events: list[Event]
) -> dict[str, object] | None:
    """The job's arguments, for whoever runs it now. None if they don't fit, or the function has become a query.

    Then the job is left, visibly, to a worker with another signature, if there is one that has not refused it; it has
    failed if there is none. `events` tells which.
    """
    try:
        arguments = function.load(job.args or await tx.get_arguments(job), registry.tags)
    except (StoreError, ConflictError):
        raise
    except Exception as error:  # noqa: BLE001 (a validator may raise anything; it is this job's failure alone)
        detail = describe_failure(error)
    else:
        if function.kind != "query" and (job.kind != function.kind or job.refused):
            await tx.set_job_kind(job.id, job.attempts, function.kind)
        return arguments
    refused = {function.fingerprint, *job.refused.split()}
    if job.state == "pending" and await tx.live_fingerprints(job.name, now) - refused:
        reason = _LEFT_TO_OTHERS.format(path=job.name, error=detail.partition("\n")[0])
        await tx.refuse_job(job.id, job.attempts, function.fingerprint, reason)
        events.append(Event("parked", job.name, now, job.id, job.kind, detail=reason))
    else:
        await tx.settle_job(job.id, job.state, job.attempts, "failed", now, error=detail)
        events.append(Event("failed", job.name, now, job.id, job.kind, detail=detail))
    return None
