"""Values at the border: every row of docs/values.md, and round trips of whatever else there is."""

import itertools
import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field

import duly
from duly._model.signature import Signature
from duly.errors import ArgumentError, InvalidValueError, LimitError, ReturnValueError
from duly.server.values import decode, encode
from tests.ground.strategies import blobs, floats, texts
from tests.ground.strategies import ints as ints_of_64_bits

PAGE = Path(__file__).parent.parent.parent / "docs" / "values.md"

orders = duly.Table("orders")


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Order(TypedDict):
    items: list[str]
    count: int


@dataclass
class Point:
    x: int
    y: float


class Line(BaseModel):
    item_name: str = Field(alias="itemName")
    count: int = 0


class Aliased(TypedDict):
    item_name: Annotated[str, Field(alias="itemName")]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: date
    count: int


NAMES: dict[str, Any] = {
    **{cls.__name__: cls for cls in (Aliased, Color, Size, Order, Point, Line, Strict, Decimal, UUID, SecretStr)},
    **{cls.__name__: cls for cls in (date, datetime, time, timedelta)},
    "Any": Any,
    "Literal": Literal,
    "UTC": UTC,
    "duly": duly,
}
TAGS = {Order: frozenset([orders.tag])}


def rows(*columns: str) -> list[Any]:
    """The cells of the table of the page that has these columns."""
    lines = PAGE.read_text().splitlines()
    first = lines.index(f"| {' | '.join(columns)} |") + 2
    found = []
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[first:]):
        cells = [cell.strip() for cell in line.replace("\\|", "¦").strip("|").split(" | ")]
        assert len(cells) == len(columns), line
        found.append(pytest.param(*map(_code, cells), id=" ".join(cells).replace("¦", "|")))
    return found


def _code(cell: str) -> str:
    """What stands in backquotes, without the words beside it."""
    return cell.split("`")[1].replace("¦", "|") if "`" in cell else cell


def signature_of(annotation: str) -> Signature:
    """That of a function which takes and returns this."""

    async def function(ctx: object, value: object) -> object: ...

    kind = eval(annotation, NAMES)
    function.__annotations__ = {"value": kind, "return": kind}
    return Signature("page:function", function)


def received(signature: Signature, message: str) -> Any:
    return signature.receive(decode(orjson.loads(f'{{"value": {message}}}')), TAGS)["value"]


def returned(signature: Signature, value: Any, format: Any = "convex_encoded_json") -> str:
    return encode(signature.show_return(signature.check_return(value, TAGS)), format)


def same(one: Any, two: Any) -> bool:
    """Equal to the last bit: 1 is not 1.0, -0.0 is not 0.0, NaN is NaN, a `duly.Int64` is no int."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(two)) or (one == two and math.copysign(1, one) == math.copysign(1, two))
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(*pair) for pair in zip(one, two, strict=True))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return bool(one == two)


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "python", "_javascript", "message"), rows("annotation", "Python", "JavaScript", "in a message")
)
def test_a_value_arrives_and_goes_back_as_the_page_says(
    annotation: str, python: str, _javascript: str, message: str
) -> None:
    signature = signature_of(annotation)
    value = eval(python, NAMES)
    arrived = received(signature, message)
    assert str(arrived) == value if annotation.startswith("duly.Id") else same(arrived, value)
    assert returned(signature, value) == orjson.dumps(json.loads(message)).decode()


def test_a_number_without_annotation_stays_a_float() -> None:
    async def function(ctx, value): ...  # type: ignore[no-untyped-def]

    signature = Signature("page:function", function)
    assert same(received(signature, "3"), 3.0)
    assert returned(signature, 3) == "3.0"


@pytest.mark.parametrize(("annotation", "message", "python"), rows("annotation", "in a message", "Python"))
def test_what_else_the_page_names_is_taken(annotation: str, message: str, python: str) -> None:
    assert same(received(signature_of(annotation), message), eval(python, NAMES))


@pytest.mark.parametrize(("annotation", "message", "_why"), rows("annotation", "in a message", "why"))
def test_arguments_are_refused_as_the_page_says(annotation: str, message: str, _why: str) -> None:
    signature = signature_of(annotation)
    with pytest.raises((ArgumentError, InvalidValueError)):
        received(signature, message)


@pytest.mark.parametrize(("python", "_why"), rows("result", "why"))
def test_results_are_refused_as_the_page_says(python: str, _why: str) -> None:
    with pytest.raises(InvalidValueError):
        encode(eval(python, NAMES))


@pytest.mark.parametrize(("python", "text"), rows("Python", "`json`"))
def test_the_plain_format_is_as_the_page_says(python: str, text: str) -> None:
    assert encode(eval(python, NAMES), "json") == text


# --- whatever else --------------------------------------------------------------------------------------------------

keys = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).filter(lambda key: not key.startswith("$"))
scalars = st.none() | st.booleans() | floats | texts | blobs | ints_of_64_bits.map(duly.Int64)
values = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_sent_is_received_exactly(value: Any) -> None:
    text = encode(value)
    assert same(decode(orjson.loads(text)), value)
    # Clients in Python refuse a number without a point or an exponent.
    json.loads(text, parse_int=pytest.fail, parse_constant=pytest.fail)


@given(st.integers(-(2**53), 2**53))
def test_an_int_goes_out_as_a_number_and_comes_back(number: int) -> None:
    signature = signature_of("int")
    assert same(received(signature, returned(signature, number)), number)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["$integer", "$float", "$bytes", "$x", "a", ""]) | st.text(), children)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        read = decode(value)
    except (InvalidValueError, LimitError):
        return
    assert same(decode(orjson.loads(encode(read))), read)


def test_what_is_read_shares_nothing_with_what_was_given() -> None:
    given_list: list[Any] = [[]]
    decode(given_list)[0].append(1)
    assert given_list == [[]]


def test_nesting_is_limited_both_ways() -> None:
    def nested(levels: int) -> Any:
        value: Any = "tea"
        for level in range(levels):
            value = [value] if level % 2 else {"a": value}
        return value

    assert decode(nested(64)) == nested(64)
    assert json.loads(encode(nested(64))) == nested(64)
    for refuses in (decode, encode):
        with pytest.raises(LimitError, match="levels of nesting"):
            refuses(nested(65))


def test_lists_objects_and_keys_are_limited() -> None:
    assert len(decode([0] * 8_192)) == 8_192
    assert len(decode({str(n): 0 for n in range(1_024)})) == 1_024
    assert decode({"a" * 1_024: 0})
    for value in ([0] * 8_193, {str(n): 0 for n in range(1_025)}, {"a" * 1_025: 0}):
        with pytest.raises(LimitError):
            decode(value)
    with pytest.raises(LimitError, match="characters of a key"):
        encode({"a" * 1_025: 0})
    assert len(json.loads(encode([0] * 10_000))) == 10_000


def test_a_result_is_limited() -> None:
    with pytest.raises(LimitError, match="bytes of a value"):
        encode("a" * (16 << 20))


def test_where_the_trouble_is_is_said() -> None:
    with pytest.raises(InvalidValueError, match=r"orders\[1\]\.total: an int beyond"):
        encode({"orders": [{}, {"total": 2**60}]})
    with pytest.raises(InvalidValueError, match=r"orders\[0\]: the key '\$x'"):
        decode({"orders": [{"$x": 1}]})


def test_a_model_shows_its_computed_fields() -> None:
    class Sum(BaseModel):
        a: int

        @computed_field
        def double(self) -> int:
            return 2 * self.a

    async def function(ctx: object) -> object: ...

    function.__annotations__ = {"return": Sum}
    assert returned(Signature("page:function", function), Sum(a=2)) == '{"a":2.0,"double":4.0}'


def test_an_alias_is_what_clients_see() -> None:
    signature = signature_of("Aliased")
    assert same(received(signature, '{"itemName": "tea"}'), {"item_name": "tea"})
    assert returned(signature, {"item_name": "tea"}) == '{"itemName":"tea"}'


def test_a_result_that_its_serializer_refuses_is_an_error_of_the_function() -> None:
    signature = signature_of("SecretStr | None")
    with pytest.raises(InvalidValueError, match="not shown to anyone"):
        returned(signature, SecretStr("x"))
    odd = signature_of("Point")
    with pytest.raises(ReturnValueError):
        odd.show_return(object())


def test_a_document_may_be_returned_with_its_id() -> None:
    signature = signature_of("Order")
    order = {"items": ["tea"], "count": 1, "_id": "abc", "_creationTime": 1.5}
    assert json.loads(returned(signature, order)) == order
