"""Index keys: the order of the bytes is the order of the values, by a comparison written without them."""

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duly._ground.keys import ABSENT, KEY_AFTER, encode_key
from duly._model.ranges import Range, gt, gte, key_bounds, lt, lte
from tests.ground.strategies import INT_MAX, INT_MIN, numbers, values

fields = values | st.just(ABSENT)


# --- the order, written down a second time --------------------------------------------------------------------------


def compare(one: Any, two: Any) -> int:
    kinds = kind_of(one), kind_of(two)
    if kinds[0] != kinds[1]:
        return sign(kinds[0], kinds[1])
    match kinds[0]:
        case "2 number":
            return compare_numbers(one, two)
        case "6 list":
            return compare_lists(one, two)
        case "7 dict":
            return compare_lists(items_of(one), items_of(two))
        case "4 str":
            return sign([ord(letter) for letter in one], [ord(letter) for letter in two])
        case "5 bytes" | "3 bool":
            return sign(one, two)
        case _:
            return 0


def kind_of(value: Any) -> str:
    for kind, types in {
        "0 absent": type(ABSENT),
        "1 None": type(None),
        "3 bool": bool,  # before the numbers, of which Python thinks it is one
        "2 number": (int, float),
        "4 str": str,
        "5 bytes": bytes,
        "6 list": list,
        "7 dict": dict,
    }.items():
        if isinstance(value, types):
            return kind
    raise AssertionError(value)


def compare_numbers(one: float, two: float) -> int:
    def exact(number: float) -> tuple[int, Fraction]:
        if math.isnan(number):
            return 2, Fraction(0)
        if math.isinf(number):
            return (1 if number > 0 else -1), Fraction(0)
        return 0, Fraction(number)

    return sign(exact(one), exact(two))


def compare_lists(one: Sequence[Any], two: Sequence[Any]) -> int:
    for pair in zip(one, two, strict=False):
        if order := compare(*pair):
            return order
    return sign(len(one), len(two))


def items_of(document: dict[str, Any]) -> list[Any]:
    return [part for key in sorted(document) for part in (key, document[key])]


def sign(one: Any, two: Any) -> int:
    return int(one > two) - int(one < two)


# --- the properties -------------------------------------------------------------------------------------------------


@given(fields, fields)
def test_keys_order_as_values_do(one: Any, two: Any) -> None:
    assert sign(encode_key([one]), encode_key([two])) == compare(one, two)


@given(numbers, numbers)
@example(1, 1.0)
@example(0.0, -0.0)
@example((1 << 53) + 1, float(1 << 53))
@example(INT_MAX, 2.0**63)
@example(INT_MIN, -(2.0**63))
@example(math.nan, math.inf)
@example(5e-324, 0)
def test_ints_and_floats_are_compared_exactly(one: float, two: float) -> None:
    assert sign(encode_key([one]), encode_key([two])) == compare_numbers(one, two)


@pytest.mark.parametrize("power", range(52, 64))
@pytest.mark.parametrize("side", [1, -1])
def test_around_a_power_of_two_each_number_has_its_place(power: int, side: int) -> None:
    around = [side * (1 << power) + offset for offset in range(-1_030, 1_031)]
    ints = [number for number in around if INT_MIN <= number <= INT_MAX]
    both: list[float] = [*ints, *{float(number) for number in ints}]
    found = sorted(both, key=lambda number: encode_key([number]))
    assert [Fraction(number) for number in found] == sorted(Fraction(number) for number in both)
    assert len({encode_key([number]) for number in ints}) == len(ints)


@given(st.lists(fields, min_size=1, max_size=3), st.lists(fields, min_size=1, max_size=3))
def test_fields_order_one_after_the_other(one: list[Any], two: list[Any]) -> None:
    """As many of them as both have: no key of one value runs into the next."""
    length = min(len(one), len(two))
    one, two = one[:length], two[:length]
    assert sign(encode_key(one), encode_key(two)) == compare_lists(one, two)


@given(fields, fields, st.binary(max_size=3))
def test_no_key_begins_with_another(one: Any, two: Any, rest: bytes) -> None:
    if compare(one, two):
        assert not (encode_key([one]) + rest).startswith(encode_key([two]) + rest)
        assert not encode_key([one]).startswith(encode_key([two]))


@given(fields, fields, fields)
def test_the_end_of_a_key_is_after_all_that_begins_with_it_and_before_all_that_follows(
    one: Any, two: Any, three: Any
) -> None:
    key = encode_key([one])
    assert encode_key([one, two]) < key + KEY_AFTER
    if compare(one, three) < 0:
        assert key + KEY_AFTER < encode_key([three])


@given(st.lists(fields, max_size=12))
def test_sorting_by_key_is_sorting_by_value(row: list[Any]) -> None:
    by_key = sorted(row, key=lambda value: encode_key([value]))
    by_value = sorted(row, key=cmp_to_key(compare))
    assert all(compare(*pair) == 0 for pair in zip(by_key, by_value, strict=True))


def test_the_kinds_order_as_the_design_says() -> None:
    order = [
        ABSENT,
        None,
        -math.inf,
        -1,
        0,
        0.5,
        1,
        math.inf,
        math.nan,
        False,
        True,
        "",
        "a",
        b"",
        b"a",
        [],
        [0],
        {},
        {"a": 1},
    ]
    shuffled = order[7:] + order[:7]
    assert sorted(shuffled, key=lambda value: encode_key([value])) == order


# --- ranges ---------------------------------------------------------------------------------------------------------


@given(values, values, values, st.booleans(), st.booleans())
def test_a_range_holds_what_is_between_its_bounds(
    low: Any, high: Any, value: Any, from_low: bool, to_high: bool
) -> None:
    between = (gte if from_low else gt)(low) & (lte if to_high else lt)(high)
    start, end = key_bounds(["prefix"], between)
    above = compare(value, low) > 0 or (from_low and compare(value, low) == 0)
    below = compare(value, high) < 0 or (to_high and compare(value, high) == 0)
    for key in (encode_key(["prefix", value]), encode_key(["prefix", value, "more"])):
        assert (start <= key < end) == (above and below)


@given(fields, fields)
def test_no_range_holds_all_that_begins_with_the_prefix_and_nothing_else(one: Any, two: Any) -> None:
    start, end = key_bounds([one], Range())
    assert (start <= encode_key([two, 1]) < end) == (compare(one, two) == 0)


def test_a_range_has_two_bounds_at_most() -> None:
    for one, two in ((gt(1), gte(2)), (lt(1), lte(2)), (gt(1) & lt(2), lt(3))):
        with pytest.raises(TypeError, match="at most one"):
            operator.and_(one, two)
    with pytest.raises(TypeError):
        operator.and_(gt(1), 5)
