"""`ctx.scheduler`: scheduling is inserting a row in the caller's own transaction (rules S1 to S11, C1 to C4)."""

import math
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from duly._call.registry import SYSTEM_TAG, Target
from duly._call.scope import CallChain, Environment, Scope, expected
from duly._ground.clock import milliseconds_of
from duly._ground.ids import Id, check_id
from duly._model.event import Event
from duly._model.function import FunctionReference
from duly._model.job import FINISHED, Job, JobKind, ScheduledFunction
from duly.errors import (
    AlreadyFinishedError,
    InvalidIdError,
    InvalidTimeError,
    NotSchedulableError,
    ScheduledFunctionNotFoundError,
)

__all__ = ["TIME_SPAN_MS", "InScope", "Scheduler", "SyncScheduler"]

P = ParamSpec("P")
T = TypeVar("T")

TIME_SPAN_MS = 5 * 366 * 24 * 60 * 60 * 1_000
"""How far from now a time may be, in either direction: five years (rule S2)."""

_MS = timedelta(milliseconds=1)


class InScope(Protocol):
    """Runs a body in a scope and a transaction of its own, committed when it returns."""

    async def __call__(self, body: Callable[[Scope], Awaitable[T]], /) -> T: ...


class Scheduler:
    """Schedules functions to run later. In a mutation, as part of it: both commit, or neither does.

    In an action, and as `app.scheduler`, each call is a transaction of its own, durable when it returns. What
    `duly.enlist` returns is part of a transaction of yours.

    Example:
        reminder_id = await ctx.scheduler.run_after(timedelta(days=3), remind, order_id=order_id)
    """

    def __init__(self, environment: Environment, chain: CallChain, place: "Scope | InScope") -> None:
        self._environment = environment
        self._chain = chain
        # The scope of the mutation that it is part of, or what makes one for each call.
        self._place = place
        self._scope = place if isinstance(place, Scope) else None

    @overload
    async def run_after(
        self, delay_ms: float | timedelta, function: FunctionReference[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledFunction]: ...
    @overload
    async def run_after(
        self, delay_ms: float | timedelta, function: str, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]: ...
    @expected
    async def run_after(
        self, delay_ms: float | timedelta, function: Any, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]:
        """Schedules a function to run after a delay; 0 means as soon as this has committed (rules S1, S4, S5).

        Args:
            delay_ms: Milliseconds, or a timedelta; from `ctx.now` in a mutation. Not negative, at most five years.
            function: A mutation or an action, by reference or path; public or internal.
            args, kwargs: Its arguments, validated now and again when it runs.

        Returns:
            The id of the scheduled function: to cancel it, or to look at it in `ctx.db.system`.

        Raises:
            InvalidTimeError: The delay is negative, not finite, or more than five years.
            FunctionNotFoundError, NotSchedulableError, ArgumentError: The function or its arguments won't do (rule S3).
            LimitError: Past 1,000 functions or 16 MiB of arguments in one mutation, or 4 MiB for one (rule S9).

        Example:
            await ctx.scheduler.run_after(0, send_confirmation, order_id=order_id)
        """
        if isinstance(delay_ms, timedelta):
            delay_ms = delay_ms / _MS
        delay = _milliseconds(delay_ms, "delay_ms", "a number of milliseconds or a timedelta")
        if delay < 0:
            raise InvalidTimeError(f"a delay can't be negative, and this is {delay:g} ms; 0 runs as soon as possible")
        place = self._place
        now = place.now_ms if isinstance(place, Scope) else await self._now_ms()
        return await self._schedule(now, now + delay, function, args, kwargs)

    @overload
    async def run_at(
        self, timestamp: float | datetime, function: FunctionReference[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledFunction]: ...
    @overload
    async def run_at(
        self, timestamp: float | datetime, function: str, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]: ...
    @expected
    async def run_at(
        self, timestamp: float | datetime, function: Any, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]:
        """Schedules a function to run at a point in time; a time in the past is due now (rules S2, S6).

        Args:
            timestamp: Milliseconds since the Unix epoch, or an aware datetime. Within five years of now.
            function: A mutation or an action, by reference or path; public or internal.
            args, kwargs: Its arguments, validated now and again when it runs.

        Returns:
            The id of the scheduled function.

        Raises:
            InvalidTimeError: A naive datetime, not finite, or more than five years away.
            FunctionNotFoundError, NotSchedulableError, ArgumentError, LimitError: As for `run_after`.

        Example:
            await ctx.scheduler.run_at(datetime(2027, 1, 1, tzinfo=UTC), close_books, year=2026)
        """
        place = self._place
        now = place.now_ms if isinstance(place, Scope) else await self._now_ms()
        if isinstance(timestamp, datetime):
            if timestamp.utcoffset() is None:
                raise InvalidTimeError(
                    f"{timestamp!r} has no time zone, so it names no moment; give it one: datetime(…, tzinfo=UTC), or "
                    "datetime.now(UTC), with 'from datetime import UTC'"
                )
            requested = milliseconds_of(timestamp)
        else:
            requested = _milliseconds(timestamp, "timestamp", "milliseconds since the Unix epoch or an aware datetime")
        return await self._schedule(now, requested, function, args, kwargs)

    @expected
    async def cancel(self, id: Id[ScheduledFunction] | str, /, *, missing_ok: bool = False) -> None:
        """Cancels a scheduled function (rules C1 to C4).

        Pending, it will never run. An action in progress runs on, but its outcome is not recorded, and what it
        schedules from then on is created canceled. Canceled before: nothing happens.

        Args:
            id: What `run_after` or `run_at` returned.
            missing_ok: Whether it is fine if it has finished, or is not there any more. Default False.

        Raises:
            AlreadyFinishedError: It has succeeded or failed, or it is the mutation that is running now.
            ScheduledFunctionNotFoundError: It never was, or was deleted some time after it finished.
            InvalidIdError: It is no id of a scheduled function.

        Example:
            await ctx.scheduler.cancel(order["reminder_id"], missing_ok=True)
        """
        if check_id(id) != SYSTEM_TAG:
            raise InvalidIdError(id, "is the id of a document, not of a scheduled function")

        if isinstance(self._place, Scope):
            await self._place.operation(self._cancel(self._place, id, missing_ok))
        else:
            await self._place(lambda scope: self._cancel(scope, id, missing_ok))

    async def _now_ms(self) -> float:
        """What time it is where no mutation has fixed it."""
        return self._environment.clock.now_ms()

    def _schedule(
        self, now: float, requested: float, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Awaitable[Id[ScheduledFunction]]:
        if abs(requested - now) > TIME_SPAN_MS:
            days = (requested - now) / 86_400_000
            in_seconds = abs(requested * 1_000 - now) <= TIME_SPAN_MS
            raise InvalidTimeError(
                f"that is {abs(days):,.1f} days {'ahead' if days > 0 else 'ago'}; a time may be at most 5 × 366 days "
                f"from now{'; numbers are milliseconds since the epoch, and this one looks like seconds' * in_seconds}"
            )
        registry = self._environment.registry
        function = registry.resolve(target)
        if function.kind == "query":
            raise NotSchedulableError(function.path, function.kind)
        kind: JobKind = function.kind
        text = function.signature.store(args, kwargs, registry.tags)
        place = self._place
        if isinstance(place, Scope):
            return place.operation(self._insert(place, function.path, kind, now, requested, text))
        return place(lambda scope: self._insert(scope, function.path, kind, now, requested, text))

    async def _insert(
        self, scope: Scope, path: str, kind: JobKind, now: float, requested: float, text: str
    ) -> Id[ScheduledFunction]:
        if scope.enter():
            await scope.turn()
        scope.usage.schedule(len(text.encode()) if not text.isascii() else len(text))
        canceled = self._chain.is_action and await self._is_cut_off(scope)
        job_id: Id[ScheduledFunction] = scope.environment.ids.make(SYSTEM_TAG, scope.now_ms)
        trace = self._chain.trace
        if canceled:
            job = Job(
                job_id, path, kind, "canceled", None, requested, None, now, 0, None, None, None, text, trace=trace
            )
        else:
            # A time in the past queues behind what is already overdue (rule S6).
            due = max(requested, now)
            job = Job(job_id, path, kind, "pending", due, requested, None, None, 0, None, None, None, text, trace=trace)
        await scope.tx.insert_job(job)
        if scope.environment.observer is not None:
            scope.events.append(Event("canceled" if canceled else "scheduled", path, now, job_id, kind, due_ms=job.due))
        return job_id

    async def _is_cut_off(self, scope: Scope) -> bool:
        """Whether the action at the root of this call chain has been cancelled: then nothing of it may follow (C2)."""
        root = self._chain.job_id
        return root is not None and await scope.tx.get_job_state(root) == "canceled"

    async def _cancel(self, scope: Scope, id: str, missing_ok: bool) -> None:
        if scope.enter():
            await scope.turn()
        job = await scope.tx.get_job(id)
        if job is None:
            if not missing_ok:
                raise ScheduledFunctionNotFoundError(id)
            return
        if job.state == "canceled":
            return
        itself = id == self._chain.job_id and not self._chain.is_action
        if job.state in FINISHED or itself:
            if missing_ok:
                return
            raise AlreadyFinishedError(id, job.state, _CANCELS_ITSELF.format(id=id) if itself else None)
        now = scope.environment.clock.now_ms()
        changed = await scope.tx.settle_job(id, job.state, job.attempts, "canceled", now)
        assert changed, f"{id} changed within the transaction that read it"
        if scope.environment.observer is not None:
            scope.events.append(Event("canceled", job.name, now, id, job.kind))


_CANCELS_ITSELF = (
    "the scheduled function {id} is this very mutation, which can't be undone from inside; to leave no effects raise "
    "an error, or pass missing_ok=True"
)


class SyncScheduler:
    """The scheduler of a plain `def` action, and of connections that block: the same methods, not awaited.

    Example:
        ctx.scheduler.run_after(0, archive_order, order_id=order_id)
    """

    def __init__(self, scheduler: Scheduler, block: Callable[[Any], Any]) -> None:
        self._scheduler = scheduler
        self._block = block

    @overload
    def run_after(
        self, delay_ms: float | timedelta, function: FunctionReference[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledFunction]: ...
    @overload
    def run_after(
        self, delay_ms: float | timedelta, function: str, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]: ...
    def run_after(
        self, delay_ms: float | timedelta, function: Any, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]:
        """As `Scheduler.run_after`, blocking.

        Example:
            ctx.scheduler.run_after(0, send_confirmation, order_id=order_id)
        """
        result: Id[ScheduledFunction] = self._block(self._scheduler.run_after(delay_ms, function, *args, **kwargs))
        return result

    @overload
    def run_at(
        self, timestamp: float | datetime, function: FunctionReference[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledFunction]: ...
    @overload
    def run_at(
        self, timestamp: float | datetime, function: str, /, *args: Any, **kwargs: Any
    ) -> Id[ScheduledFunction]: ...
    def run_at(self, timestamp: float | datetime, function: Any, /, *args: Any, **kwargs: Any) -> Id[ScheduledFunction]:
        """As `Scheduler.run_at`, blocking.

        Example:
            ctx.scheduler.run_at(ctx.now + timedelta(days=7), archive_order, order_id=order_id)
        """
        result: Id[ScheduledFunction] = self._block(self._scheduler.run_at(timestamp, function, *args, **kwargs))
        return result

    def cancel(self, id: Id[ScheduledFunction] | str, /, *, missing_ok: bool = False) -> None:
        """As `Scheduler.cancel`, blocking.

        Example:
            ctx.scheduler.cancel(job_id, missing_ok=True)
        """
        self._block(self._scheduler.cancel(id, missing_ok=missing_ok))


def _milliseconds(value: Any, name: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {what}, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidTimeError(f"{name} must be finite, and this is {str(value)[:40]}")
    return number + 0.0
