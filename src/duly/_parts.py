"""What an app is made of besides its functions."""

from collections.abc import Callable
from typing import Any

from duly._ground.clock import Clock, SystemClock
from duly._ground.entropy import Entropy, SystemEntropy
from duly._model.event import Observer
from duly._store.open import make_store
from duly._store.port import Lease
from duly._work.lease import Keeper, LeaseKeeper

__all__ = ["Parts"]


class Parts:
    """What an app is made of besides its functions. Surfaces and tests replace some of it.

    Args:
        clock: The door to time.
        entropy: The door to chance.
        observer: Told what happened, after each commit.
        strict: Whether a mutation that waits for the world is an error rather than a warning (rule T3).
        store: Makes the store from the database URL.
        keep: Makes what renews a worker's lease.
        tracer_provider: Of OpenTelemetry; default: the one that the program has set up, if it has.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        observer: Observer | None = None,
        *,
        strict: bool = False,
        store: Any = make_store,
        keep: Callable[[Lease, float], Keeper] = LeaseKeeper,
        tracer_provider: Any = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.entropy = entropy or SystemEntropy()
        self.observer = observer
        self.strict = strict
        self.make_store = store
        self.keep = keep
        self.tracer_provider = tracer_provider
