"""What other processes schedule, for `duly dev`: its own observer is told only of what its own process does.

`duly run` in another terminal schedules something; the commit wakes this process, which looks at what is new.
"""

import asyncio
from collections import OrderedDict
from functools import partial

from duly._app import App
from duly._call.registry import SYSTEM_TAG
from duly._ground.clock import SystemClock
from duly._ground.ids import ID_HIGHEST, creation_time_of, first_id_at
from duly._model.event import Event, Observer
from duly._model.job import Job
from duly._store.port import Store, Transaction

__all__ = ["Elsewhere"]

_LOOK_BACK_MS = 10_000
_PAUSE_S = 0.1
_BATCH = 1_000
_REMEMBERED_MAX = 20_000


class Elsewhere:
    """An observer before another: adds the `scheduled` of each job that was scheduled by another process.

    Args:
        show: The observer that prints.
    """

    def __init__(self, show: Observer) -> None:
        self._show = show
        self._clock = SystemClock()
        self._started_ms = self._clock.now_ms()
        self._shown: OrderedDict[str, None] = OrderedDict()

    def __call__(self, event: Event) -> None:
        job_id = event.job_id
        if job_id is not None and job_id not in self._shown:
            self._remember(job_id)
            created_ms = creation_time_of(job_id)
            # What was there before is not news; what ran at once has been scheduled first.
            if event.kind not in ("scheduled", "canceled") and created_ms >= self._started_ms:
                self._show(Event("scheduled", event.path, created_ms, job_id, event.function_kind, due_ms=event.due_ms))
        elif event.kind == "scheduled":
            return  # found by `watch` before it was told
        self._show(event)

    def _remember(self, job_id: str) -> None:
        self._shown[job_id] = None
        if len(self._shown) > _REMEMBERED_MAX:
            self._shown.popitem(last=False)

    async def watch(self, app: App) -> None:
        """Looks for new jobs after each commit that made some, until it is cancelled."""
        store: Store | None = app._store
        assert store is not None
        since_ms = self._started_ms
        while True:
            seen = store.version("mutation"), store.version("action")
            after = first_id_at(SYSTEM_TAG, round(since_ms * 1_000))
            for job in await store.read(partial(_jobs_after, after)):
                if job.id not in self._shown:
                    self(Event("scheduled", job.name, creation_time_of(job.id), job.id, job.kind, due_ms=job.due))
                # Ids are made before their commit, so one that is a little older may still come.
                since_ms = max(since_ms, creation_time_of(job.id) - _LOOK_BACK_MS)
            waits = [
                asyncio.ensure_future(store.wait("mutation", seen[0], None)),
                asyncio.ensure_future(store.wait("action", seen[1], None)),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            await self._clock.sleep(_PAUSE_S)


async def _jobs_after(after: str, tx: Transaction) -> list[Job]:
    return await tx.scan_jobs(after, SYSTEM_TAG + ID_HIGHEST, False, _BATCH)
