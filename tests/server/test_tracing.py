"""Spans of calls: a scheduled function's has a link to that of the call which scheduled it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import duly
from duly._app import Parts
from duly._watch.tracing import Tracing
from tests.support import eventually


@duly.mutation
async def order(ctx: duly.MutationCtx, item: str) -> duly.Id[duly.ScheduledFunction]:
    return await ctx.scheduler.run_after(0, pack, item=item)


@duly.internal_action
async def pack(ctx: duly.ActionCtx, item: str) -> None:
    await ctx.run_mutation(send, item=item)


@duly.internal_mutation
async def send(ctx: duly.MutationCtx, item: str) -> None:
    await ctx.scheduler.run_after(0, deliver, item=item)


@duly.internal_mutation
async def deliver(ctx: duly.MutationCtx, item: str) -> None:
    if item == "glass":
        raise ValueError("it broke")


@duly.query
async def fail(ctx: duly.QueryCtx) -> None:
    raise ValueError("nothing to see")


class Spans:
    """The spans that have ended, by the name of their function."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, function: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == f"test_tracing:{function}"]

    async def ended(self, function: str) -> ReadableSpan:
        async def look() -> list[ReadableSpan]:
            return self.named(function)

        (span,) = await eventually(look)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def app(database: str, spans: Spans) -> AsyncIterator[duly.App]:
    app = duly.App(__name__, database=database)
    app._parts = Parts(tracer_provider=spans.provider)
    async with app:
        yield app


@pytest.fixture
async def client(app: duly.App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


async def call(client: httpx.AsyncClient, kind: str, function: str, **args: Any) -> Any:
    response = await client.post(f"/api/{kind}", json={"path": f"test_tracing:{function}", "args": args})
    return response.json()


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def place(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


async def test_a_scheduled_function_is_linked_to_the_call_that_scheduled_it(
    client: httpx.AsyncClient, spans: Spans
) -> None:
    job_id = (await call(client, "mutation", "order", item="tea"))["value"]
    asked, packed, delivered = [await spans.ended(name) for name in ("order", "pack", "deliver")]
    assert linked(asked) == []
    assert linked(packed) == [place(asked)]
    # By the mutation that the action called: that is part of the action.
    assert linked(delivered) == [place(packed)]
    assert len({place(span)[0] for span in (asked, packed, delivered)}) == 3
    assert dict(packed.attributes or {}) == {
        "duly.function": "test_tracing:pack",
        "duly.kind": "action",
        "duly.job_id": job_id,
        "duly.attempt": 1,
    }
    assert not spans.named("send")


async def test_failures_are_marked(client: httpx.AsyncClient, spans: Spans) -> None:
    await call(client, "mutation", "order", item="glass")
    await call(client, "query", "fail")
    assert (await spans.ended("order")).status.status_code is StatusCode.UNSET
    for name, error in {"deliver": "ValueError: it broke", "fail": "ValueError: nothing to see"}.items():
        status = (await spans.ended(name)).status
        assert (status.status_code, status.description) == (StatusCode.ERROR, error)


async def test_what_python_schedules_is_linked_to_its_own_span(app: duly.App, spans: Spans) -> None:
    with spans.provider.get_tracer("tests").start_as_current_span("mine") as mine:
        await app.scheduler.run_after(0, deliver, item="tea")
        await app.mutation(send, item="glass")
    context = mine.get_span_context()

    async def both() -> Sequence[ReadableSpan]:
        return found if len(found := spans.named("deliver")) == 2 else []

    for span in await eventually(both):
        assert linked(span) == [(context.trace_id, context.span_id)]


async def test_a_call_is_part_of_what_its_request_is_part_of(client: httpx.AsyncClient, spans: Spans) -> None:
    with spans.provider.get_tracer("tests").start_as_current_span("request") as request:
        await call(client, "query", "fail")
    (span,) = spans.named("fail")
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id


async def test_what_is_not_sampled_is_not_stored(database: str) -> None:
    app = duly.App(__name__, database=database)
    app._parts = Parts(tracer_provider=TracerProvider(ALWAYS_OFF))
    async with app.client():
        job_id = await app.scheduler.run_after(0, deliver, item="tea")
        job = await app._running().environment.store.read(lambda tx: tx.get_job(job_id))
    assert job is not None
    assert job.trace is None


@pytest.mark.skipif(Tracing.is_set_up(), reason="OpenTelemetry takes one provider for a process, and this one has it")
async def test_where_nobody_has_set_it_up_nothing_is_traced(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        assert app._running().environment.tracer is None
