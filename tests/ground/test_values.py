"""Values are written as JSON and read back exactly; what is no value is refused, and where it is is said."""

import dataclasses
import json
import math
from collections import OrderedDict, UserString, defaultdict
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_jsonable_python

from duly._ground.ids import Id
from duly._ground.values import DEPTH_MAX, Int64, decode, encode, normalize
from duly.errors import InvalidValueError, LimitError
from tests.ground.strategies import INT_MAX, INT_MIN, keys, scalars, values


@dataclasses.dataclass
class Opaque:
    """Pydantic looks inside."""

    content: object


def same(one: Any, two: Any) -> bool:
    """Equal to the last bit: 1 is not 1.0, 0.0 is not -0.0, NaN is NaN, and the order of keys counts."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(two)) or (one == two and math.copysign(1, one) == math.copysign(1, two))
    if isinstance(one, list):
        return len(one) == len(two) and all(same(*pair) for pair in zip(one, two, strict=True))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    return bool(one == two)


@given(values)
def test_a_value_is_read_back_exactly(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(values)
def test_it_is_written_as_json_of_one_line(value: Any) -> None:
    text = encode(value)
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert "\n" not in text


@given(values)
def test_normalizing_changes_nothing_that_is_a_value_already(value: Any) -> None:
    assert same(normalize(value), value)
    assert encode(normalize(value)) == encode(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1.0"),
        (-0.0, '{"$float":"-0.0"}'),
        (math.nan, '{"$float":"NaN"}'),
        (math.inf, '{"$float":"Infinity"}'),
        (-math.inf, '{"$float":"-Infinity"}'),
        (b"hi", '{"$bytes":"aGk="}'),
        (Int64(7), '{"$int64":"7"}'),
        (True, "true"),
        (None, "null"),
        ("Zoë", '"Zoë"'),
        ({"a": [1, {"b": b""}]}, '{"a":[1,{"b":{"$bytes":""}}]}'),
    ],
)
def test_it_is_written_so_that_a_person_can_read_it(value: Any, text: str) -> None:
    assert encode(value) == text


def test_what_looks_like_an_escape_in_a_string_is_a_string() -> None:
    value = {"text": '{"$bytes":"aGk="}', "list": ['{"$', "$float"]}
    assert decode(encode(value)) == value


@pytest.mark.parametrize("number", [INT_MIN, INT_MAX, (1 << 53) + 1, -(1 << 53) - 1])
def test_large_ints_are_exact(number: int) -> None:
    assert decode(encode([number, Int64(number)])) == [number, number]


@pytest.mark.parametrize("number", [INT_MAX + 1, INT_MIN - 1, 1 << 64, -(1 << 64), 1 << 20_000], ids=int.bit_length)
@pytest.mark.parametrize("wrap", [lambda n: n, Int64])
def test_an_int_beyond_64_bits_is_refused(number: int, wrap: Any) -> None:
    with pytest.raises(InvalidValueError, match="64 bits") as caught:
        encode({"a": [wrap(number)]})
    assert caught.value.where == "a[0]"


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83c\udf75", "é\udc80"])
def test_a_lone_surrogate_is_refused_in_text_and_keys(text: str) -> None:
    with pytest.raises(InvalidValueError, match="surrogate") as caught:
        encode({"a": {"b": text}})
    assert caught.value.where == "a.b"
    with pytest.raises(InvalidValueError, match="surrogate"):
        encode({"x" + text: 1})


@given(keys, st.sampled_from("_$"), scalars)
def test_a_key_that_begins_with_a_reserved_character_is_refused(key: str, first: str, value: Any) -> None:
    with pytest.raises(InvalidValueError, match="reserved") as caught:
        encode({"a": [{"fine": 1, first + key: value}]})
    assert caught.value.where == "a[0]"


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"k", ("a",), UserString("k")])
def test_a_key_that_is_no_string_is_refused(key: Any) -> None:
    with pytest.raises(InvalidValueError, match="is no str"):
        encode({"a": {key: 1}})


@pytest.mark.parametrize("value", [object(), {1}, 1j, date(2026, 1, 1), Exception("x"), len, range(3)])
def test_what_is_no_value_is_refused_and_named(value: Any) -> None:
    with pytest.raises(InvalidValueError, match=type(value).__name__) as caught:
        encode({"rows": [0, {"cell": value}]})
    assert caught.value.where == "rows[1].cell"


@pytest.mark.parametrize("value", [{object()}, Opaque(object()), Opaque(b"\xff")])
def test_what_can_not_be_converted_is_refused_and_named(value: object) -> None:
    with pytest.raises(InvalidValueError) as caught:
        encode({"rows": [0, {"cell": value}]}, to_jsonable_python)
    assert caught.value.where.startswith("rows[1].cell")


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: (value,)])
def test_sixteen_levels_are_fine_and_seventeen_are_not(wrap: Any) -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = wrap(value)
    encode(value)
    with pytest.raises(LimitError) as caught:
        encode(wrap(value))
    assert (caught.value.actual, caught.value.maximum) == (DEPTH_MAX + 1, DEPTH_MAX)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(LimitError):
        encode(value)
    with pytest.raises(LimitError):
        encode(value, to_jsonable_python)


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Point(NamedTuple):
    x: float
    y: Any


class Name(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, (2,)), [1, [2]]),
        (Color.RED, "red"),
        (Size.LARGE, 3),
        (Name("é"), "é"),
        (Number(5), 5),
        (Real(-0.0), -0.0),
        (Real("nan"), math.nan),
        (Id("abc"), "abc"),
        (bytearray(b"\xff"), b"\xff"),
        (memoryview(b"\xff"), b"\xff"),
        (Point(1.0, b"\xff"), [1.0, b"\xff"]),
        (OrderedDict(a=b"\xff", b=Int64(1)), {"a": b"\xff", "b": Int64(1)}),
        ({b"\xff"}, [b"\xff"]),
        (frozenset([Int64(1)]), [Int64(1)]),
        (Opaque((1, None)), {"content": [1, None]}),
        (defaultdict(list, {"a": [math.nan]}), {"a": [math.nan]}),
        ({Name("k"): 1}, {"k": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_is_stored_as_what_it_is_at_heart(value: Any, plain: Any) -> None:
    assert same(normalize({"v": value}, to_jsonable_python), {"v": plain})
