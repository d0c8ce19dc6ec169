"""Times as people read them."""

from datetime import datetime

from duly._ground.clock import datetime_of

__all__ = ["clock_time", "duration", "full_time", "moment", "relative_time"]

_UNITS = [("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)]


def duration(ms: float) -> str:
    """How long: `0.8 ms`, `120 ms`, `1.4 s`, `2 min 5 s`, `3 days 4 h`."""
    if ms < 10:
        return f"{max(ms, 0):.1f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 10_000:
        return f"{ms / 1_000:.1f}".removesuffix(".0") + " s"
    return _in_units(ms, 2)


def relative_time(at_ms: float, now_ms: float) -> str:
    """How far away: `in 7 days`, `2 min ago`, `now`."""
    away = at_ms - now_ms
    if abs(away) < 1_000:
        return "now"
    # A moment after scheduling something for in seven days it is still in 7 days, not in 6 days 23 h.
    text = _in_units(abs(away) + 500, 1)
    return f"in {text}" if away > 0 else f"{text} ago"


def _in_units(ms: float, units_max: int) -> str:
    for index, (unit, length) in enumerate(_UNITS):
        if ms < length:
            continue
        count, rest = divmod(ms, length)
        if units_max == 1 and index < len(_UNITS) - 1:
            count = round(ms / length)
        text = f"{count:.0f} {unit}{'s' if unit == 'day' and count != 1 else ''}"
        if units_max > 1 and index < len(_UNITS) - 1:
            smaller, small_length = _UNITS[index + 1]
            if small := rest // small_length:
                text += f" {small:.0f} {smaller}"
        return text
    return f"{ms:.0f} ms"


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
