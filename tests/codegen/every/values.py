"""Every type that an annotation may name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

import duly

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: float
    y: float
    label: str = ""


@dataclass
class Tree:
    """A tree of names."""

    name: str
    children: list["Tree"] = field(default_factory=list)


class Linked(TypedDict):
    value: int
    next: "Linked | None"


class Any_(TypedDict):  # noqa: N801
    """A name that is TypeScript's, but for the underscore."""

    given: bool


class Id(TypedDict):
    """A name that the files have already."""

    given: bool


class Model(BaseModel):
    when: datetime = Field(description="In any time zone.")
    price: Decimal = Decimal(0)
    odd_name: str = Field(default="", alias="odd-name")


class Box(BaseModel, Generic[T]):
    content: T


class Everything(TypedDict):
    nothing: None
    anything: Any
    truth: bool
    whole: int
    real: float
    big: duly.Int64
    text: str
    data: bytes
    moment: datetime
    day: date
    span: timedelta
    key: UUID
    price: Decimal
    color: Color
    level: Level
    choice: Literal["a", 1, True, None]
    maybe: NotRequired[int | None]
    either: int | str | list[bytes]
    many: list[list[int]]
    unique: set[str]
    pair: tuple[int, str]
    row: tuple[float, ...]
    point: Point
    by_name: dict[str, list[int]]
    by_key: dict[UUID, int]
    tree: Tree
    linked: Linked
    named: Any_
    id: Id
    model: Model
    box: Box[int]
    boxes: list[Box[Color]]


@duly.query
async def echo(ctx: duly.QueryCtx, value: Everything) -> Everything:
    """Returns what it is given."""
    return value


@duly.mutation
async def defaults(ctx: duly.MutationCtx, required: str, optional: int = 1, nullable: str | None = None) -> None:
    pass


@duly.action
def plain(ctx: duly.SyncActionCtx, *, numbers: list[int]) -> int:
    """Adds."""
    return sum(numbers)


@duly.action
async def loose(ctx: duly.ActionCtx, anything: Any, callback: Callable[[], None] | None = None) -> Any:
    return anything
