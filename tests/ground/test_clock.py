"""Milliseconds and datetimes, to the microsecond and back."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from duly._ground.clock import SystemClock, datetime_of, milliseconds_of
from duly._ground.entropy import SystemEntropy

MOMENTS = st.datetimes(
    min_value=datetime(1900, 1, 1),  # noqa: DTZ001
    max_value=datetime(2109, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC) | st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(MOMENTS)
def test_a_moment_becomes_milliseconds_and_the_same_moment_again(moment: datetime) -> None:
    again = datetime_of(milliseconds_of(moment))
    assert again == moment
    assert again.tzinfo is UTC


@given(st.integers(-2_000_000_000_000_000, 4_000_000_000_000_000))
def test_milliseconds_become_a_moment_and_the_same_milliseconds_again(us: int) -> None:
    assert milliseconds_of(datetime_of(us / 1_000)) == us / 1_000


@given(MOMENTS, MOMENTS)
def test_the_order_stays(one: datetime, two: datetime) -> None:
    assert (milliseconds_of(one) < milliseconds_of(two)) == (one < two)


def test_the_clock_gives_whole_microseconds_that_agree_with_the_calendar() -> None:
    clock = SystemClock()
    now = clock.now_ms()
    assert round(now * 1_000) / 1_000 == now
    assert abs(datetime_of(now) - datetime.now(UTC)) < timedelta(seconds=5)
    assert clock.monotonic() <= clock.monotonic()


def test_chance_is_of_the_asked_size_and_never_twice() -> None:
    entropy = SystemEntropy()
    assert len(entropy.token(10)) == 10
    assert entropy.token(16) != entropy.token(16)
    assert all(0 <= entropy.uniform() < 1 for _ in range(100))
    assert entropy.generator().random() != entropy.generator().random()
