"""The one door to time. Everything above takes a `Clock`; ruff bans the rest."""

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer", "datetime_of", "milliseconds_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Timer(Protocol):
    """What `Clock.call_later` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall time for people and due times; monotonic time for durations; sleeping by the latter."""

    nap_s: float
    """The longest sleep after which the wall clock is looked at again, in case it was set or the machine slept."""

    def now_ms(self) -> float:
        """Milliseconds since the Unix epoch, in whole microseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds from an unspecified start. Never goes back."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer: ...


class SystemClock:
    """The machine's clock."""

    nap_s = 30.0

    def now_ms(self) -> float:
        return time.time_ns() // 1_000 / 1_000

    # Asked many times in each transaction.
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


def datetime_of(ms: float) -> datetime:
    """The aware UTC datetime of milliseconds since the epoch, to the microsecond (until 2109: so far a float goes)."""
    whole = math.floor(ms)
    return _EPOCH + timedelta(milliseconds=whole, microseconds=round((ms - whole) * 1_000))


def milliseconds_of(moment: datetime) -> float:
    """Milliseconds since the epoch of an aware datetime, to the microsecond."""
    return (moment - _EPOCH) // timedelta(microseconds=1) / 1_000
