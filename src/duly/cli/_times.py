"""Times as people read them."""

from datetime import datetime
from itertools import pairwise

from duly._ground.clock import datetime_of

__all__ = ["clock_time", "duration", "full_time", "moment", "relative_time"]

_UNITS = [("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)]
"""The units, longest first, in milliseconds."""


def duration(ms: float) -> str:
    """How long: `0.8 ms`, `120 ms`, `1.4 s`, `2 min 5 s`, `3 days 4 h`."""
    if ms < 10:
        return f"{max(ms, 0):.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 10_000:
        return f"{ms / 1_000:.1f}".removesuffix(".0") + " s"
    for (unit, length), (smaller, smaller_length) in pairwise(_UNITS):
        if ms >= length:
            rest = ms % length // smaller_length
            return _count(ms // length, unit) + (f" {_count(rest, smaller)}" if rest else "")
    return _count(ms // 1_000, "s")


def relative_time(at_ms: float, now_ms: float) -> str:
    """How far away: `in 7 days`, `2 min ago`, `now`."""
    away = at_ms - now_ms
    if abs(away) < 1_000:
        return "now"
    text = _count(abs(away) // 1_000, "s")
    for (unit, length), (_, smaller_length) in pairwise(_UNITS):
        # A second after something was scheduled for in seven days it is still in 7 days, not in 6.
        about = abs(away) + smaller_length / 2
        if about >= length:
            text = _count(about // length, unit)
            break
    return f"in {text}" if away > 0 else f"{text} ago"


def _count(number: float, unit: str) -> str:
    return f"{number:.0f} {unit}{'s' if unit == 'day' and number != 1 else ''}"


def moment(at_ms: float, now_ms: float) -> str:
    """When, in local time and as short as today allows: `14:03:07`, `18 May 14:03`, `18 May 2031`."""
    at, now = _local(at_ms), _local(now_ms)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}"
    return f"{at.day} {at:%b %H:%M}" if at.year == now.year else f"{at.day} {at:%b %Y}"


def full_time(at_ms: float) -> str:
    """When, in full: `2026-05-11 14:03:07.123 +02:00`."""
    return _local(at_ms).isoformat(" ", "milliseconds").replace("+", " +")


def clock_time(at_ms: float) -> str:
    """The time of day: `14:03:07.123`."""
    return f"{_local(at_ms).isoformat(timespec='milliseconds')[11:23]}"


def _local(at_ms: float) -> datetime:
    return datetime_of(at_ms).astimezone()
