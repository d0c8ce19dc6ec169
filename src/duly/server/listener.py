"""Listens with uvicorn, on the event loop of a program that has other things to do as well."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from duly.server.patience import Patience

__all__ = ["Listener"]

# Clients give up after 30 seconds of silence; a peer that is gone without a word is given up after as much.
_PING_S = 5.0
_PONG_S = 30.0
# Arguments of 16 MiB, and what is around them.
_MESSAGE_BYTES_MAX = 17 << 20
# How often connections are looked at, in uvicorn's ticks, of which there are ten in a second.
_TICKS_MAX = 50


class Listener(uvicorn.Server):
    """Serves an ASGI app: `serve(sockets=[…])`, until `stop`.

    Args:
        app: The ASGI app.
        root_path: What a proxy in front takes off each path.
        request_s: How long the head of a request may take to arrive, and an answer to be taken by a client that does
            not read.
    """

    def __init__(self, app: ASGIApp, root_path: str = "", request_s: float = 60.0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                root_path=root_path,
                ws_ping_interval=_PING_S,
                ws_ping_timeout=_PONG_S,
                ws_max_size=_MESSAGE_BYTES_MAX,
                access_log=False,
                log_config=None,
                server_header=False,
            )
        )
        self._patience = Patience(request_s)
        self._ticks = max(1, min(_TICKS_MAX, int(request_s)))

    async def on_tick(self, counter: int) -> bool:
        if counter % self._ticks == 0:
            self._patience.look(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: they are heard by whoever runs the event loop."""
        yield

    def stop(self, drain_s: float) -> None:
        """Takes no more requests, and gives those that are being answered some time."""
        self.config.timeout_graceful_shutdown = math.ceil(drain_s)
        self.should_exit = True
