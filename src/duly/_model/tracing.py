"""What calls are traced with, for whoever traces: OpenTelemetry, or nothing."""

from contextlib import AbstractContextManager
from typing import Protocol

from duly._model.function import FunctionKind

__all__ = ["Span", "Tracer"]


class Span(Protocol):
    """A call while it runs."""

    @property
    def trace(self) -> str | None:
        """Its W3C traceparent, for what it schedules. None: nobody will see it."""
        ...

    def fail(self, error: str) -> None:
        """Marks it as failed."""
        ...


class Tracer(Protocol):
    """Makes spans."""

    def client(self, path: str, kind: FunctionKind) -> AbstractContextManager[Span]:
        """A call from a client, part of what its request is part of."""
        ...

    def scheduled(
        self, path: str, kind: FunctionKind, job_id: str, attempt: int, scheduled_by: str | None
    ) -> AbstractContextManager[Span]:
        """A run of a scheduled function: a trace of its own, with a link to the span of this traceparent."""
        ...

    def current(self) -> str | None:
        """The traceparent of the span that is current in this task."""
        ...
