"""`@duly.mutation` and its five siblings."""

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, get_origin, overload

from duly._call.context import ActionCtx, MutationCtx, QueryCtx, SyncActionCtx
from duly._model.function import FunctionKind, FunctionReference, Handler, with_article

__all__ = ["action", "internal_action", "internal_mutation", "internal_query", "mutation", "query"]

P = ParamSpec("P")
R = TypeVar("R")

_AsyncAction = Callable[Concatenate[ActionCtx, P], Awaitable[R]]
_SyncAction = Callable[Concatenate[SyncActionCtx, P], R]


def query(function: Callable[Concatenate[QueryCtx, P], Awaitable[R]], /) -> FunctionReference[P, R]:
    """Makes an `async def` a public query: it reads one consistent snapshot of the database, and writes nothing.

    Returns:
        The reference that names it in calls. Arguments and result are typed by the function's annotations.

    Raises:
        TypeError: The function is not `async def`.

    Example:
        @duly.query
        async def open_orders(ctx: duly.QueryCtx) -> list[Order]:
            return await ctx.db.query(orders).with_index("by_status", status="open").collect()
    """
    return _reference(function, "query", public=True)


def internal_query(function: Callable[Concatenate[QueryCtx, P], Awaitable[R]], /) -> FunctionReference[P, R]:
    """Like `query`, but never callable from a client: only from other functions and from Python.

    Example:
        @duly.internal_query
        async def order_count(ctx: duly.QueryCtx) -> int:
            return await ctx.db.query(orders).count()
    """
    return _reference(function, "query", public=False)


def mutation(function: Callable[Concatenate[MutationCtx, P], Awaitable[R]], /) -> FunctionReference[P, R]:
    """Makes an `async def` a public mutation: one serializable transaction, the functions it schedules included.

    It may run again if the transaction has to be retried; it commits once. It does no I/O of its own and is short:
    5 seconds (`mutation_timeout`), rule T3.

    Returns:
        The reference that names it in calls and schedules.

    Raises:
        TypeError: The function is not `async def`.

    Example:
        @duly.mutation
        async def create_order(ctx: duly.MutationCtx, items: list[str]) -> duly.Id[Order]:
            order_id = await ctx.db.insert(orders, {"items": items, "status": "open"})
            await ctx.scheduler.run_after(0, send_confirmation, order_id=order_id)
            return order_id
    """
    return _reference(function, "mutation", public=True)


def internal_mutation(function: Callable[Concatenate[MutationCtx, P], Awaitable[R]], /) -> FunctionReference[P, R]:
    """Like `mutation`, but never callable from a client: only from other functions, schedules and Python.

    Example:
        @duly.internal_mutation
        async def archive_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
            await ctx.db.patch(order_id, {"status": "archived"})
    """
    return _reference(function, "mutation", public=False)


@overload
def action(function: _AsyncAction[P, R], /) -> FunctionReference[P, R]: ...
@overload
def action(function: _SyncAction[P, R], /) -> FunctionReference[P, R]: ...
@overload
def action(*, timeout: timedelta | None = None) -> "_ActionDecorator": ...
def action(function: Any = None, /, *, timeout: timedelta | None = None) -> Any:
    """Makes a function a public action: ordinary Python that may touch the outside world.

    It has no transaction of its own; it reads and writes through `ctx.run_query` and `ctx.run_mutation`. Scheduled, it
    starts at most once (rules A1 to A4). An `async def` runs on the event loop; a plain `def` with a
    `duly.SyncActionCtx` runs in a thread of its own, and the methods of its ctx block.

    Args:
        timeout: How long it may run, greater than zero; default the app's `action_timeout`, 10 minutes.

    Returns:
        The reference that names it in calls and schedules.

    Example:
        @duly.action(timeout=timedelta(minutes=5))
        async def send_confirmation(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
            order = await ctx.run_query(get_order, order_id=order_id)
            if order is not None:
                await smtp.send(order["email"], "Thank you")
    """
    return _action(function, timeout, public=True)


@overload
def internal_action(function: _AsyncAction[P, R], /) -> FunctionReference[P, R]: ...
@overload
def internal_action(function: _SyncAction[P, R], /) -> FunctionReference[P, R]: ...
@overload
def internal_action(*, timeout: timedelta | None = None) -> "_ActionDecorator": ...
def internal_action(function: Any = None, /, *, timeout: timedelta | None = None) -> Any:
    """Like `action`, but never callable from a client: only from other functions, schedules and Python.

    Args:
        timeout: As for `action`.

    Example:
        @duly.internal_action
        def resize(ctx: duly.SyncActionCtx, image_id: str) -> None:
            subprocess.run(["convert", image_id, "-resize", "50%", f"{image_id}.small"], check=True)
    """
    return _action(function, timeout, public=False)


class _ActionDecorator:
    """What `@duly.action(…)` is before it meets its function."""

    def __init__(self, timeout: timedelta | None, *, public: bool) -> None:
        self._timeout = timeout
        self._public = public

    @overload
    def __call__(self, function: _AsyncAction[P, R], /) -> FunctionReference[P, R]: ...
    @overload
    def __call__(self, function: _SyncAction[P, R], /) -> FunctionReference[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        return _reference(function, "action", public=self._public, timeout=self._timeout)


def _action(function: Any, timeout: timedelta | None, *, public: bool) -> Any:
    if timeout is not None and not isinstance(timeout, timedelta):
        raise TypeError(f"the timeout of an action is a timedelta, not {timeout!r}")
    if timeout is not None and timeout <= timedelta(0):
        raise ValueError(f"the timeout of an action must be greater than zero, not {timeout}")
    decorator = _ActionDecorator(timeout, public=public)
    return decorator if function is None else decorator(function)


def _reference(
    function: Callable[..., Any], kind: FunctionKind, *, public: bool, timeout: timedelta | None = None
) -> FunctionReference[Any, Any]:
    if not inspect.isfunction(function):
        raise TypeError(f"@duly.{kind} goes on a function, not on {function!r}")
    is_async = inspect.iscoroutinefunction(function)
    if not is_async and (kind != "action" or inspect.isasyncgenfunction(function)):
        raise TypeError(f"{function.__name__!r} must be 'async def' to be {with_article(kind)}")
    _check_ctx(function, kind, is_async)
    return FunctionReference(Handler(function, kind, public, is_async, timeout))


def _check_ctx(function: Callable[..., Any], kind: FunctionKind, is_async: bool) -> None:
    """The first parameter is the ctx; where its annotation says otherwise, it was forgotten or is of another kind."""
    expected = {"query": QueryCtx, "mutation": MutationCtx, "action": ActionCtx if is_async else SyncActionCtx}[kind]
    for first in list(inspect.signature(function).parameters.values())[:1]:
        annotation = first.annotation
        if isinstance(annotation, str):
            fits = annotation.endswith(("Ctx", "Any"))  # as it stands in the source; what it means is not known yet
        elif isinstance(annotation, type) and annotation not in (inspect.Parameter.empty, Any):
            fits = issubclass(expected, annotation)
        else:
            fits = get_origin(annotation) is None  # there is none, it is Any, or a type variable
        if not fits:
            raise TypeError(
                f"the first parameter of the {kind} {function.__name__!r} is its ctx, a duly.{expected.__name__}; "
                f"this is '{first}'"
            )
