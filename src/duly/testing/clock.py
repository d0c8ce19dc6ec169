"""Time that stands still until a test moves it."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

from duly._ground.clock import Timer

__all__ = ["VirtualClock"]


class _Alarm:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A `Clock` that is moved by hand, from alarm to alarm.

    Args:
        start_ms: What time it is at first, in milliseconds since the Unix epoch.
    """

    # Nobody sets this clock behind a sleeper's back.
    nap_s = float("inf")

    def __init__(self, start_ms: float) -> None:
        self._start_ms = start_ms
        self._now_ms = start_ms
        self._numbers = itertools.count()
        self._alarms: list[tuple[float, int, _Alarm]] = []

    def now_ms(self) -> float:
        return self._now_ms

    def monotonic(self) -> float:
        return (self._now_ms - self._start_ms) / 1_000

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        alarm = _Alarm(callback)
        heapq.heappush(self._alarms, (self._now_ms + max(seconds, 0.0) * 1_000, next(self._numbers), alarm))
        return alarm

    def next_alarm_ms(self) -> float | None:
        """When the next alarm rings, if there is one."""
        while self._alarms and self._alarms[0][2].callback is None:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def move_to(self, ms: float) -> bool:
        """Moves time forward; rings the alarms up to then, each at its moment. Whether there were any."""
        rang = False
        while (at := self.next_alarm_ms()) is not None and at <= ms:
            _, _, alarm = heapq.heappop(self._alarms)
            self._now_ms = max(self._now_ms, at)
            if alarm.callback is not None:
                alarm.callback()
                rang = True
        self._now_ms = max(self._now_ms, ms)
        return rang
