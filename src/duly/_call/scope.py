"""What one run of a query or mutation may use: its transaction, its share of the limits, its time."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, TypeVar

from duly._call.registry import Registry
from duly._ground.clock import Clock
from duly._ground.entropy import Entropy
from duly._ground.ids import Id, IdMaker
from duly._model.event import Event, Observer
from duly._model.identity import Identity
from duly._model.job import ScheduledFunction
from duly._model.limits import Usage, out_of_time
from duly._model.tracing import Tracer
from duly._store.port import Store, Transaction
from duly.errors import DulyError, LimitError

__all__ = ["FROM_OUTSIDE", "CallChain", "Environment", "Scope", "expected", "operation"]

P = ParamSpec("P")
T = TypeVar("T")
Owner = TypeVar("Owner", bound="_InScope")
MaybeOwner = TypeVar("MaybeOwner", bound="_MaybeInScope")

_log = logging.getLogger("duly")


@dataclass
class Environment:
    """What every call in an app shares. Put together in one place, the app; nothing here is global."""

    registry: Registry
    store: Store
    clock: Clock
    entropy: Entropy
    ids: IdMaker
    action_timeout: timedelta
    mutation_timeout_s: float
    foreign_wait: Literal["warn", "error"] = "warn"
    observer: Observer | None = None
    tracer: Tracer | None = None

    def emit(self, *events: Event) -> None:
        if self.observer is not None:
            for event in events:
                try:
                    self.observer(event)
                except Exception:  # noqa: BLE001 (see below)
                    # What it is told of has been committed; who called or waits for work must not suffer.
                    _log.exception("the observer failed at %s of %s", event.kind, event.path)


class CallChain(NamedTuple):
    """Who began: the scheduled function at the root, if any, and whether it is an action (rules C2 and C4); or who is
    known to have called, which is never both (rule S11). `trace` is the span that what is scheduled is linked to."""

    job_id: Id[ScheduledFunction] | None = None
    is_action: bool = False
    identity: Identity | None = None
    trace: str | None = None


FROM_OUTSIDE = CallChain()
"""That of a call which no scheduled function made, and nobody in particular."""


class Pages:
    """Where the page of a live query ends: where it ended when it was first computed, whatever comes and goes.

    Args:
        end: The cursor at which it ended then; None the first time.
    """

    __slots__ = ("end", "is_read")

    def __init__(self, end: str | None) -> None:
        self.end = end
        # Whether the run that is under way has read its page.
        self.is_read = False


def operation(
    method: Callable[Concatenate[Owner, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Owner, P], Awaitable[T]]:
    """A method of what a function is given, that runs as one `operation` of its scope."""

    @functools.wraps(method)
    def begin(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        scope, call = self._scope, method(self, *args, **kwargs)
        scope.expected.append(call)
        return scope.operation(call)

    return begin


def expected(
    method: Callable[Concatenate[MaybeOwner, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[MaybeOwner, P], Coroutine[Any, Any, T]]:
    """A method of what a function is given, that the function has to await: else it fails, and does not go without."""

    @functools.wraps(method)
    def begin(self: MaybeOwner, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        scope, call = self._scope, method(self, *args, **kwargs)
        if scope is not None:
            scope.expected.append(call)
        return call

    return begin


class _InScope(Protocol):
    @property
    def _scope(self) -> "Scope": ...


class _MaybeInScope(Protocol):
    @property
    def _scope(self) -> "Scope | None": ...


class Scope:
    """One run of a query or mutation within a transaction; nested runs have scopes of their own."""

    __slots__ = (
        "_child",
        "_parent",
        "chain",
        "deadline",
        "environment",
        "events",
        "expected",
        "now_ms",
        "open",
        "pages",
        "path",
        "tx",
        "underway",
        "usage",
    )

    def __init__(
        self,
        environment: Environment,
        tx: Transaction,
        chain: CallChain,
        path: str,
        now_ms: float,
        *,
        deadline: float | None = None,
        usage: Usage | None = None,
        events: list[Event] | None = None,
        parent: "Scope | None" = None,
        pages: "Pages | None" = None,
    ) -> None:
        self.environment = environment
        self.tx = tx
        self.chain = chain
        self.path = path
        self.now_ms = now_ms
        self.deadline = deadline
        self.usage = usage if usage is not None else Usage()
        self.events = events if events is not None else []
        self.open = True
        self.pages = pages
        # The scopes of this run in which an operation is under way, and the task that it runs on.
        self.underway: dict[Scope, asyncio.Task[Any] | None] = parent.underway if parent is not None else {}
        self._parent = parent
        self._child: asyncio.Lock | None = None
        # What the function has called, and has to await.
        self.expected: list[Any] = []

    def enter(self) -> bool:
        """Before every call on the database or the scheduler: is this run still the one that may?

        Returns whether a nested mutation is under way. This call, made at the same time, is not part of it, and waits
        for its `turn` first. (Where operations take time, it has its turn.)
        """
        self.usage.calls += 1
        if not self.open or self._parent is not None:
            self._check_open()
        if self.deadline is not None and self.environment.clock.monotonic() > self.deadline:
            raise self.out_of_time()
        return self._child is not None and self._child.locked() and not self.tx.suspends

    def operation(self, call: Coroutine[Any, Any, T], *, runs_function: bool = False) -> Awaitable[T]:
        """A call on the database or the scheduler, as one step.

        Where an engine takes no time it is one as it is. Where it does, calls that are gathered run one after the
        other: what one has read and is about to write no other changes in between, and a nested mutation, which is a
        call like others, takes nothing with it that is not its own.

        Args:
            call: What to do.
            runs_function: Whether it runs a function, and so may take for ever.
        """
        if not self.tx.suspends:
            return call
        alone = self._alone(call, runs_function)
        self.expected.append(alone)
        return alone

    async def _alone(self, call: Coroutine[Any, Any, T], runs_function: bool) -> T:
        if self._child is None:
            self._child = asyncio.Lock()
        try:
            async with self._child:
                self._check_open()  # it may have had to wait, and outlived the function
                if not runs_function:
                    self.underway[self] = asyncio.current_task()
                try:
                    return await call
                finally:
                    self.underway.pop(self, None)
        finally:
            call.close()

    async def quiet(self) -> None:
        """Once the function has returned: what it left behind in the middle of a call comes to the end of that call.

        Otherwise it would go on in what becomes of the transaction. It begins nothing new, and has no more time than
        the function had.
        """
        clock = self.environment.clock
        while self.underway:
            scope, task = next(iter(self.underway.items()))
            timer = None
            if self.deadline is not None and task is not None:
                timer = clock.call_later(max(0.0, self.deadline - clock.monotonic()), task.cancel)
            try:
                await scope._pass()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _pass(self) -> None:
        if self._child is not None:
            async with self._child:
                pass

    async def turn(self) -> None:
        """Waits for the nested mutation that is under way."""
        while self._child is not None and self._child.locked():
            async with self._child:
                pass
            self._check_open()

    def _is_open(self) -> bool:
        """Whether the transaction is still this run's: neither it nor a run that it is nested in has ended."""
        return self.open and (self._parent is None or self._parent._is_open())

    def _check_open(self) -> None:
        if not self._is_open():
            raise DulyError(
                f"the ctx of {self.path!r} was used after the function had returned; await everything it starts, "
                "and schedule what is to run later"
            )

    def check_ended(self) -> None:
        """Once the function has returned: in time, and no call of its own may be forgotten or half done."""
        left = [call for call in self.expected if call.cr_frame is not None]
        if left and (forgotten := [call for call in left if getcoroutinestate(call) == CORO_CREATED]):
            for call in forgotten:
                call.close()
            raise DulyError(
                f"{self.path!r} returned and had not awaited {forgotten[0].__qualname__}(…), which did nothing; put "
                "'await' before the call"
            )
        if self._child is not None and self._child.locked():
            raise DulyError(
                f"{self.path!r} returned before a call of its own had ended; await every ctx.run_mutation, ctx.sql and "
                "ctx.db call"
            )
        if self.deadline is not None and self.environment.clock.monotonic() > self.deadline:
            raise self.out_of_time()

    def out_of_time(self) -> LimitError:
        seconds = self.environment.mutation_timeout_s
        over = 0.0 if self.deadline is None else self.environment.clock.monotonic() - self.deadline
        return out_of_time(
            f"the mutation {self.path!r}",
            seconds + over,
            seconds,
            "it was rolled back: do slow work in an action, or schedule the rest (rule T3)",
        )

    def child(self, path: str) -> "Scope":
        """The scope of a nested run: the same transaction, time and limits."""
        return Scope(
            self.environment,
            self.tx,
            self.chain,
            path,
            self.now_ms,
            deadline=self.deadline,
            usage=self.usage,
            events=self.events,
            parent=self,
            pages=self.pages,
        )

    @asynccontextmanager
    async def nested(self, path: str) -> AsyncIterator["Scope"]:
        """All or nothing within the transaction: what fails takes its writes, jobs and share of the limits with it.

        Nested runs of one scope take turns, also when they are gathered: savepoints only nest.
        """
        if self.enter():
            await self.turn()
        if self._child is None:
            self._child = asyncio.Lock()
        async with self._child:
            self._check_open()  # it may have had to wait, and outlived the function
            before, events = self.usage.copy(), len(self.events)
            savepoint = self.tx.savepoint()
            scope = self.child(path)
            try:
                yield scope
                self._check_open()
            except BaseException:
                # Once the outer run has ended, the transaction is another's, and this one has been rolled back.
                if self.tx.fault is None and self._is_open():
                    await self.tx.rollback(savepoint)
                self.usage.undo(before)
                del self.events[events:]
                raise
            else:
                await self.tx.release(savepoint)
            finally:
                scope.open = False
