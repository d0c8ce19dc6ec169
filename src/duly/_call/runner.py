"""Calling functions: each kind in the transaction, the scope and the time that it is due."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar, cast

from duly._call.context import ActionCtx, MutationCtx, QueryCtx, SyncActionCtx
from duly._call.drive import Drive, begin, inside
from duly._call.registry import Function, Target
from duly._call.scheduler import Scheduler
from duly._call.scope import CallChain, Environment, Pages, Scope
from duly._call.threads import blocker, in_thread, without_exit
from duly._model.backoff import Backoff
from duly._model.event import Event
from duly._model.function import FunctionKind, with_article
from duly._model.limits import out_of_time
from duly._store.port import Transaction
from duly.errors import ConflictError, FunctionKindError, MutationWaitError

__all__ = ["Runner"]

T = TypeVar("T")

_log = logging.getLogger("duly")

# Some five seconds in all: whoever waits for an answer rather waits than tries again by hand.
_CONFLICTS_MAX = 12
_CONFLICT = Backoff(10, 2_000)
_CANCEL_GRACE_S = 1.0

Arguments = dict[str, Any]


class Runner:
    """Runs functions by reference or path, for the app, for contexts and for the executor."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._warned: set[str] = set()

    # From outside: transactions of their own.

    async def query(self, chain: CallChain, target: Target, args: tuple[Any, ...], kwargs: Arguments) -> Any:
        function, arguments = self._prepare("query", target, args, kwargs)

        return await self.environment.store.read(lambda tx: self.look(chain, function, arguments, tx))

    async def look(
        self, chain: CallChain, function: Function, arguments: Arguments, tx: Transaction, pages: Pages | None = None
    ) -> Any:
        """Runs a query in a transaction that is open."""
        if pages is not None:
            pages.is_read = False
        scope = Scope(self.environment, tx, chain, function.path, self.environment.clock.now_ms(), pages=pages)
        result, _ = await self._run(function, QueryCtx(scope, self), arguments, scope)
        return result

    async def mutation(self, chain: CallChain, target: Target, args: tuple[Any, ...], kwargs: Arguments) -> Any:
        function, arguments = self._prepare("mutation", target, args, kwargs)
        return await self.perform(function, _DirectCall(self, chain, function, args, kwargs, arguments))

    async def perform(self, function: Function, body: Callable[[Transaction], Awaitable[tuple[T, list[Event]]]]) -> T:
        """Runs a body that runs a mutation, in a transaction of its own; then tells what happened in it."""
        observed = self.environment.observer is not None
        started = self.environment.clock.now_ms() if observed else 0
        try:
            # As `transact` does; each coroutine in between costs every call.
            result, events = await self.environment.store.transact(body)
        except ConflictError:
            result, events = await self._again(body)
        if observed:
            now = self.environment.clock.now_ms()
            called = Event("called", function.path, now, None, "mutation", duration_ms=now - started)
            self.environment.emit(called, *events)
        return result

    async def action(self, chain: CallChain, target: Target, args: tuple[Any, ...], kwargs: Arguments) -> Any:
        function, arguments = self._prepare("action", target, args, kwargs)
        return await self.act(chain, function, arguments)

    def scheduler(self, chain: CallChain) -> Scheduler:
        """A scheduler each of whose calls is a transaction of its own."""
        environment = self.environment

        async def in_scope(body: Callable[[Scope], Awaitable[Any]]) -> Any:
            self._refuse_inside("the scheduler of the app", "ctx.scheduler")

            async def in_transaction(tx: Transaction) -> tuple[Any, list[Event]]:
                scope = Scope(environment, tx, chain, "scheduler", environment.clock.now_ms())
                return await body(scope), scope.events

            result, events = await self.transact(in_transaction)
            environment.emit(*events)
            return result

        return Scheduler(environment, chain, in_scope)

    # From inside a transaction.

    async def query_within(self, scope: Scope, target: Target, args: tuple[Any, ...], kwargs: Arguments) -> Any:
        return await scope.operation(self._query_within(scope, target, args, kwargs), runs_function=True)

    async def _query_within(self, scope: Scope, target: Target, args: tuple[Any, ...], kwargs: Arguments) -> Any:
        if scope.enter():
            await scope.turn()
        function, arguments = self._prepare("query", target, args, kwargs, nested=True)
        child = scope.child(function.path)
        return await self._run_nested(function, QueryCtx(child, self), arguments, child)

    async def mutation_within(self, scope: Scope, target: Target, args: tuple[Any, ...], kwargs: Arguments) -> Any:
        function, arguments = self._prepare("mutation", target, args, kwargs, nested=True)
        async with scope.nested(function.path) as child:
            return await self._run_nested(function, MutationCtx(child, self), arguments, child)

    # For who has the transaction or the job already.

    def mutate(
        self, chain: CallChain, function: Function, arguments: Arguments, tx: Transaction
    ) -> Coroutine[Any, Any, tuple[Any, list[Event]]]:
        """Runs a mutation in a transaction that is open. What it raises is the caller's to roll back."""
        environment = self.environment
        clock = environment.clock
        deadline = clock.monotonic() + environment.mutation_timeout_s
        scope = Scope(environment, tx, chain, function.path, clock.now_ms(), deadline=deadline)
        return self._run(function, MutationCtx(scope, self), arguments, scope)

    async def act(self, chain: CallChain, function: Function, arguments: Arguments) -> Any:
        """Runs an action, for as long as it may.

        Raises:
            LimitError: It ran out of time.
        """
        environment = self.environment
        ctx = ActionCtx(environment, chain, self, self.scheduler(chain))
        if function.is_async:
            body: Coroutine[Any, Any, Any] = function.call(ctx, **arguments)
        else:
            sync_ctx = SyncActionCtx(ctx, blocker(asyncio.get_running_loop()))
            body = in_thread(function.path, lambda: function.call(sync_ctx, **arguments))
        seconds = (function.timeout or environment.action_timeout).total_seconds()
        result = await self._within(seconds, function, body)
        return function.signature.check_return(result, environment.registry.tags)

    async def _within(self, seconds: float, function: Function, body: Coroutine[Any, Any, T]) -> T:
        """Waits for a body in a task of its own; cancels it when its time is up or the caller is cancelled.

        A body that ignores being cancelled is left to itself after a second: its outcome counts no more.
        """
        clock = self.environment.clock
        task = asyncio.get_running_loop().create_task(without_exit(body), name=f"duly {function.path}")
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(_: object = None) -> None:
            if not ended.done():
                ended.set_result(None)

        task.add_done_callback(end)
        began = clock.monotonic()
        timer = clock.call_later(seconds, end)
        try:
            await ended
            if task.done():
                result, left = task.result()
                if left is not None:
                    raise left
                return cast("T", result)
        finally:
            timer.cancel()
            if not task.done():
                await self._stop(task, function)
        raise out_of_time(
            f"the action {function.path!r}",
            clock.monotonic() - began,
            seconds,
            "it was cancelled: give it more with @duly.action(timeout=…), or split the work",
        )

    async def _stop(self, task: asyncio.Task[Any], function: Function) -> None:
        task.cancel()
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go(_: object = None) -> None:
            if not gone.done():
                gone.set_result(None)

        timer = self.environment.clock.call_later(_CANCEL_GRACE_S, go)
        task.add_done_callback(go)
        try:
            await gone
        finally:
            timer.cancel()
        if task.done():
            if not task.cancelled():
                task.exception()  # it is told apart from its outcome, which is that it was stopped
        else:
            _log.warning(
                "%s goes on although it was cancelled; its outcome will not be recorded",
                function.path,
                extra={"function": function.path},
            )

    # In common.

    def _prepare(
        self, kind: FunctionKind, target: Target, args: tuple[Any, ...], kwargs: Arguments, *, nested: bool = False
    ) -> tuple[Function, Arguments]:
        registry = self.environment.registry
        function = registry.resolve(target)
        if function.kind != kind:
            raise FunctionKindError(
                function.path,
                function.kind,
                f"{function.path!r} is {with_article(function.kind)}, not {with_article(kind)}; "
                f"call it with app.{function.kind}(…), or ctx.run_{function.kind}(…) inside another function",
            )
        if not nested and inside.get() is not None:
            self._refuse_inside(f"the {kind} {function.path!r}", f"ctx.run_{kind}")
        return function, function.signature.bind(args, kwargs, registry.tags)

    def prepare_stored(
        self, kind: FunctionKind, target: Target, args: tuple[Any, ...], kwargs: Arguments
    ) -> tuple[Function, str]:
        """A call that is going to be made more than once: its function, and its arguments in their stored form."""
        function, arguments = self._prepare(kind, target, args, kwargs)
        return function, function.signature.dump(arguments)

    def _refuse_inside(self, what: str, instead: str) -> None:
        """A call of the app from inside a transaction would wait for that transaction to end, which waits for it."""
        path = inside.get()
        if path is not None:
            raise MutationWaitError(
                path, path, f"{what} was called from inside {path!r} as if from outside; use {instead} there"
            )

    async def _run(
        self, function: Function, ctx: QueryCtx, arguments: Arguments, scope: Scope
    ) -> tuple[Any, list[Event]]:
        """Runs a handler from its first line to its last: its result, and what to tell once it is committed."""
        try:
            coroutine = function.call(ctx, **arguments)
            context = copy_context()
            try:
                awaited = context.run(begin, function.path, coroutine)
            except StopIteration as stop:
                result = stop.value
            else:
                result = await Drive(coroutine, awaited, context, scope, self._waits)
        finally:
            scope.open = False
            if scope.underway:
                await scope.quiet()
        scope.check_ended()
        return function.signature.check_return(result, self.environment.registry.tags), scope.events

    async def _run_nested(self, function: Function, ctx: QueryCtx, arguments: Arguments, scope: Scope) -> Any:
        """Runs a handler as part of the one that called it, which is driven."""
        try:
            result = await function.call(ctx, **arguments)
        finally:
            scope.open = False
        scope.check_ended()
        return function.signature.check_return(result, self.environment.registry.tags)

    def _waits(self, scope: Scope, where: str) -> MutationWaitError | None:
        """A function waits for the world (rule T3): warn, once for each function, or refuse. Queries may."""
        if scope.deadline is None:
            return None
        error = MutationWaitError(scope.path, where)
        if self.environment.foreign_wait == "error":
            return error
        if scope.path not in self._warned:
            self._warned.add(scope.path)
            _log.warning("%s", error, extra={"function": scope.path})
        return None

    async def transact(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """A transaction for a direct call."""
        try:
            return await self.environment.store.transact(body)
        except ConflictError:
            return await self._again(body)

    async def _again(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Retries a direct call after a conflict, for a while; then the conflict is told (rule T1)."""
        for conflicts in range(1, _CONFLICTS_MAX + 1):
            delay = _CONFLICT.delay_ms(conflicts, self.environment.entropy.uniform())
            await self.environment.clock.sleep(delay / 1_000)
            try:
                return await self.environment.store.transact(body)
            except ConflictError:
                if conflicts == _CONFLICTS_MAX:
                    raise
        raise AssertionError("the last try returns or raises")


class _DirectCall:
    """A mutation that is called directly, as a body that the store may run again: each run gets arguments of its own,
    so that none sees what the one before did to them."""

    __slots__ = ("_args", "_arguments", "_chain", "_function", "_kwargs", "_runner")

    def __init__(
        self,
        runner: Runner,
        chain: CallChain,
        function: Function,
        args: tuple[Any, ...],
        kwargs: Arguments,
        arguments: Arguments,
    ) -> None:
        self._runner = runner
        self._chain = chain
        self._function = function
        self._args = args
        self._kwargs = kwargs
        # Bound before, for the first run.
        self._arguments: Arguments | None = arguments

    def __call__(self, tx: Transaction) -> Coroutine[Any, Any, tuple[Any, list[Event]]]:
        arguments, self._arguments = self._arguments, None
        if arguments is None:
            tags = self._runner.environment.registry.tags
            arguments = self._function.signature.bind(self._args, self._kwargs, tags)
        return self._runner.mutate(self._chain, self._function, arguments, tx)
