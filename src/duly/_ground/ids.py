"""Ids: opaque strings of 32 characters that carry their table, their time and their own check.

    orders       time in µs    chance + check
    a1b2c      0dk3v9x2q7m    4e8f2h6k9n3p5r7t
    25 bits      55 bits        73 + 7 bits

The alphabet is in ASCII order, so ids sort as their bits do: by table, then by creation. Within one process the time
part grows with every id, so the order of ids is the order in which they were made, and `_creationTime` is the time
part. The 73 random bits make ids unguessable; the check, the number modulo 127, catches every mistyped character.
"""

import hashlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, SupportsIndex, TypeVar, get_args

from pydantic_core import core_schema

from duly._ground.entropy import Entropy
from duly._ground.forks import in_children
from duly.errors import InvalidIdError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

__all__ = [
    "ID_DOCUMENT",
    "ID_HIGHEST",
    "TIME_US_END",
    "Id",
    "IdMaker",
    "PlainText",
    "SharedIdMaker",
    "check_id",
    "creation_time_of",
    "first_id_at",
    "table_tag",
]

# Covariant for the sake of mypy, which could not tell `Order | None` from `db.get(order_id)` otherwise.
DocumentT_co = TypeVar("DocumentT_co", covariant=True)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# To the digits that int() knows. Everything else becomes what it refuses: it takes signs, spaces and underscores, too.
_DIGITS = dict(zip(_ALPHABET.encode(), b"0123456789abcdefghijklmnopqrstuv", strict=True))
_TO_PYTHON = bytes(_DIGITS.get(character, ord("!")) for character in range(256))
# Of a random byte five bits are used: as the character, and as the digit that it is.
_CHARACTER_OF_BYTE = _ALPHABET.encode() * 8
_DIGIT_OF_BYTE = _CHARACTER_OF_BYTE.translate(_TO_PYTHON)
_LENGTH = 32
_TAG_LENGTH = 5
_TIME_END = 16
_CHECK_MODULUS = 127
_DRAWN_AT_ONCE = 32

ID_DOCUMENT = "duly_id_of"
"""What tells an id in a pydantic schema: this key of its metadata, under which is the type of its document."""

ID_HIGHEST = "~"
"""Sorts after every id."""

TIME_US_END = 1 << 55
"""What an id's time is less than: the year 3111."""


class PlainText(Protocol):
    """To a type checker a `str` that is no `Id`, so that overloads can tell the two apart. At run time an `Id` is one.

    Overloads for `Id` and `str` would both match an `Id` whose document holds an `Any`, and mypy makes that an `Any`.
    """

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str: ...


