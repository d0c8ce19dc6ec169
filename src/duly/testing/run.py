"""`run`: an app on the real engine in memory, on a clock that the test moves, with a worker that the test drives."""

import asyncio
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, cast, get_args

from duly._app import App, Parts
from duly._call.registry import SYSTEM_TAG
from duly._call.scheduler import Scheduler
from duly._ground.clock import SystemClock, datetime_of, milliseconds_of
from duly._ground.ids import ID_HIGHEST, Id, check_id
from duly._model.event import Event
from duly._model.function import FunctionReference
from duly._model.job import Job, JobState, ScheduledFunction, job_document
from duly._store.port import Store
from duly._work.executor import Executor
from duly._work.loop import Loop, Rest
from duly.errors import InvalidIdError, InvalidTimeError
from duly.testing.calls import Calls
from duly.testing.clock import VirtualClock
from duly.testing.entropy import SeededEntropy
from duly.testing.errors import FunctionFailedError, NotIdleError, StillRunningError
from duly.testing.faults import Faults, MortalStore

__all__ = ["Run", "run"]

_RUNS_MAX = 10_000
_HISTORY_MAX = 200
# Looked at at once, before anything was seen.
_READY = Rest(None, -math.inf)
# What has been set off has come to rest after so many turns of the event loop.
_TURNS = 10


