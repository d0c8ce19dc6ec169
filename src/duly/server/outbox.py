"""What is to be sent on a connection, and how much of it a client may leave unread."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson
from starlette.websockets import WebSocket

from duly._ground.clock import Clock

__all__ = ["Outbox"]

_PING_S = 15.0
# Who does not read what it is sent gets nothing more run.
_UNSENT_MAX = 100
_UNSENT_BYTES_MAX = 16 << 20


class Outbox:
    """Messages in the order in which they go out.

    Args:
        clock: The door to time.
        emptied: Told when nothing is left to send.
    """

    def __init__(self, clock: Clock, emptied: Callable[[], None]) -> None:
        self._clock = clock
        self._emptied = emptied
        self._unsent: deque[bytes] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        # Set while what is unsent is not too much.
        self.room = asyncio.Event()
        self.room.set()

    def __bool__(self) -> bool:
        return bool(self._unsent)

    def send(self, message: dict[str, Any]) -> None:
        self._unsent.append(orjson.dumps(message))
        self._bytes += len(self._unsent[-1])
        self._more.set()
        if len(self._unsent) >= _UNSENT_MAX or self._bytes >= _UNSENT_BYTES_MAX:
            self.room.clear()

    async def write(self, websocket: WebSocket) -> None:
        """Sends what there is, and a ping where there is nothing for a while; for ever."""
        while True:
            if not self._unsent:
                self.room.set()
                self._emptied()
                self._more.clear()
                timer = self._clock.call_later(_PING_S, lambda: self.send({"type": "Ping"}))
                try:
                    await self._more.wait()
                finally:
                    timer.cancel()
            text = self._unsent.popleft()
            self._bytes -= len(text)
            await websocket.send_text(text.decode())
