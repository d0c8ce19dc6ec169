"""What happened, for whoever watches: `duly dev` prints it, metrics count it. Told only after the commit that made it
true."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Answered", "Event", "EventKind", "Observer", "Origin", "both"]

EventKind = Literal[
    "scheduled", "started", "success", "failed", "canceled", "retry", "interrupted", "parked", "called", "answered"
]

Origin = Literal["client", "subscription"]
"""What an answer was for: a call, or one of the runs of a query that a client is subscribed to."""

Answered = Literal["success", "app_error", "failed", "unavailable", "abandoned", "refused"]
"""How. `unavailable`: the store could not run it; `abandoned`: the client went away, or the server stops; `refused`:
there is no such function for this client, or its arguments don't fit."""


@dataclass(frozen=True, slots=True)
class Event:
    """`at_ms` is when; `due_ms` for when it was scheduled, `duration_ms` how long it ran; `detail` is an error.

    `answered` is what became of a call from a client, with its `origin` and `outcome`; of one that was refused, nothing
    that the client chose is told.
    """

    kind: EventKind
    path: str
    at_ms: float
    job_id: str | None = None
    function_kind: str | None = None
    due_ms: float | None = None
    duration_ms: float | None = None
    detail: str | None = None
    origin: Origin | None = None
    outcome: Answered | None = None


Observer = Callable[[Event], None]


def both(first: Observer | None, second: Observer) -> Observer:
    """Tells two observers, or the second alone if there is no other."""
    if first is None:
        return second

    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell
