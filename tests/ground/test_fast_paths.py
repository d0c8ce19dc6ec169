"""What is done faster for common values and types comes to the same as what is done for all."""

import enum
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PlainSerializer
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from duly._ground.clock import SystemClock
from duly._ground.entropy import SystemEntropy
from duly._ground.ids import Id, IdMaker, check_id, creation_time_of, table_tag
from duly._ground.values import DEPTH_MAX, Int64, encode
from duly._model.schema import Table
from duly._model.signature import adapter_of, is_stored_as_validated
from duly.errors import DulyError
from tests.ground.strategies import values


class Colour(enum.Enum):
    RED = "red"
    DEEP = float("nan")


class Number(enum.IntEnum):
    ONE = 1


class Name(enum.StrEnum):
    TEA = "tea"


class Point(NamedTuple):
    x: int
    y: float


class Model(BaseModel):
    blob: bytes


class Text(str):
    __slots__ = ()


def outcome(value: Any, convert: Any) -> Any:
    try:
        return encode(value, convert)
    except DulyError as error:
        return type(error), str(error)


def outcome_by_the_long_way(value: list[Any]) -> Any:
    """Of a list. A set before it is what orjson can't write, and so keeps it from writing the rest."""
    outcome_beside = outcome([{1}, *value], to_jsonable_python)
    if isinstance(outcome_beside, str):
        return "[" + outcome_beside.removeprefix("[[1],")
    error, message = outcome_beside
    return error, message.replace("[1]", "[0]", 1)


ODD: list[Any] = [
    None,
    float("nan"),
    float("-inf"),
    -0.0,
    -0.05,
    "null",
    "-0.0",
    "_",
    "$",
    ["_a", "$b", '"_', '"$'],
    {"_reserved": 1},
    {"a": {"$b": 1}},
    {"a_": 1, "b$": 2},
    1 << 53,
    -(1 << 53),
    (1 << 63) - 1,
    -(1 << 63),
    1 << 63,
    (1 << 64) - 1,
    "1234567890123456789012",
    b"bytes",
    Int64(7),
    Id("anything"),
    [Id("anything"), {"id": Id("é")}],
    "\ud800",
    {"\ud800": 1},
    {1: 2},
    (1, (2, 3)),
    Point(1, -0.0),
    Colour.RED,
    Colour.DEEP,
    Number.ONE,
    Name.TEA,
    {Name.TEA: 1},
    Text("subclass"),
    uuid.UUID(int=7),
    datetime(2026, 1, 1, tzinfo=UTC),
    Decimal("1.50"),
    Model(blob=b"hi"),
    {1, 2},
    True,
    "[" * 20,
    "{" * 20,
]


@pytest.mark.parametrize("value", ODD, ids=[f"{type(value).__name__}-{index}" for index, value in enumerate(ODD)])
def test_an_odd_value_is_written_or_refused_the_same_either_way(value: Any) -> None:
    assert outcome([value], to_jsonable_python) == outcome_by_the_long_way([value])


@given(values)
def test_any_value_is_written_the_same_either_way(value: Any) -> None:
    assert encode(value, to_jsonable_python) == encode(value)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["list", "dict"])
def test_the_limit_of_depth_is_the_same_either_way(wrap: Any) -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = wrap(value)
    assert encode(value, to_jsonable_python) == encode(value)
    assert outcome(wrap(value), to_jsonable_python) == outcome(wrap(value), None)


class Plain(TypedDict):
    name: str
    config: list[int]
    metadata: dict[str, float]
    type: Literal["a", "b"] | None


class Dated(TypedDict):
    config: datetime


class Noted(TypedDict):
    metadata: Annotated[str, PlainSerializer(str.upper)]


@pytest.mark.parametrize(
    ("hint", "plain"),
    [
        (int, True),
        (Plain, True),
        (list[Plain], True),
        (Id[Plain], True),
        (dict[str, Id[Plain] | None], True),
        (Dated, False),
        (Noted, False),
        (datetime, False),
        (Any, False),
        (list, False),
        (dict[str, Any], False),
        (set[int], False),
        (Model, False),
        (Colour, False),
        (Annotated[int, PlainSerializer(str)], False),
        (Annotated[Id[Plain], PlainSerializer(str.upper)], False),
    ],
)
def test_only_what_needs_no_serializer_is_stored_as_it_was_validated(hint: Any, plain: bool) -> None:
    assert is_stored_as_validated(adapter_of("f arguments", {"x": hint}).core_schema) is plain


def test_a_field_may_be_named_like_a_part_of_a_schema() -> None:
    table = Table("dated", Dated)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert table.load({"config": "2026-01-01T00:00:00Z"}) == {"config": moment}
    assert Table("noted", Noted).dump({"metadata": "tea"}) == {"metadata": "TEA"}


@given(st.text("abcXYZ_", min_size=1, max_size=8).map(lambda name: "t" + name))
def test_ids_made_in_parts_are_whole(name: str) -> None:
    tag = table_tag(name)
    clock = SystemClock()
    maker = IdMaker(SystemEntropy())
    before = clock.now_ms()
    made = [maker.make(tag, clock.now_ms()) for _ in range(20)]
    assert made == sorted(set(made))
    for id in made:
        assert check_id(id) == check_id(str(id)) == tag
        assert before <= creation_time_of(id) <= clock.now_ms() + 1
