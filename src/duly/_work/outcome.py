"""What became of one attempt to run a job: values, decided by the engine, written by whoever holds the transaction."""

from dataclasses import dataclass

from duly._model.event import Event

__all__ = ["UNKNOWN_FUNCTION", "Looked"]

UNKNOWN_FUNCTION = "no worker that looked at it has the function {path!r}; deploy code that has it, or cancel the job"


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look for due work came to.

    `more` says that there may be more at once; `next_due` is when to look again otherwise (ms), None for not before
    something is scheduled; `events` are told once it is committed.
    """

    more: bool
    next_due: float | None
    events: list[Event]