class Id(str, Generic[DocumentT_co]):
    """The id of a document. At run time a plain string; to a type checker it knows the document's type.

    As an annotation of a parameter it is checked when the function is called or scheduled: an id that is mistyped,
    or of another table than the type belongs to, is an `ArgumentError`.

    Example:
        @duly.mutation
        async def archive_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
            await ctx.db.patch(order_id, {"status": "archived"})
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # What makes it no `PlainText`. A method that nobody calls on an id.
        def expandtabs(self) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> core_schema.CoreSchema:
        document_type = (get_args(source) or (Any,))[0]

        type_name = getattr(document_type, "__name__", str(document_type))
        try:
            hash(document_type)
        except TypeError:
            document_type = None  # an unhashable type parameter names no table

        def checked(value: str, info: core_schema.ValidationInfo) -> Id[Any]:
            try:
                tag = check_id(value)
            except InvalidIdError as error:
                raise ValueError(str(error)) from error
            tags_by_type: Mapping[Any, frozenset[str]] | None = info.context
            expected = tags_by_type.get(document_type) if tags_by_type is not None else None
            if expected is not None and tag not in expected:
                raise ValueError(str(InvalidIdError(value, f"is the id of another table, not of {type_name}")))
            return value if type(value) is Id else Id(value)

        checked.__qualname__ = f"Id[{type_name}]"
        return core_schema.with_info_after_validator_function(
            checked, core_schema.str_schema(), metadata={ID_DOCUMENT: document_type}
        )


def table_tag(table: str) -> str:
    """The five characters that begin every id of a table. A hash of its name: nobody has to be asked."""
    return _encode(int.from_bytes(hashlib.sha256(table.encode()).digest()[:4]) >> 7, _TAG_LENGTH)


def check_id(value: object) -> str:
    """The table tag of an id.

    Raises:
        InvalidIdError: It is no id: not a string, of the wrong length or characters, or mistyped.
    """
    if not isinstance(value, str):
        raise InvalidIdError(value, f"is no id: ids are strings, this is a {type(value).__name__}")
    try:
        number = int(value.encode().translate(_TO_PYTHON), 32)
    except ValueError:
        number = -1
    if number < 0 or len(value) != _LENGTH:
        raise InvalidIdError(value, f"is no id: an id is {_LENGTH} lower-case letters and digits")
    if (number >> 7) % _CHECK_MODULUS != number & 0x7F:
        raise InvalidIdError(value, "is no id: its check digits don't match; was it mistyped or cut off?")
    return value[:_TAG_LENGTH]


def creation_time_of(id: str) -> float:
    """The `_creationTime` in an id: milliseconds since the epoch, to the microsecond."""
    return int(id[_TAG_LENGTH:_TIME_END].encode().translate(_TO_PYTHON), 32) / 1_000


def first_id_at(tag: str, time_us: int) -> str:
    """A string that sorts before every id of the table made at or after `time_us`, and after all made before."""
    time_us = min(max(time_us, 0), TIME_US_END - 1)
    return tag + _encode(time_us, _TIME_END - _TAG_LENGTH)


class IdMaker:
    """Makes ids; each is greater than the one before. One for an app; never asks the store."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        # Drawn for some ids at a time.
        self._chance = b""
        self._drawn = 0
        in_children(self, lambda maker: maker._forget_chance())
        self._last_us = 0
        # The first characters of the time change once a millisecond.
        self._tick = -1
        self._tick_text = ""
        # What a tag adds to the check.
        self._checks: dict[str, int] = {}

    def make(self, tag: str, now_ms: float) -> Id[Any]:
        time_us = round(now_ms * 1_000)
        # Never back, never twice: a clock that was set back, or a burst within a microsecond, borrows from the future.
        if time_us <= self._last_us:
            time_us = self._last_us + 1
        self._last_us = time_us
        if time_us >> 10 != self._tick:
            self._tick = time_us >> 10
            self._tick_text = _encode(self._tick, _TIME_END - _TAG_LENGTH - 2)
        check = self._checks.get(tag)
        if check is None:
            # 2 ** 7 is 1 modulo 127, so what stands 128 bits higher counts four times, and 73 bits higher eight times.
            check = self._checks[tag] = int(tag.encode().translate(_TO_PYTHON), 32) * 4
        # Fourteen characters of chance, each a byte of it, and three bits more beside the check.
        at = self._drawn
        if at == len(self._chance):
            at, self._chance = 0, self._entropy.token(15 * _DRAWN_AT_ONCE)
        self._drawn = at + 15
        body = self._chance[at : at + 14]
        last = self._chance[at + 14] & 7
        number = int(body.translate(_DIGIT_OF_BYTE), 32) << 3 | last
        last = last << 7 | (check + time_us * 8 + number) % _CHECK_MODULUS
        a = _ALPHABET
        return Id(
            f"{tag}{self._tick_text}{a[time_us >> 5 & 31]}{a[time_us & 31]}"
            f"{body.translate(_CHARACTER_OF_BYTE).decode()}{a[last >> 5]}{a[last & 31]}"
        )

    def _forget_chance(self) -> None:
        self._chance, self._drawn = b"", 0


class SharedIdMaker(IdMaker):
    """One that several threads ask."""

    def __init__(self, entropy: Entropy) -> None:
        super().__init__(entropy)
        self._lock = threading.Lock()

    def make(self, tag: str, now_ms: float) -> Id[Any]:
        with self._lock:
            return super().make(tag, now_ms)

    def _forget_chance(self) -> None:
        super()._forget_chance()
        self._lock = threading.Lock()  # a thread of the parent's may have had it


def _encode(number: int, length: int) -> str:
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(5 * length - 5, -1, -5)])
