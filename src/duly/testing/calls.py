"""Calling the functions of an app that is tested, as nobody in particular or as somebody."""

from typing import Any, ParamSpec, TypeVar, overload

from duly._app import App
from duly._call.scope import FROM_OUTSIDE, CallChain
from duly._model.function import FunctionReference
from duly._model.identity import Identity

__all__ = ["Calls"]

P = ParamSpec("P")
R = TypeVar("R")


class Calls:
    """Calls of an app's functions.

    Example:
        ann = t.with_identity(duly.Identity(issuer="https://id.example.com", subject="ann"))
        await ann.mutation(create_order, items=["tea"])
    """

    def __init__(self, app: App, chain: CallChain = FROM_OUTSIDE) -> None:
        self._app = app
        self._chain = chain

    def with_identity(self, identity: Identity) -> "Calls":
        """The calls of somebody: what `ctx.auth.identity()` gives in what they call. Scheduled functions have none.

        Example:
            ann = t.with_identity(duly.Identity(issuer="https://id.example.com", subject="ann"))
        """
        return Calls(self._app, CallChain(identity=identity))

    @overload
    async def query(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a query; as `App.query`.

        Example:
            order = await t.query(get_order, order_id=order_id)
        """
        return await self._app._running().query(self._chain, function, args, kwargs)

    @overload
    async def mutation(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def mutation(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a mutation; as `App.mutation`. What it schedules runs when the test says so.

        Example:
            order_id = await t.mutation(create_order, items=["tea"])
        """
        return await self._app._running().mutation(self._chain, function, args, kwargs)

    @overload
    async def action(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def action(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs an action here and now; as `App.action`.

        Example:
            await t.action(send_confirmation, order_id=order_id)
        """
        return await self._app._running().action(self._chain, function, args, kwargs)
