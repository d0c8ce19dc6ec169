"""What time it is at the database: the one clock that all workers share."""

from collections.abc import Callable

from duly._ground.clock import Clock, Timer

__all__ = ["DatabaseClock"]


class DatabaseClock:
    """Our own clock, and how far it is off. May be told from any thread.

    Args:
        clock: The machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms = 0.0
        self.nap_s = clock.nap_s
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep

    def now_ms(self) -> float:
        return self._clock.now_ms() + self._offset_ms

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self._clock.call_later(seconds, callback)

    def own_ms(self) -> float:
        """What our own clock says."""
        return self._clock.now_ms()

    def learn(self, asked_ms: float, database_ms: float, answered_ms: float) -> None:
        """Takes a reading of the database's clock, between two of our own.

        It was made somewhere between the two. What we knew is kept if it agrees with that: time is not to jitter.
        """
        low, high = database_ms - answered_ms, database_ms - asked_ms
        if not low <= self._offset_ms <= high:
            self._offset_ms = round((low + high) / 2, 3)
