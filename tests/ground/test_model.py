"""Pure decisions: how long to wait after a failure, and which moves a job may make (rule M3, the states)."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duly._model.backoff import CONFLICT, FAULT, OUTAGE, Backoff
from duly._model.job import FINISHED, MOVES, JobKind, JobState, check_move

KINDS: tuple[JobKind, ...] = get_args(JobKind)
STATES: tuple[JobState, ...] = get_args(JobState)

CHANCE = st.floats(0, 1, exclude_max=True)
BACKOFFS = st.sampled_from([CONFLICT, FAULT, OUTAGE])


@given(BACKOFFS, st.integers(1, 100_000), CHANCE)
def test_M3_a_wait_is_between_nothing_and_the_cap(backoff: Backoff, failures: int, chance: float) -> None:
    assert 0 <= backoff.delay_ms(failures, chance) <= backoff.maximum_ms


@given(BACKOFFS, st.integers(1, 60), CHANCE)
def test_M3_the_cap_of_a_wait_doubles_until_its_maximum(backoff: Backoff, failures: int, chance: float) -> None:
    cap = min(backoff.initial_ms * 2 ** (failures - 1), backoff.maximum_ms)
    assert backoff.delay_ms(failures, chance) == pytest.approx(chance * cap)


@given(BACKOFFS, st.integers(1, 200))
def test_M3_who_failed_together_does_not_come_back_together(backoff: Backoff, failures: int) -> None:
    waits = [backoff.delay_ms(failures, step / 10) for step in range(10)]
    assert waits == sorted(set(waits))
    assert waits[0] == 0


def test_M3_the_waits_are_those_of_the_design() -> None:
    assert (CONFLICT.initial_ms, CONFLICT.maximum_ms) == (100, 60_000)
    assert (FAULT.initial_ms, FAULT.maximum_ms) == (500, 2 * 60 * 60 * 1_000)


# --- the states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_every_move_is_allowed_or_refused(kind: JobKind, before: JobState, after: JobState) -> None:
    allowed = {
        # A mutation is never in progress: its effects and its success are one commit (rule M1).
        "mutation": {"pending": {"success", "failed", "canceled"}},
        # An action that never began can't have succeeded.
        "action": {
            "pending": {"inProgress", "failed", "canceled"},
            "inProgress": {"success", "failed", "canceled"},
        },
    }[kind]
    if after in allowed.get(before, ()):
        check_move(kind, before, after)
    else:
        with pytest.raises(AssertionError):
            check_move(kind, before, after)


@pytest.mark.parametrize("kind", KINDS)
def test_finished_is_where_no_move_leads_on(kind: JobKind) -> None:
    leaving = {before for before, _ in MOVES[kind]}
    reached = {after for _, after in MOVES[kind]}
    assert leaving.isdisjoint(FINISHED)
    assert reached >= FINISHED
    assert reached - leaving == FINISHED


@pytest.mark.parametrize("kind", KINDS)
def test_every_job_can_finish_in_every_way_and_nothing_goes_round(kind: JobKind) -> None:
    def ends(state: JobState, passed: tuple[JobState, ...] = ()) -> set[JobState]:
        assert state not in passed, "a circle"
        onward: list[JobState] = [after for before, after in MOVES[kind] if before == state]
        found: set[JobState] = set() if onward else {state}
        for after in onward:
            found |= ends(after, (*passed, state))
        return found

    assert ends("pending") == FINISHED