class Run(Calls):
    """What `run` gives: the app's calls, a clock, and a worker that runs what is due when it is told to.

    Nothing scheduled runs by itself: `run_due`, `advance` and `run_until_idle` run it.

    Example:
        async with duly.testing.run(app) as t:
            await t.mutation(create_order, items=["tea"])
            await t.run_due()
            await t.advance(timedelta(days=7))
    """

    def __init__(self, app: App, clock: VirtualClock, patience: timedelta) -> None:
        super().__init__(app)
        self._clock = clock
        self._patience = patience
        self._faults = Faults()
        self._store: Store | None = None
        self._mortal: MortalStore | None = None
        self._executor: Executor | None = None
        self._rests: list[Rest] = []
        self._crashed = False
        self._driving = False
        self._home: asyncio.AbstractEventLoop | None = None
        # Actions that were waited for in vain once, and are not waited for again.
        self._given_up: frozenset[asyncio.Task[None]] = frozenset()
        self._events: list[Event] = []
        self._failed: list[Id[ScheduledFunction]] = []
        self._failures_allowed = False
        self._runs: Counter[str] = Counter()

    @property
    def scheduler(self) -> Scheduler:
        """Schedules; as `App.scheduler`.

        Example:
            job_id = await t.scheduler.run_after(timedelta(hours=1), archive_order, order_id=order_id)
        """
        return self._app.scheduler

    # Time, and running what is due.

    @property
    def now(self) -> datetime:
        """What time it is: an aware UTC datetime. `ctx.now` follows it.

        Example:
            await t.scheduler.run_at(t.now + timedelta(days=1), archive_order, order_id=order_id)
        """
        return datetime_of(self._clock.now_ms())

    async def run_due(self, *, runs_max: int = _RUNS_MAX) -> None:
        """Runs everything that is due now, in order, and what that makes due at once. Waits for actions to end.

        Args:
            runs_max: How many functions may run before it is taken for a circle; default 10,000.

        Raises:
            FunctionFailedError: A function failed.
            NotIdleError: Functions schedule each other for ever.
            StillRunningError: An action does not end, in real time.

        Example:
            await t.run_due()
        """
        self._runs.clear()
        await self._drive(runs_max)
        await self._check_ended()
        await self._report_failures()

    async def advance(self, delta: timedelta) -> None:
        """Moves time forward, and runs what comes due on the way, each at its own moment, in order.

        Timeouts, backoffs and the deletion of old functions happen at their moments, too. An action that is still
        running after some real time (`patience`) runs on while time passes.

        Args:
            delta: How far; not negative.

        Raises:
            FunctionFailedError: A function failed.
            NotIdleError: Functions schedule each other for ever within one moment.

        Example:
            await t.advance(timedelta(days=7))
        """
        if not isinstance(delta, timedelta):
            raise TypeError(f"time advances by a timedelta, not by {delta!r}")
        if delta < timedelta(0):
            raise InvalidTimeError(f"time can't go back, and this is {delta}")
        end = milliseconds_of(self.now + delta)
        self._runs.clear()
        await self._drive(_RUNS_MAX)
        while (at := self._next_moment(housekeeping=True)) is not None and at <= end:
            self._runs.clear()
            await self._move_to(at)
        self._clock.move_to(end)
        await self._report_failures()

    async def run_until_idle(self, *, runs_max: int = _RUNS_MAX) -> None:
        """Runs everything that is scheduled, moving time forward to whatever comes next, until nothing is left.

        Args:
            runs_max: How many functions may run before it is taken for a circle; default 10,000.

        Raises:
            FunctionFailedError: A function failed.
            NotIdleError: Functions schedule each other for ever; it names the culprit.
            StillRunningError: An action does not end, in real time.

        Example:
            await t.run_until_idle()
        """
        self._runs.clear()
        await self._drive(runs_max)
        while (at := self._next_moment(housekeeping=False)) is not None:
            await self._move_to(at, runs_max)
        await self._check_ended()
        await self._report_failures()

    # Looking.

    async def jobs(
        self, *, state: JobState | None = None, function: FunctionReference[..., Any] | str | None = None
    ) -> list[ScheduledFunction]:
        """The scheduled functions there are, in order of scheduling.

        Args:
            state: Only those in this state: `"pending"`, `"inProgress"`, `"success"`, `"failed"` or `"canceled"`.
            function: Only those of this function.

        Raises:
            ValueError: There is no such state; a test that looked for one would always find nothing.
            FunctionNotFoundError: The app has no such function.

        Example:
            [reminder] = await t.jobs(state="pending", function=archive_order)
        """
        if state is not None and state not in get_args(JobState):
            raise ValueError(f"{state!r} is no state; they are: {', '.join(get_args(JobState))}")
        path = None if function is None else self._app._registry.resolve(function).path
        found = await self._alive().read(lambda tx: tx.scan_jobs("", ID_HIGHEST, False, 1_000_000))
        return [_document(job) for job in found if state in (None, job.state) and path in (None, job.name)]

    async def job(self, id: Id[ScheduledFunction] | str, /) -> ScheduledFunction | None:
        """A scheduled function by its id; None if there is none (any more).

        Raises:
            InvalidIdError: It is no id of a scheduled function.

        Example:
            job = await t.job(job_id)
        """
        if check_id(id) != SYSTEM_TAG:
            raise InvalidIdError(id, "is the id of a document, not of a scheduled function")
        found = await self._alive().read(lambda tx: tx.get_job(id))
        return _document(found) if found is not None else None

    @property
    def history(self) -> str:
        """What happened, line by line, the last of it at the end: for a person who wonders why a test fails."""
        lines = [_line(event) for event in self._events[-_HISTORY_MAX:]]
        left_out = len(self._events) - len(lines)
        return "\n".join([f"… {left_out:,} before", *lines] if left_out else lines)

    # Faults.

    def allow_failures(self) -> None:
        """From now on a scheduled function that fails does not fail the test.

        Example:
            t.allow_failures()
        """
        self._failures_allowed = True
        self._failed.clear()

    def fail_commits(self, n: int, /) -> None:
        """Lets the next `n` transactions that write something fail, as a full disk would; nothing of them remains.

        A direct call raises `StoreUnavailableError`; a scheduled mutation is tried again later (rule M3).

        Example:
            t.fail_commits(1)
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"fail_commits() takes an int, not {n!r}")
        if n < 0:
            raise ValueError(f"fail_commits() takes 0 or more, not {n}")
        self._faults.commits_to_fail = n

    def crash(self) -> None:
        """Kills the worker at this point, as SIGKILL would, and starts another on the same database.

        What it had not committed is lost; actions in progress end where they are and become `failed` ("interrupted").
        May be called from a function as well, from a thread too: what it commits afterwards is lost.

        Example:
            t.crash()
        """
        assert self._mortal is not None
        self._mortal.dead = True
        self._crashed = True
        if self._home is not None and threading.current_thread() is not threading.main_thread():
            self._home.call_soon_threadsafe(self._kill)
        else:
            self._kill()

    def _kill(self) -> None:
        if self._executor is not None:
            self._executor.abandon()
            self._executor = None

    # Within.

    async def _open(self) -> None:
        self._home = asyncio.get_running_loop()
        await self._app._open()
        self._store = self._app._store
        await self._start_worker()

    async def _close(self) -> None:
        if self._executor is not None:
            # What still runs ends here; the test is over.
            self._executor.abandon()
            await self._settle()
        assert self._store is not None
        await self._store.close()

    async def _start_worker(self) -> None:
        assert self._store is not None
        self._crashed = False
        self._mortal = MortalStore(self._store, self._faults)
        self._app._use(self._mortal)
        self._executor = self._app._make_executor()
        self._rests = [_READY] * 3
        await self._executor.prepare()

    def _alive(self) -> Store:
        assert self._store is not None
        return self._store

    def _observe(self, event: Event) -> None:
        self._events.append(event)
        if event.kind in ("success", "failed"):
            self._runs[event.path] += 1
        if event.kind == "failed" and event.job_id is not None and not self._failures_allowed:
            self._failed.append(Id(event.job_id))

    async def _move_to(self, at: float, runs_max: int = _RUNS_MAX) -> None:
        if self._clock.move_to(at):
            await self._settle()
        await self._drive(runs_max)

    async def _drive(self, runs_max: int) -> None:
        """Takes the turns of the worker's loops until none has anything to do at this moment."""
        if self._driving:
            raise AssertionError("the test runs what is due twice at the same time; await the one before the other")
        self._driving = True
        try:
            while await self._take_turns() or await self._wait_for_actions():
                if self._runs.total() >= runs_max:
                    path, runs = self._runs.most_common(1)[0]
                    raise NotIdleError(path, runs, runs_max)
        finally:
            self._driving = False

    async def _take_turns(self) -> bool:
        """Whether any loop had something to do."""
        if self._crashed:
            await self._settle()
            await self._start_worker()
        executor = self._executor
        assert executor is not None
        taken = False
        for number, loop in enumerate(executor.loops):
            full = loop.topic == "action" and executor.actions is not None and executor.actions.full
            if not full and loop.is_ready(self._rests[number]):
                rest = await loop.turn()
                if self._crashed:
                    return True
                self._rests[number] = rest
                taken = True
        return taken

    async def _wait_for_actions(self) -> bool:
        """Whether there may be something to do again: an action has ended, or something was committed."""
        executor = self._executor
        if executor is None or executor.actions is None:
            return self._crashed
        running = executor.actions.tasks - self._given_up
        if not running:
            return False
        clock, spawn = SystemClock(), asyncio.get_running_loop().create_task
        patience = spawn(clock.sleep(self._patience.total_seconds()))
        loops = zip(executor.loops, self._rests, strict=True)
        commits = [spawn(self._until_ready(loop, rest)) for loop, rest in loops if rest.seen is not None]
        try:
            await asyncio.wait({*running, *commits, patience}, return_when=asyncio.FIRST_COMPLETED)
            await self._settle()
            if patience.done() and not self._crashed:
                self._given_up |= running
                return any(task.done() for task in (*running, *commits))
            return True
        finally:
            for task in (patience, *commits):
                task.cancel()
            await asyncio.gather(patience, *commits, return_exceptions=True)

    async def _until_ready(self, loop: Loop, rest: Rest) -> None:
        """Until something is committed that is due now: time stands still meanwhile."""
        store = self._alive()
        while not loop.is_ready(rest):
            await store.wait(loop.topic, store.version(loop.topic), None)

    def _next_moment(self, *, housekeeping: bool) -> float | None:
        """When something happens next. Without housekeeping: something that a function has to do with."""
        executor = self._executor
        assert executor is not None
        now = self._clock.now_ms()
        moments: list[float] = []
        for loop, rest in zip(executor.loops, self._rests, strict=True):
            at = loop.ready_at(rest)
            if at is not None and (housekeeping or loop.topic != "upkeep"):
                moments.append(max(at, now))
        alarm = self._clock.next_alarm_ms()
        if alarm is not None:
            moments.append(alarm)
        return min(moments, default=None)

    async def _check_ended(self) -> None:
        executor = self._executor
        if executor is not None and executor.actions is not None and executor.actions.running:
            running = [await self.job(id) for id in sorted(executor.actions.running_ids)]
            raise StillRunningError([job["name"] for job in running if job is not None], self._patience)

    async def _report_failures(self) -> None:
        failed, self._failed = self._failed, []
        jobs = [await self.job(id) for id in failed]
        if jobs:
            raise FunctionFailedError([job for job in jobs if job is not None])

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await SystemClock().sleep(0)


