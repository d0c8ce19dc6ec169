"""Running scheduled mutations: effects and `success` are one commit (rules M1 to M3)."""

import asyncio
from functools import partial

from duly._call.registry import Function
from duly._call.runner import Runner
from duly._call.scope import CallChain, Environment
from duly._ground.ids import Id
from duly._ground.tasks import is_being_cancelled
from duly._model.backoff import FAULT
from duly._model.event import Event
from duly._model.failure import describe_failure
from duly._model.job import Job
from duly._model.tracing import Tracer
from duly._store.port import Transaction
from duly._work.due import due_for, next_due_for, parked_for
from duly._work.fit import accept
from duly._work.outcome import Looked
from duly.errors import ConflictError, StoreError

__all__ = ["Mutations"]

_GROUP_MAX = 256
_GROUP_S = 0.005
# Looked up at a time: not many more than there is time to run.
_DUE_MAX = 64
# Where a look-up is a round trip, and others write meanwhile, so that nobody waits for a group: as many as that is
# worth, and time to run them.
_DUE_SUSPENDING_MAX = 256
_GROUP_SUSPENDING_S = 0.02


class Mutations:
    """Runs due mutations, some at a time in one transaction, each in a savepoint of its own."""

    def __init__(self, environment: Environment, runner: Runner) -> None:
        self._environment = environment
        self._runner = runner
        # 1 after a group was lost: the next jobs run alone, so that one that the store can't take spoils no other.
        self._group_max = _GROUP_MAX
        # How many to look up at first: not many more than there was time for. What is looked up and not run is out of
        # the way of other workers for a while, on some engines.
        self._batch = _GROUP_MAX

    async def look(self) -> Looked:
        """One group of due mutations."""
        begun: list[Job] = []
        try:
            looked = await self._environment.store.transact(lambda tx: self._run_group(tx, begun), claims=True)
        except ConflictError:
            if len(begun) <= 1:
                raise  # of one job alone: it waits, and is tried again in place
            # Of several: nobody waits for a while because of another. Fewer have less to lose against.
            self._batch = max(1, len(begun) // 2)
            return Looked(True, None, [])
        except StoreError as error:
            if self._group_max > 1:
                self._group_max = 1
                return Looked(True, None, [])
            if not begun:
                raise
            return await self._postpone_alone(begun[-1], error)
        self._group_max = _GROUP_MAX
        return looked

    async def _run_group(self, tx: Transaction, begun: list[Job]) -> Looked:
        environment = self._environment
        clock = environment.clock
        if begun:
            # The store runs it again: it lost against others. Fewer have less to lose against.
            self._batch = max(1, len(begun) // 2)
            begun.clear()
        # Not later while the group runs: what it schedules itself is for another.
        now = clock.now_ms()
        most, group_s = (_DUE_SUSPENDING_MAX, _GROUP_SUSPENDING_S) if tx.suspends else (_DUE_MAX, _GROUP_S)
        limit = min(self._group_max, self._batch, most)
        events: list[Event] = []
        run = self._run if environment.tracer is None else partial(self._traced, environment.tracer)
        parked = await parked_for(tx, environment.registry, "mutation")
        started: float | None = None
        while True:
            due = await due_for(tx, environment.registry, "mutation", now, limit, parked, events)
            if started is None:
                started = clock.monotonic()  # a look may take long, where a server is asked
            for number, (job, function) in enumerate(due):
                if number and await tx.get_job_state(job.id) != "pending":
                    continue  # cancelled by one before it: it is not to run at all (rule C1)
                begun.append(job)
                events += await run(tx, job, function)
                if len(begun) >= self._group_max or clock.monotonic() - started > group_s:
                    self._batch = min(2 * len(begun), most)
                    return Looked(True, None, events)
            if len(due) < limit:
                return Looked(False, await next_due_for(tx, environment.registry, "mutation", parked), events)
            limit = self._batch = min(2 * limit, most)

    async def _traced(self, tracer: Tracer, tx: Transaction, job: Job, function: Function) -> list[Event]:
        with tracer.scheduled(job.name, "mutation", job.id, job.attempts + 1, job.trace) as span:
            events = await self._run(tx, job, function, span.trace)
            for event in events:
                if event.job_id == job.id and event.detail is not None:
                    span.fail(event.detail)
        return events

    async def _run(self, tx: Transaction, job: Job, function: Function, trace: str | None = None) -> list[Event]:
        """Run, decide, record; in the transaction that is open, and all or nothing but for the record."""
        environment = self._environment
        started = environment.clock.now_ms()
        savepoint = tx.savepoint()
        try:
            unfit: list[Event] = []
            arguments = await accept(tx, environment.registry, job, function, started, unfit)
            if arguments is None:
                await tx.release(savepoint)
                return unfit
            _, events = await self._runner.mutate(CallChain(Id(job.id), False, None, trace), function, arguments, tx)
            if tx.fault is not None:
                raise tx.fault
            now = environment.clock.now_ms()
            recorded = await tx.settle_job(job.id, "pending", job.attempts, "success", now, started=started)
            assert recorded, f"{job.id} was changed by the mutation that runs as it"
        except (KeyboardInterrupt, GeneratorExit):
            raise  # not this job's: the group is tried again
        except BaseException as error:  # also SystemExit and the like: it is the function's failure
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise  # the event loop is being shut down: the job stays pending (rule M3)
            if isinstance(tx.fault, ConflictError):
                raise tx.fault from None  # the store's, not one that the function made up
            fault = tx.fault or (error if isinstance(error, StoreError) else None)
            # The store may have given up the whole transaction; then this raises, and the group is lost.
            await tx.rollback(savepoint)
            if fault is not None:
                return await self._postpone(tx, job, fault)
            return await self._fail(tx, job, started, error)
        await tx.release(savepoint)
        if environment.observer is None:
            return events
        return [Event("success", job.name, now, job.id, "mutation", job.due, now - started), *events]

    async def _fail(self, tx: Transaction, job: Job, started: float, error: BaseException) -> list[Event]:
        now = self._environment.clock.now_ms()
        detail = describe_failure(error)
        await tx.settle_job(job.id, "pending", job.attempts, "failed", now, error=detail, started=started)
        return [Event("failed", job.name, now, job.id, "mutation", job.due, now - started, detail)]

    async def _postpone(self, tx: Transaction, job: Job, error: BaseException) -> list[Event]:
        """The store failed, not the function: later again, for ever, and everybody can see why."""
        now = self._environment.clock.now_ms()
        due = now + FAULT.delay_ms(job.attempts + 1, self._environment.entropy.uniform())
        detail = f"{type(error).__name__}: {error}"
        await tx.postpone_job(job.id, job.attempts, due, detail)
        return [Event("retry", job.name, now, job.id, "mutation", due_ms=due, detail=detail)]

    async def _postpone_alone(self, job: Job, error: StoreError) -> Looked:
        """The transaction in which the job ran alone was lost: a new one says so."""

        async def body(tx: Transaction) -> list[Event]:
            return await self._postpone(tx, job, error)

        return Looked(True, None, await self._environment.store.transact(body))
