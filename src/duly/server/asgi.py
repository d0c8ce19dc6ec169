"""The ASGI app: routes, cross-origin rules and answers to errors put together."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from duly._ground.clock import Clock
from duly._live.live import Live
from duly._work.executor import Executor
from duly.server.caller import Authenticator
from duly.server.calls import Calls
from duly.server.http import Api
from duly.server.limits import Limits
from duly.server.origins import guards_of
from duly.server.refusal import REFUSED, refuse
from duly.server.sync import Sync

if TYPE_CHECKING:
    from duly._watch.metrics import Metrics  # installed only if wanted

__all__ = ["make_asgi", "make_metrics_asgi"]


def make_asgi(
    calls: Calls,
    executor: Callable[[], Executor | None],
    opened: Callable[[], AbstractAsyncContextManager[None]],
    *,
    name: str,
    cors_origins: Sequence[str],
    max_body: int,
    max_requests: int,
    request_s: float,
    limits: Limits,
    authenticator: Authenticator,
    clock: Clock,
    live: Callable[[], Live],
    metrics: "Metrics | None",
) -> Starlette:
    """The ASGI app.

    Args:
        calls: Runs functions for clients.
        executor: That of this process, if it has one.
        opened: Keeps the app open while the server runs.
        name: The app's.
        cors_origins: The origins whose pages may call, besides those of this machine; "*" is any.
        max_body: Of a request, in bytes.
        max_requests: How many calls over HTTP at once.
        request_s: How long the body of one may take to arrive, in seconds.
        limits: What clients of the sync protocol may take.
        authenticator: Tells who calls.
        clock: The door to time.
        live: The app's live queries, while it is open.
        metrics: What counts what happens, if anything does.
    """
    api = Api(
        calls,
        executor,
        name=name,
        authenticator=authenticator,
        clock=clock,
        live=live,
        max_body=max_body,
        max_requests=max_requests,
        request_s=request_s,
        metrics=metrics,
    )
    sync = Sync(calls, live, authenticator, limits)
    if metrics is not None:
        metrics.in_flight.append(calls.in_flight.__getitem__)
        metrics.connections.append(lambda: len(sync.connections))
    app = Starlette(
        routes=[
            *api.routes(),
            WebSocketRoute("/api/sync", sync.endpoint),
            # With the version of the client, which browsers can tell in no other way.
            WebSocketRoute("/api/{version}/sync", sync.endpoint),
        ],
        middleware=[Middleware(_SingleSlashes), *guards_of(cors_origins)],
        exception_handlers=dict.fromkeys(REFUSED, refuse),
        lifespan=lambda _: opened(),
    )
    # A client does not expect its POST to be sent elsewhere.
    app.router.redirect_slashes = False
    return app


def make_metrics_asgi(metrics: "Metrics") -> Starlette:
    """An ASGI app that shows metrics to whoever asks, at `/metrics`."""

    async def show(_request: Request) -> Response:
        return Response(await metrics.text(), media_type=metrics.content_type)

    return Starlette(routes=[Route("/metrics", show)])


class _SingleSlashes:
    """Takes `//api/query` for `/api/query`: clients append paths to whatever address they were given."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "//" in scope.get("path", ""):
            scope = {**scope, "path": re.sub("//+", "/", scope["path"])}
        await self._app(scope, receive, send)
