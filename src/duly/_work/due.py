"""Looking up what is due for this worker, in start order (rule S7)."""

from collections.abc import Sequence

from duly._call.registry import Function, Registry
from duly._model.event import Event
from duly._model.job import Job, JobKind
from duly._store.port import Transaction
from duly._work.outcome import UNKNOWN_FUNCTION

__all__ = ["due_for", "next_due_for", "parked_for"]

Parked = tuple[str, float]
"""A function that has parked jobs which this worker may be able to run, and when the first of them is due."""


async def due_for(
    tx: Transaction,
    registry: Registry,
    kind: JobKind,
    now: float,
    limit: int,
    parked: Sequence[Parked],
    events: list[Event],
) -> list[tuple[Job, Function]]:
    """Due jobs of a kind whose functions this worker has. What else happens to some is told in `events`.

    One whose function it lacks is parked, visibly, out of the way of the look-up: for a worker that has it. Parked
    jobs of functions that this worker does have are looked up beside the others. One whose function has become the
    other kind queues with those from now on; one that has become a query is returned, for `accept` to refuse.
    """
    found: list[tuple[Job, Function]] = []
    for job in await _candidates(tx, registry, parked, kind, now, limit):
        function = registry.functions.get(job.name)
        if function is None:
            reason = UNKNOWN_FUNCTION.format(path=job.name)
            await tx.park_job(job.id, job.attempts, reason)
            events.append(Event("parked", job.name, now, job.id, kind, detail=reason))
        elif function.kind != "query" and function.kind != kind:
            await tx.set_job_kind(job.id, job.attempts, function.kind)
        else:
            found.append((job, function))
    return found


async def _candidates(
    tx: Transaction, registry: Registry, parked: Sequence[Parked], kind: JobKind, now: float, limit: int
) -> list[Job]:
    jobs = await tx.due_jobs(kind, now, limit)
    names = {name for name, due in parked if due <= now}
    if not names:
        return jobs
    for name in names:
        jobs += await tx.parked_jobs(name, registry.functions[name].fingerprint, now, limit)
    jobs.sort(key=lambda job: (job.due, job.id))
    return jobs[:limit]


async def next_due_for(tx: Transaction, registry: Registry, kind: JobKind, parked: Sequence[Parked]) -> float | None:
    """When the next job that this worker could run comes due; `parked` is what `parked_for` said before it ran some."""
    times = [due for _, due in await parked_for(tx, registry, kind)] if parked else []
    next_due = await tx.next_due(kind)
    if next_due is not None:
        times.append(next_due)
    return min(times, default=None)


async def parked_for(tx: Transaction, registry: Registry, kind: JobKind) -> list[Parked]:
    """The functions with parked jobs that this worker has, as this kind or as a query, and has not refused yet."""
    found: list[Parked] = []
    for name, refused, due in await tx.parked_names():
        function = registry.functions.get(name)
        if function and function.kind in (kind, "query") and function.fingerprint not in refused.split():
            found.append((name, due))
    return found
