"""What Prometheus is told of an app: what happened since the process began, and how things are when it asks."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from duly._live.live import Live
from duly._model.event import Event
from duly._model.function import FunctionKind
from duly._store.port import Store, Tally
from duly._work.executor import Executor
from duly.errors import AppNotOpenError, ConflictError, StoreError

__all__ = ["COUNTED_MAX", "Metrics"]

COUNTED_MAX = 10_000
"""How far the jobs of a state are counted: a look must cost the same however many there are."""

_DURATIONS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600)
_WAITS_S = (0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600, 3_600)
_KINDS: tuple[FunctionKind, ...] = ("query", "mutation", "action")


class Metrics(Collector):
    """Counts what happens, as an observer, and looks up the rest when it is asked. In a registry of its own.

    Args:
        store: The app's store; raises `AppNotOpenError` while it is not open.
        live: Its live queries, while it is open.
        executor: That of this process, if it has one.
    """

    def __init__(
        self, store: Callable[[], Store], live: Callable[[], Live | None], executor: Callable[[], Executor | None]
    ) -> None:
        self.content_type = "text/plain; version=0.0.4; charset=utf-8"
        self._store = store
        self._live = live
        self._executor = executor
        # Of each server of this app: its connections, and the calls of a kind that it has not answered yet.
        self.connections: list[Callable[[], int]] = []
        self.in_flight: list[Callable[[FunctionKind], int]] = []
        # What the store said when it was last asked; None if it could not be.
        self._tallies: Sequence[Tally] | None = None
        self._tallied_ms = 0.0

        self._registry = registry = CollectorRegistry()
        labels = ["function", "kind", "caller"]
        self._calls = Counter("duly_calls", "Calls that ended.", [*labels, "outcome"], registry=registry)
        self._durations = Histogram(
            "duly_call_duration_seconds", "How long calls took.", labels, registry=registry, buckets=_DURATIONS_S
        )
        self._scheduled = Counter("duly_scheduled", "Functions that were scheduled.", labels[:2], registry=registry)
        self._waits = Histogram(
            "duly_queue_wait_seconds",
            "How long scheduled functions had been due when they started.",
            ["kind"],
            registry=registry,
            buckets=_WAITS_S,
        )
        registry.register(self)
        ProcessCollector(registry=registry)

    def observe(self, event: Event) -> None:
        """As an `Observer`."""
        kind = event.function_kind or ""
        match event.kind:
            case "scheduled":
                self._scheduled.labels(event.path, kind).inc()
            case "answered":
                self._count(event, kind, event.origin or "", event.outcome or "")
            case "success" | "failed" | "interrupted" | "retry":
                self._count(event, kind, "scheduled", event.kind)
                if kind == "mutation" and event.duration_ms is not None:
                    self._wait(event, event.at_ms - event.duration_ms)
            case "started":
                self._wait(event, event.at_ms)
            case _:
                pass

    def _count(self, event: Event, kind: str, caller: str, outcome: str) -> None:
        self._calls.labels(event.path, kind, caller, outcome).inc()
        if event.duration_ms is not None:
            self._durations.labels(event.path, kind, caller).observe(max(0.0, event.duration_ms) / 1_000)

    def _wait(self, event: Event, started_ms: float) -> None:
        if event.due_ms is not None:
            self._waits.labels(event.function_kind).observe(max(0.0, started_ms - event.due_ms) / 1_000)

    async def text(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        try:
            store = self._store()
            self._tallied_ms = now = store.clock.now_ms()
            self._tallies = await store.read(lambda tx: tx.tally_jobs(now, COUNTED_MAX))
        except (AppNotOpenError, ConflictError, StoreError):
            self._tallies = None
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """How things are, for the registry."""
        live, executor = self._live(), self._executor()
        yield GaugeMetricFamily(
            "duly_store_reachable", "Whether the database could be read.", self._tallies is not None
        )
        yield GaugeMetricFamily(
            "duly_worker_running", "Whether this process runs due functions.", bool(executor and executor.running)
        )
        actions = executor.actions.running if executor and executor.actions else 0
        yield GaugeMetricFamily("duly_actions_in_progress", "Scheduled actions that this process is running.", actions)
        yield GaugeMetricFamily(
            "duly_connections", "WebSockets of clients.", sum(count() for count in self.connections)
        )
        in_flight = GaugeMetricFamily("duly_calls_in_flight", "Calls of clients not answered yet.", labels=["kind"])
        for kind in _KINDS:
            in_flight.add_metric([kind], sum(count(kind) for count in self.in_flight))
        yield in_flight
        yield GaugeMetricFamily("duly_live_queries", "Queries that are watched.", live.watched if live else 0)
        yield CounterMetricFamily(
            "duly_live_query_runs", "How often watched queries were computed.", live.runs if live else 0
        )
        yield from self._tallied(self._tallies or [])

    def _tallied(self, tallies: Sequence[Tally]) -> Iterator[Metric]:
        jobs = GaugeMetricFamily(
            "duly_jobs", f"Scheduled functions, each number up to {COUNTED_MAX} a kind.", labels=["state"]
        )
        oldest = GaugeMetricFamily(
            "duly_oldest_due_seconds", "How long the first function that is due has been so.", labels=["kind"]
        )
        numbers: dict[str, int] = {}
        for state, kind, number, due in tallies:
            numbers[state] = numbers.get(state, 0) + number
            if state == "due" and kind is not None:
                late_ms = 0.0 if due is None else self._tallied_ms - due
                oldest.add_metric([kind], late_ms / 1_000)
        for state, number in numbers.items():
            jobs.add_metric([state], number)
        yield jobs
        yield oldest
