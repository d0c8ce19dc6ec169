"""Housekeeping: settling what dead workers left, or nobody can run, and deleting what finished long ago."""

import math
from datetime import timedelta

from duly._call.scope import Environment
from duly._model.event import Event
from duly._store.port import Transaction
from duly._work.actions import INTERRUPTED
from duly._work.fit import accept
from duly._work.outcome import Looked

__all__ = ["Upkeep"]

# How long the answers to mutations of clients are kept, and how often to look for older ones.
_REQUESTS_KEPT_MS = 14 * 86_400_000
_REQUESTS_PRUNED_MS = 3_600_000
_PRUNE_MAX = 500
_TAKEN_BACK_MAX = 100
# Of the retention: how long what is past it may have to wait for others, so that they are deleted together.
_PRUNE_SPACING = 0.05


class Upkeep:
    """Rescues (A3), takes back what was left to others (S3), and prunes. Every worker does; there is no leader to lose.

    Args:
        environment: The app's.
        worker: This worker's id: its own actions are not for it to rescue.
        retention: How long finished functions are kept.
        lease_s: How long a lease lasts: a third of it is how often to look after others, while there are any.
    """

    def __init__(self, environment: Environment, worker: str, retention: timedelta, lease_s: float) -> None:
        self._environment = environment
        self._worker = worker
        self._retention_ms = retention.total_seconds() * 1_000
        self._lease_s = lease_s
        self._requests_pruned_ms = -math.inf

    async def look(self) -> Looked:
        """One round. Small batches, and the writer is free for others between them."""
        store = self._environment.store
        events, look_again = await store.transact(self._rescue)
        taken_back, told = await store.transact(self._take_back)
        events += told
        pruned, prune_next = await store.transact(self._prune)
        if taken_back or pruned == _PRUNE_MAX:
            return Looked(True, None, events)
        now = self._environment.clock.now_ms()
        times = [prune_next]
        if look_again is not None:
            times.append(look_again)
        if store.shared:
            times.append(now + self._lease_s * 1_000 / 3)
        return Looked(False, min(times), events)

    async def _rescue(self, tx: Transaction) -> tuple[list[Event], float | None]:
        now = self._environment.clock.now_ms()
        rescued = await tx.rescue(self._worker, now, INTERRUPTED)
        events = [Event("interrupted", job.name, now, job.id, job.kind, detail=INTERRUPTED) for job in rescued.jobs]
        return events, rescued.look_again

    async def _take_back(self, tx: Transaction) -> tuple[int, list[Event]]:
        """Fails what this worker left to others, none of which is at work any more. If there is any, there may be more.

        Or, should it fit after all (a validator may know better than it did), lets it be due as if nobody had refused.
        """
        registry = self._environment.registry
        now = self._environment.clock.now_ms()
        taken_back = 0
        events: list[Event] = []
        for name, refused, _ in await tx.parked_names():
            function = registry.functions.get(name)
            by = set(refused.split())
            if function is None or function.fingerprint not in by or await tx.live_fingerprints(name, now) - by:
                continue
            for job in await tx.refused_jobs(name, function.fingerprint, _TAKEN_BACK_MAX):
                if job.refused == refused:
                    await accept(tx, registry, job, function, now, events)
                    taken_back += 1
        return taken_back, events

    async def _prune(self, tx: Transaction) -> tuple[int, float]:
        now = self._environment.clock.now_ms()
        pruned = await tx.prune_jobs(now - self._retention_ms, _PRUNE_MAX)
        if now - self._requests_pruned_ms > _REQUESTS_PRUNED_MS:
            requests = await tx.prune_client_requests(now - _REQUESTS_KEPT_MS, _PRUNE_MAX)
            if requests == _PRUNE_MAX:
                return requests, now
            self._requests_pruned_ms = now
        oldest = await tx.oldest_completed()
        # What finishes from now on is kept for the whole time: there is nothing to do before. Then not one by one.
        next_due = (oldest if oldest is not None else now) + self._retention_ms + 1
        return pruned, max(next_due, now + self._retention_ms * _PRUNE_SPACING)
