"""Running scheduled actions: `inProgress` is durable before the first line runs, and never comes twice (A1 to A4)."""

import asyncio
import logging
from functools import partial

from duly._call.registry import Function
from duly._call.runner import Runner
from duly._call.scope import CallChain, Environment
from duly._ground.ids import Id
from duly._model.backoff import OUTAGE
from duly._model.event import Event, EventKind
from duly._model.failure import describe_failure
from duly._model.job import Job, JobState
from duly._store.port import Transaction
from duly._work.due import due_for, next_due_for, parked_for
from duly._work.fit import accept
from duly._work.lease import Keeper
from duly._work.outcome import Looked
from duly.errors import AppNotOpenError, ConflictError, StoreError

__all__ = ["INTERRUPTED", "Actions"]

_log = logging.getLogger("duly")

INTERRUPTED = "interrupted: the worker stopped before the action had finished; it may or may not have had its effect"

# How long a stop may take to record outcomes before it says that it waits for that.
_SILENCE_S = 5.0

_Started = tuple[Job, Function, dict[str, object]]


class Actions:
    """Starts due actions, at most so many at once, and records what becomes of them.

    Args:
        environment: The app's.
        runner: Runs the functions.
        worker: This worker's id, written with every action it starts.
        lease: Held while actions are in progress.
        concurrent_max: How many may be in progress at once.
    """

    def __init__(
        self, environment: Environment, runner: Runner, worker: str, lease: Keeper, concurrent_max: int
    ) -> None:
        self._environment = environment
        self._runner = runner
        self._worker = worker
        self._lease = lease
        self._concurrent_max = concurrent_max
        self._running: set[asyncio.Task[None]] = set()
        self._running_ids: set[str] = set()
        # Those that have ended since the look that is under way began: it may still see them in progress.
        self._ended_ids: set[str] = set()
        # Those whose function has ended: their outcome is certain, and only to be written.
        self._recording: set[asyncio.Task[None] | None] = set()
        # Whether the last claim failed, and may have been committed all the same.
        self._unsure = False
        # Whether a claim is under way: what it makes ours, nobody may find without a lease.
        self._claiming = False
        self._freed: asyncio.Future[None] | None = None
        self._abandoned = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """Those in progress; each ends once its outcome is recorded."""
        return frozenset(self._running)

    @property
    def running_ids(self) -> frozenset[str]:
        return frozenset(self._running_ids)

    @property
    def full(self) -> bool:
        return len(self._running) >= self._concurrent_max

    async def look(self) -> Looked:
        """Starts what is due, as far as there is room; waits for room if there is none."""
        if self.full:
            await self._wait_for_room()
            return Looked(True, None, [])
        free = self._concurrent_max - len(self._running)
        # Before any action is ours: whoever finds it in progress must find the lease good.
        self._claiming = True
        self._ended_ids.clear()
        try:
            await self._lease.hold()
            started, looked = await self._environment.store.transact(lambda tx: self._claim(tx, free), claims=True)
        except BaseException:
            self._unsure = True
            raise
        finally:
            self._claiming = False
        self._unsure = False
        for job, function, arguments in started:
            self._running_ids.add(job.id)
            task = asyncio.get_running_loop().create_task(
                self._run(job, function, arguments), name=f"duly action {job.id}"
            )
            self._running.add(task)
            task.add_done_callback(partial(self._ended, job.id))
        self._release_lease_if_idle()
        return looked

    def make_room(self) -> None:
        """Ends waiting for room."""
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)

    def _ended(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._running_ids.discard(job_id)
        self._ended_ids.add(job_id)
        self._recording.discard(task)
        self._release_lease_if_idle()
        self.make_room()
        if not task.cancelled() and task.exception() is not None:
            _log.error("an action could not be recorded", exc_info=task.exception())

    def _release_lease_if_idle(self) -> None:
        if not self._running and not self._unsure and not self._claiming:
            self._lease.rest()

    async def _wait_for_room(self) -> None:
        self._freed = asyncio.get_running_loop().create_future()
        await self._freed

    async def _claim(self, tx: Transaction, free: int) -> tuple[list[_Started], Looked]:
        environment = self._environment
        now = environment.clock.now_ms()
        events: list[Event] = []
        started: list[_Started] = []
        if self._unsure:
            # What a claim that seemed to fail has made ours after all: nobody has begun it, and nobody else may.
            for job in await tx.jobs_in_progress(self._worker):
                if job.id not in self._running_ids and job.id not in self._ended_ids:
                    function = environment.registry.resolve(job.name)
                    arguments = await accept(tx, environment.registry, job, function, now, events)
                    if arguments is not None:
                        started.append((job, function, arguments))
        parked = await parked_for(tx, environment.registry, "action")
        due = await due_for(tx, environment.registry, "action", now, free, parked, events)
        for job, function in due:
            arguments = await accept(tx, environment.registry, job, function, now, events)
            if arguments is not None and await tx.start_job(job.id, job.attempts, now, self._worker):
                started.append((job._replace(attempts=job.attempts + 1), function, arguments))
                events.append(Event("started", job.name, now, job.id, "action", due_ms=job.due))
        # Nobody waits to be started until it is known what comes next: that is for the look after this.
        more = bool(started) or len(due) == free
        next_due = None if more else await next_due_for(tx, environment.registry, "action", parked)
        return started, Looked(more, next_due, events)

    async def _run(self, job: Job, function: Function, arguments: dict[str, object]) -> None:
        """Run, decide, record."""
        began = self._environment.clock.now_ms()
        tracer = self._environment.tracer
        if tracer is None:
            error = await self._act(job, function, arguments)
        else:
            with tracer.scheduled(job.name, "action", job.id, job.attempts, job.trace) as span:
                error = await self._act(job, function, arguments, span.trace)
                if error is not None:
                    span.fail(error)
        self._recording.add(asyncio.current_task())
        if not self._abandoned:
            await self._record(job, "success" if error is None else "failed", began, error)

    async def _act(
        self, job: Job, function: Function, arguments: dict[str, object], trace: str | None = None
    ) -> str | None:
        """What went wrong, if anything did."""
        try:
            await self._runner.act(CallChain(Id(job.id), is_action=True, trace=trace), function, arguments)
        except asyncio.CancelledError as cancelled:
            stopping = asyncio.current_task()
            if stopping is not None and stopping.cancelling():
                stopping.uncancel()  # the outcome is still to be recorded
                return INTERRUPTED
            return describe_failure(cancelled)
        except BaseException as raised:  # noqa: BLE001 (also SystemExit and the like: it is the function's failure)
            return describe_failure(raised)
        return None

    async def _record(self, job: Job, state: JobState, began: float, error: str | None) -> None:
        """Writes the outcome, and does not give up while the process lives (rule A2).

        Conditional on the attempt: one that was cancelled, or that others have settled because this worker seemed
        dead, stays as they left it.
        """
        environment = self._environment
        fields = {"function": job.name, "job_id": job.id}
        failures = 0
        while True:
            now = environment.clock.now_ms()

            async def body(tx: Transaction, now: float = now) -> bool:
                return await tx.settle_job(job.id, "inProgress", job.attempts, state, now, error=error)

            try:
                recorded = await environment.store.transact(body)
                break
            except AppNotOpenError:
                _log.warning("the outcome of %s (%s) is not recorded: the app was closed", job.id, state, extra=fields)
                return
            except (ConflictError, StoreError) as fault:
                failures += 1
                if failures == 1:
                    _log.warning("the outcome of %s is not recorded yet, and will be: %s", job.id, fault, extra=fields)
            pause = OUTAGE.delay_ms(failures, environment.entropy.uniform())
            await environment.clock.sleep(pause / 1_000)
        if recorded:
            if failures:
                _log.warning("the outcome of %s (%s) is recorded now", job.id, state, extra=fields)
            kind: EventKind = "interrupted" if error == INTERRUPTED else "failed" if state == "failed" else "success"
            environment.emit(Event(kind, job.name, now, job.id, "action", duration_ms=now - began, detail=error))
        else:
            _log.info("%s was settled by others while it ran; its outcome (%s) is dropped", job.id, state, extra=fields)

    # Stopping.

    def abandon(self) -> None:
        """Ends what runs, and records nothing."""
        self._abandoned = True
        for task in self._running:
            task.cancel()

    async def drain(self, seconds: float) -> None:
        """Waits for running actions, then cancels those that are left; each is recorded all the same (rule A4)."""
        try:
            if self._running and seconds > 0:
                await self._wait_for_end(seconds)
        finally:  # also if the stop itself is cancelled: then nobody waits for them
            for task in self._running - self._recording:
                task.cancel()
        if self._running:
            await self._wait_for_end(_SILENCE_S)
        if recording := self._running & self._recording:
            # However long it takes (rule A2): whoever waits for the end of this process is to know for what.
            left = ", ".join(sorted(task.get_name().removeprefix("duly action ") for task in recording))
            _log.warning("the stop waits until the database takes the outcome of %s", left)
        while self._running:
            await asyncio.wait(self._running)

    async def _wait_for_end(self, seconds: float) -> None:
        patience = asyncio.get_running_loop().create_task(self._environment.clock.sleep(seconds))
        try:
            while self._running and not patience.done():
                await asyncio.wait({*self._running, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()
