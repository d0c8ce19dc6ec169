"""How a connection ends: with what last message, code and reason."""

import asyncio
import contextlib
import logging
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from duly._ground.clock import Clock
from duly.errors import AppNotOpenError, ConflictError, StoreError
from duly.server.messages import BadMessageError

__all__ = ["ClosedError", "close"]

_log = logging.getLogger("duly")

# How long a client is given to take the last message.
_FAREWELL_S = 5.0


class ClosedError(Exception):
    """The connection is to be closed, after a last message if there is one."""

    def __init__(self, code: int = 1000, reason: str = "", message: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.message = message


async def close(websocket: WebSocket, clock: Clock, error: BaseException | None) -> None:
    """Closes a connection because of an error; nothing is left to do if the client has."""
    match error:
        case WebSocketDisconnect():
            return
        case ClosedError():
            closed = error
        case BadMessageError():
            closed = ClosedError(message={"type": "FatalError", "error": str(error)[:1_000]})
        case AppNotOpenError():
            closed = ClosedError(1011, "InternalServerError: the app is not open")
        case ConflictError() | StoreError():
            closed = ClosedError(1011, "InternalServerError: the database can't be reached")
        case _:
            _log.error("a connection failed", exc_info=error)
            closed = ClosedError(1011, "InternalServerError")
    task = asyncio.get_running_loop().create_task(_take_leave(websocket, closed), name="duly sync")
    timer = clock.call_later(_FAREWELL_S, task.cancel)
    try:
        await asyncio.wait({task})
    finally:
        timer.cancel()
        task.cancel()


async def _take_leave(websocket: WebSocket, closed: ClosedError) -> None:
    with contextlib.suppress(Exception):  # it may be gone
        if closed.message is not None:
            await websocket.send_text(orjson.dumps(closed.message).decode())
        await websocket.close(closed.code, closed.reason)