@asynccontextmanager
async def run(
    app: App,
    *,
    start: datetime | None = None,
    seed: int = 0,
    patience: timedelta = timedelta(seconds=5),
) -> AsyncIterator[Run]:
    """Runs an app's functions in memory, on a virtual clock; nothing of the app's own database is touched.

    Each run has a database of its own, so tests in parallel never meet. Mutations that wait for the world are errors
    (rule T3). A scheduled function that fails fails the test, at the latest when the block ends.

    Args:
        app: The app. It need not be open.
        start: What time it is at first, an aware datetime; default: the real time.
        seed: Chooses the ids, `ctx.random` and the jitter of backoffs: the same seed, the same test.
        patience: How long, in real time, an action is waited for; default 5 seconds.

    Raises:
        FunctionFailedError: A scheduled function failed.
        InvalidTimeError: `start` is naive.

    Example:
        async with duly.testing.run(app) as t:
            await t.mutation(create_order, items=["tea"])
            await t.run_due()
    """
    if not isinstance(app, App):
        raise TypeError(f"run() takes a duly.App, not {app!r}")
    if start is not None and start.utcoffset() is None:
        raise InvalidTimeError(f"{start!r} has no time zone, so it names no moment; give it one: tzinfo=datetime.UTC")
    clock = VirtualClock(SystemClock().now_ms() if start is None else milliseconds_of(start))
    parts = Parts(clock, SeededEntropy(seed), strict=True)
    t = Run(app._twin("sqlite:///:memory:", parts), clock, patience)
    parts.observer = t._observe
    await t._open()
    try:
        yield t
        await t._report_failures()
    finally:
        await t._close()


def _document(job: Job) -> ScheduledFunction:
    return cast("ScheduledFunction", job_document(job))


def _line(event: Event) -> str:
    at = datetime_of(event.at_ms).isoformat(" ", "milliseconds").removesuffix("+00:00")
    # Of one that has ended it is past.
    due_ms = None if event.kind in ("success", "failed") else event.due_ms
    due = f" for {datetime_of(due_ms).isoformat(' ', 'milliseconds')[:-6]}" if due_ms is not None else ""
    detail = f": {event.detail.splitlines()[0]}" if event.detail else ""
    return f"{at} {event.kind:<11} {event.path}{due}{detail}"
