"""Ids sort by table and creation, carry their time, and know when they are mistyped."""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from duly._ground.entropy import SystemEntropy
from duly._ground.ids import ID_HIGHEST, Id, IdMaker, SharedIdMaker, check_id, creation_time_of, first_id_at, table_tag
from duly.errors import InvalidIdError
from tests.ground.strategies import TIMES_US

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TABLES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)


def make(table: str, time_us: int) -> str:
    return IdMaker(SystemEntropy()).make(table_tag(table), time_us / 1_000)


@given(TABLES, TIMES_US)
def test_an_id_carries_its_table_and_its_time(table: str, time_us: int) -> None:
    id = make(table, time_us)
    assert len(id) == 32
    assert set(id) <= set(ALPHABET)
    assert check_id(id) == table_tag(table) == id[:5]
    assert creation_time_of(id) == time_us / 1_000


@given(TABLES, TIMES_US, TIMES_US)
def test_ids_of_a_table_sort_by_time(table: str, one: int, two: int) -> None:
    first, second = make(table, one), make(table, two)
    if one != two:
        assert (first < second) == (one < two)
    assert first != second
    assert max(first, second) < table_tag(table) + ID_HIGHEST


@given(TABLES, TABLES, TIMES_US, TIMES_US)
def test_ids_of_different_tables_do_not_mix(one: str, two: str, time_one: int, time_two: int) -> None:
    tag_one, tag_two = table_tag(one), table_tag(two)
    if tag_one < tag_two:
        assert make(one, time_one) < tag_one + ID_HIGHEST < make(two, time_two)


@given(st.lists(st.integers(-10, 10), min_size=2, max_size=60), TIMES_US)
def test_each_id_of_a_maker_is_greater_than_the_one_before(steps: list[int], start: int) -> None:
    time_us = start  # of a clock that is set back, stands still and runs on
    maker = IdMaker(SystemEntropy())
    ids: list[str] = []
    for step in steps:
        time_us = max(time_us + step, 1)
        ids.append(maker.make(table_tag("orders"), time_us / 1_000))
    assert ids == sorted(set(ids))
    times = [creation_time_of(id) for id in ids]
    assert times == sorted(set(times)), "and no two have the same creation time"


@given(TABLES, TIMES_US, TIMES_US)
def test_a_bound_of_time_parts_the_ids_before_from_those_at_or_after(table: str, made: int, bound: int) -> None:
    assert (make(table, made) > first_id_at(table_tag(table), bound)) == (made >= bound)


@pytest.mark.parametrize("time_us", [-1, -(10**30), 0])
def test_a_bound_before_all_time_is_before_all_ids(time_us: int) -> None:
    assert table_tag("orders") < first_id_at(table_tag("orders"), time_us) < make("orders", 1)


@pytest.mark.parametrize("time_us", [1 << 55, 10**30])
def test_a_bound_after_all_time_is_after_all_ids(time_us: int) -> None:
    assert make("orders", (1 << 55) - 2) < first_id_at(table_tag("orders"), time_us) < table_tag("orders") + ID_HIGHEST


# --- mistyped -------------------------------------------------------------------------------------------------------


@given(TABLES, TIMES_US)
def test_every_single_wrong_character_is_noticed(table: str, time_us: int) -> None:
    id = make(table, time_us)
    for place, right in enumerate(id):
        for wrong in ALPHABET:
            if wrong != right:
                with pytest.raises(InvalidIdError, match="check digits"):
                    check_id(id[:place] + wrong + id[place + 1 :])


@given(TABLES, TIMES_US)
def test_two_neighbours_swapped_are_noticed(table: str, time_us: int) -> None:
    id = make(table, time_us)
    for place in range(len(id) - 1):
        swapped = id[:place] + id[place + 1] + id[place] + id[place + 2 :]
        if swapped != id:
            with pytest.raises(InvalidIdError):
                check_id(swapped)


@given(st.text(max_size=40))
def test_other_text_is_no_id(text: str) -> None:
    with pytest.raises(InvalidIdError) as caught:
        check_id(text)
    assert caught.value.id == text


