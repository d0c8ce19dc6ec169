"""What happened, for whoever watches: `duly dev` prints it. Told only after the commit that made it true."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "EventKind", "Observer"]

EventKind = Literal["scheduled", "started", "success", "failed", "canceled", "retry", "interrupted", "parked", "called"]


@dataclass(frozen=True, slots=True)
class Event:
    """`at_ms` is when; `due_ms` for when it was scheduled, `duration_ms` how long it ran; `detail` is an error."""

    kind: EventKind
    path: str
    at_ms: float
    job_id: str | None = None
    function_kind: str | None = None
    due_ms: float | None = None
    duration_ms: float | None = None
    detail: str | None = None


Observer = Callable[[Event], None]
