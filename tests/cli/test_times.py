"""Times as people read them."""

import pytest

from duly.cli._times import duration, relative_time

DAY = 86_400_000.0


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.0, "0.0 ms"),
        (0.84, "0.8 ms"),
        (120.4, "120 ms"),
        (1_000.0, "1 s"),
        (1_449.0, "1.4 s"),
        (30_000.0, "30 s"),
        (125_000.0, "2 min 5 s"),
        (3_600_000.0, "1 h"),
        (3 * DAY + 4 * 3_600_000, "3 days 4 h"),
    ],
)
def test_a_duration_has_two_units_at_most(ms: float, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("away_ms", "text"),
    [
        (0.0, "now"),
        (-999.0, "now"),
        (5_000.0, "in 5 s"),
        (-61_000.0, "1 min ago"),
        (59_700.0, "in 1 min"),
        (7 * DAY - 2_000, "in 7 days"),
        (DAY, "in 1 day"),
        (-36 * 3_600_000.0, "1 day ago"),
        (23.7 * 3_600_000, "in 1 day"),
        (1_830 * DAY, "in 1830 days"),
    ],
)
def test_a_time_is_told_by_how_far_away_it_is(away_ms: float, text: str) -> None:
    now_ms = 1_800_000_000_000.0
    assert relative_time(now_ms + away_ms, now_ms) == text