@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        lambda id: id[:-1],
        lambda id: id + "0",
        lambda id: " " + id[1:],
        lambda id: id[:-1] + "\n",
        lambda id: "",
    ],
)
def test_an_id_in_another_shape_is_no_id(spoil: Callable[[str], str]) -> None:
    with pytest.raises(InvalidIdError, match="32 lower-case"):
        check_id(spoil(make("orders", 1_800_000_000_000_000)))


@pytest.mark.parametrize("value", [None, 7, 1.5, b"a" * 32, ["a"], object()])
def test_what_is_no_string_is_no_id(value: object) -> None:
    with pytest.raises(InvalidIdError, match=type(value).__name__):
        check_id(value)


def test_ids_of_one_moment_have_little_in_common() -> None:
    # 73 bits of chance: among a thousand ids of one microsecond every character of that part takes every value.
    ids = [make("orders", 1_800_000_000_000_000) for _ in range(1_000)]
    assert len(set(ids)) == len(ids)
    for place in range(17, 30):
        assert {id[place] for id in ids} == set(ALPHABET), place


# --- as an annotation -----------------------------------------------------------------------------------------------


class Order: ...


class User: ...


TAGS: dict[Any, frozenset[str]] = {Order: frozenset([table_tag("orders")]), User: frozenset([table_tag("users")])}


@dataclasses.dataclass
class Mention:
    order: Id[Order]


def test_an_id_of_the_annotated_table_is_taken_as_an_id() -> None:
    id = make("orders", 1_800_000_000_000_000)
    taken = TypeAdapter[Any](Id[Order]).validate_python(str(id), context=TAGS)
    assert taken == id
    assert type(taken) is Id


@pytest.mark.parametrize("annotation", [Id[Order], Annotated[Id[Order], "x"], Id[Order] | None, list[Id[Order]]])
def test_an_id_of_another_table_is_refused(annotation: Any) -> None:
    adapter = TypeAdapter[Any](annotation)
    id: Any = make("users", 1_800_000_000_000_000)
    value = [id] if annotation == list[Id[Order]] else id
    with pytest.raises(ValidationError, match="another table, not of Order"):
        adapter.validate_python(value, context=TAGS)


def test_it_is_checked_wherever_it_stands() -> None:
    adapter = TypeAdapter(Mention)
    order, user = make("orders", 1_800_000_000_000_000), make("users", 1_800_000_000_000_000)
    assert adapter.validate_python({"order": order}, context=TAGS) == Mention(Id(order))
    with pytest.raises(ValidationError, match="another table"):
        adapter.validate_python({"order": user}, context=TAGS)


@pytest.mark.parametrize("annotation", [Id, Id[Any], Id[str], Id[dict[str, Any]]])
def test_an_id_of_no_table_in_particular_is_checked_for_its_form(annotation: Any) -> None:
    adapter = TypeAdapter[Any](annotation)
    id = make("users", 1_800_000_000_000_000)
    assert adapter.validate_python(id, context=TAGS) == id
    with pytest.raises(ValidationError, match="is no id"):
        adapter.validate_python("not-an-id", context=TAGS)


def test_a_forked_child_makes_ids_of_its_own() -> None:
    """Chance that the parent has drawn beforehand is not used by both."""
    maker = IdMaker(SystemEntropy())
    maker.make(table_tag("orders"), 1.0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, maker.make(table_tag("orders"), 2.0).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reading, 64).decode(), maker.make(table_tag("orders"), 2.0)
    os.close(reading)
    os.close(writing)
    assert theirs[:16] == ours[:16]
    assert theirs != ours


def test_threads_that_share_a_maker_get_ids_of_their_own() -> None:
    maker, tag, made = SharedIdMaker(SystemEntropy()), table_tag("orders"), list[str]()

    def make_many() -> None:
        made.extend([maker.make(tag, 1.0) for _ in range(3_000)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=make_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(made) == 12_000
    assert {check_id(id) for id in made} == {tag}
    assert len({id[:16] for id in made}) == len({id[16:30] for id in made}) == 12_000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_a_thread_makes_an_id_can_make_one() -> None:
    maker = SharedIdMaker(SystemEntropy())
    with maker._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            maker.make(table_tag("orders"), 1.0)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
