"""Spans of calls, for OpenTelemetry."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, ProxyTracerProvider, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from duly._model.function import FunctionKind

__all__ = ["Tracing"]

_FIELD = "traceparent"


class Tracing:
    """Makes a span for each call.

    Args:
        provider: Whose spans they are; None for the one that the program has set up.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = trace.get_tracer("duly", tracer_provider=provider)
        self._propagator = TraceContextTextMapPropagator()

    @staticmethod
    def is_set_up() -> bool:
        """Whether the program has a provider of spans."""
        return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)

    @contextmanager
    def client(self, path: str, kind: FunctionKind) -> Iterator["_Span"]:
        attributes = {"duly.function": path, "duly.kind": kind}
        with self._tracer.start_as_current_span(path, kind=SpanKind.SERVER, attributes=attributes) as span:
            yield _Span(span, self)

    @contextmanager
    def scheduled(
        self, path: str, kind: FunctionKind, job_id: str, attempt: int, scheduled_by: str | None
    ) -> Iterator["_Span"]:
        attributes: dict[str, str | int] = {
            "duly.function": path,
            "duly.kind": kind,
            "duly.job_id": job_id,
            "duly.attempt": attempt,
        }
        links = [] if scheduled_by is None else [Link(self._context_of(scheduled_by))]
        with self._tracer.start_as_current_span(
            path, context=Context(), kind=SpanKind.CONSUMER, attributes=attributes, links=links
        ) as span:
            yield _Span(span, self)

    def current(self) -> str | None:
        return self.traceparent(trace.get_current_span())

    def traceparent(self, span: trace.Span) -> str | None:
        """As W3C writes it, if somebody will see the span."""
        if not span.get_span_context().trace_flags.sampled:
            return None
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span, Context()))
        return carrier.get(_FIELD)

    def _context_of(self, traceparent: str) -> trace.SpanContext:
        context = self._propagator.extract({_FIELD: traceparent}, Context())
        return trace.get_current_span(context).get_span_context()


class _Span:
    def __init__(self, span: trace.Span, tracing: Tracing) -> None:
        self._span = span
        self.trace = tracing.traceparent(span)

    def fail(self, error: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, error.partition("\n")[0]))
