"""Whose web pages may call: those that are named, those of this machine, and those that come from the server's host."""

import logging
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["guards_of"]

_log = logging.getLogger("duly")

# A page that is developed on this machine may call a server on this machine. Others have to be named: whoever runs a
# server on loopback does not mean to open it to every page they look at.
_THIS_MACHINE = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
_PREFLIGHT_S = 86_400
_TOLD_MAX = 100


def guards_of(origins: Sequence[str]) -> list[Middleware]:
    """What keeps other pages out, of HTTP and of WebSockets alike.

    Args:
        origins: Those that are named; "*" is any.
    """
    named = [origin.rstrip("/") for origin in origins if origin != "*"]
    pattern = ".*" if "*" in origins else _THIS_MACHINE
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=named,
            allow_origin_regex=pattern,
            allow_methods=["GET", "POST", "OPTIONS", "PATCH", "DELETE", "PUT"],
            allow_headers=["*"],
            allow_credentials=True,
            max_age=_PREFLIGHT_S,
        ),
        Middleware(_WebSocketOrigins, named=named, pattern=pattern),
    ]


class _WebSocketOrigins:
    """Browsers open a WebSocket to wherever a page likes, and only tell the server whose page it is."""

    def __init__(self, app: ASGIApp, named: Sequence[str], pattern: str) -> None:
        self._app = app
        self._named = frozenset(named)
        self._pattern = re.compile(pattern)
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._may_call(origin, headers.get("host", "")):
                self._tell(origin)
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": "OriginNotAllowed"})
                return
        await self._app(scope, receive, send)

    def _may_call(self, origin: str, host: str) -> bool:
        if origin in self._named or self._pattern.fullmatch(origin):
            return True
        try:
            return urlsplit(origin).netloc == host != ""
        except ValueError:
            return False

    def _tell(self, origin: str) -> None:
        """Once of each: its page tries again and again."""
        if origin not in self._told and len(self._told) < _TOLD_MAX:
            self._told.add(origin)
            _log.warning("a page of %.200r was kept out; cors_origins and --cors-origin say whose may call", origin)
