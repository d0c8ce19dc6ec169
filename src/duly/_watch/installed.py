"""What an app is watched with, as far as it is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from duly._live.live import Live
from duly._model.tracing import Tracer
from duly._store.port import Store
from duly._work.executor import Executor

if TYPE_CHECKING:
    from duly._watch.metrics import Metrics

__all__ = ["make_metrics", "make_tracer"]


def make_metrics(
    store: Callable[[], Store], live: Callable[[], Live | None], executor: Callable[[], Executor | None]
) -> "Metrics | None":
    """What counts for Prometheus, or None without its client."""
    if find_spec("prometheus_client") is None:
        return None
    from duly._watch.metrics import Metrics  # noqa: PLC0415 (installed only if wanted)

    return Metrics(store, live, executor)


def make_tracer(provider: Any) -> Tracer | None:
    """What makes spans for OpenTelemetry, or None without its API, or where nobody has set it up.

    Args:
        provider: A `TracerProvider`; None for the one that the program has set up.
    """
    try:
        from duly._watch.tracing import Tracing  # noqa: PLC0415 (installed only if wanted)
    except ModuleNotFoundError:
        return None
    return Tracing(provider) if provider is not None or Tracing.is_set_up() else None
