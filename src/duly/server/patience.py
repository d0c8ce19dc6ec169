"""How long a connection may wait for its client: for a request that does not arrive, or for an answer to be taken.

Uvicorn has a deadline for what is idle between requests, and WebSockets have their pings. In between it waits for ever:
for the head of a request that comes byte by byte, for the rest of one that is answered already, and for a client that
has stopped reading to take what is left, even after the connection was closed.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Patience"]


class _Wait(NamedTuple):
    """What a connection waits for, how much is unsent, and since when neither has changed."""

    what: object
    unsent: int
    since: float


class Patience:
    """Looks at connections now and then, and cuts those off that wait for too long.

    Args:
        seconds: How long a connection may wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[Any, _Wait] = {}

    def look(self, connections: Iterable[Any], now: float) -> None:
        """Looks once.

        Args:
            connections: Uvicorn's, whatever they speak.
            now: In seconds, from wherever they are counted.
        """
        waits: dict[Any, _Wait] = {}
        for connection in connections:
            what = _awaited(connection)
            if what is None:
                continue
            unsent = connection.transport.get_write_buffer_size()
            before = self._waits.get(connection)
            if before is None or before.what is not what or unsent < before.unsent:
                waits[connection] = _Wait(what, unsent, now)
            elif now - before.since < self._seconds:
                waits[connection] = before
            else:
                # Not closed: that would wait for the client again.
                connection.transport.abort()
        self._waits = waits


def _awaited(connection: Any) -> Any:
    """What a connection waits for from its client; None if it does not, or if others see to it."""
    transport = connection.transport
    if transport.is_closing():
        return transport
    if not hasattr(connection, "cycle"):
        return None  # a WebSocket
    # The last request and its answer, if there was one. While there is no answer the app is at work, and it has a
    # deadline of its own for the request's body.
    cycle = connection.cycle
    if cycle is None:
        return connection
    return cycle if cycle.response_complete else None
