"""The fingerprint of a function: the same for the same code everywhere, another one for another signature."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, BaseModel, Field, PlainValidator
from pydantic_core import core_schema

import duly
from duly._model.fingerprint import fingerprint_of
from duly._model.function import FunctionKind
from duly._model.signature import Signature

ROOT = Path(__file__).parent.parent.parent


class Order(TypedDict):
    items: list[str]


class Invoice(TypedDict):
    total: int


class Colour(Enum):
    RED = "r"
    BLUE = "b"


@dataclass
class Line:
    item: str
    count: int = 1


class Parcel(BaseModel):
    labels: set[str] = {"fragile", "this way up", "heavy", "by hand"}
    sent: datetime = Field(default_factory=datetime.now)
    within: "list[Parcel]" = []
    order: duly.Id[Order]


class Odd:
    """A type that knows how to be validated, and not how to be shown."""

    def __repr__(self) -> str:
        raise ValueError

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls, metadata={"of": cls()})


def positive(value: int) -> int:
    return value


def negative(value: int) -> int:
    return value


def fingerprint(handler: Callable[..., Any], kind: FunctionKind = "mutation") -> str:
    return fingerprint_of(kind, Signature("jobs:run", handler).schema)


def of(*hints: Any, optional: int = 0) -> str:
    """The fingerprint of a function whose parameters have these annotations."""
    names = ("a", "b", "c")[: len(hints)]
    source = ", ".join(name if number < len(hints) - optional else f"{name}=None" for number, name in enumerate(names))
    namespace: dict[str, Any] = {}
    exec(f"async def handler(ctx, {source}): ...", namespace)
    made: Callable[..., Any] = namespace["handler"]
    made.__annotations__.update(zip(names, hints, strict=True))
    return fingerprint(made)


EVERYTHING: list[Any] = [
    int, str, Any, list[int], dict[str, float], Literal["a", "b"], Colour, Line, Parcel, Odd, Iterable[int],
    duly.Id[Order], duly.Id[Invoice], int | None, Annotated[int, Field(gt=3)], Annotated[int, Field(gt=4)],
    Annotated[int, Field(strict=True)], Annotated[int, AfterValidator(positive)],
    Annotated[int, AfterValidator(negative)], Annotated[int, PlainValidator(lambda value: value)],
]  # fmt: skip


def test_each_signature_has_a_fingerprint_of_its_own() -> None:
    found = [of(hint) for hint in EVERYTHING]
    found += [of(), of(int, int), of(int, int, optional=1)]
    assert len(set(found)) == len(found)
    assert all(len(one) >= 12 and int(one, 16) >= 0 for one in found)


def test_names_and_kinds_are_part_of_it() -> None:
    async def cups(ctx: Any, cups: int) -> None: ...
    async def plates(ctx: Any, plates: int) -> None: ...

    assert fingerprint(cups) != fingerprint(plates)
    assert fingerprint(cups) != fingerprint(cups, "action")


def test_what_does_not_matter_to_arguments_is_no_part_of_it() -> None:
    async def one(ctx: Any, cups: int, colour: str = "red") -> None: ...
    async def two(ctx: Any, cups: int, colour: str = "blue") -> int:
        """Something else."""
        return 1

    assert fingerprint(one) == fingerprint(two)


def test_it_is_the_same_in_every_process() -> None:
    """Whatever the order of sets, and wherever things are in memory."""
    program = "from tests.ground.test_fingerprint import EVERYTHING, of\nprint([of(hint) for hint in EVERYTHING])"
    outputs = set[str]()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout.strip())
    assert outputs == {str([of(hint) for hint in EVERYTHING])}
