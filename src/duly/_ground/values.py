"""Values: None, bool, int of 64 bits, float, str, bytes, list, and dict with string keys; and how they are written.

They are written as JSON that a person can read, exact for every value. What JSON lacks is written as a dict with one
key that begins with `$`, which no key of a user's may: {"$bytes": "aGk="}, {"$float": "NaN"}, {"$int64": "7"}.
"""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic_core import core_schema

from duly._ground.ids import Id
from duly.errors import InvalidValueError, LimitError

__all__ = ["DEPTH_MAX", "Int64", "decode", "encode", "normalize"]

DEPTH_MAX = 16
"""Levels of lists and dicts within each other; a document itself is the first."""

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
# With these orjson refuses ints beyond 53 bits, and what it would write in a way of its own.
_STRICT = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0.0": -0.0}


class Int64(int):
    """An int that JavaScript clients see as a bigint. A plain int is a number to them.

    Example:
        >>> Int64(7) + 1
        8
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        """Lets it stand in annotations: what arrives there is an `Int64`."""
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema())


Convert = Callable[[Any], Any]


def encode(value: Any, convert: Convert | None = None) -> str:
    """The JSON text of a value.

    Args:
        value: What to write.
        convert: Called with what is no value, such as a datetime; returns what to write in its place, or raises
            `ValueError`.

    Raises:
        InvalidValueError: It holds what is no value, and says where.
    """
    if convert is not None:
        try:
            text = orjson.dumps(value, _id_as_str, _STRICT).decode()
        except TypeError:
            pass  # not JSON as it is, or no value at all
        else:
            # What orjson writes exactly as we do, which is most. Not if there may be a key that is reserved, NaN or an
            # infinity, -0.0, too many levels: or only what looks like one.
            # (Looked for in a str: bytes take what they are asked for to be a number first.)
            in_doubt = '"_' in text or '"$' in text or "null" in text or "-0.0" in text
            if not in_doubt and text.count("{") + text.count("[") <= DEPTH_MAX:
                return text
    return orjson.dumps(_escape(value, "", 1, convert)).decode()


def _id_as_str(value: Any) -> str:
    if type(value) is Id:
        return str(value)
    raise TypeError


def normalize(value: Any, convert: Convert | None = None) -> Any:
    """The value as it would be read back: tuples as lists, subclasses as what they are at heart."""
    return decode(encode(value, convert))


def decode(text: str) -> Any:
    """The value that `encode` wrote."""
    value = orjson.loads(text)
    # Inside a string the quote would be escaped, so this finds an escape exactly where there is one.
    return _unescape(value) if '{"$' in text else value


def _escape(value: Any, where: str, depth: int, convert: Convert | None) -> Any:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_unicode(value, where)
        return value
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise InvalidValueError(f"the int {_short(value)} does not fit 64 bits; store it as a str", where)
        return value
    if kind is bool or value is None:
        return value
    if kind is dict:
        return _escape_dict(value, where, depth, convert)
    if kind is float:
        # Only what is not finite, or is -0.0, needs an escape.
        if math.isfinite(value) and (value or math.copysign(1.0, value) > 0):
            return value
        return {"$float": "NaN" if math.isnan(value) else "-0.0" if value == 0 else _infinity(value)}
    if kind is list or kind is tuple:
        _check_depth(depth, where)
        return [_escape(item, f"{where}[{index}]", depth + 1, convert) for index, item in enumerate(value)]
    return _escape_subclass(value, where, depth, convert)


def _escape_dict(value: Mapping[Any, Any], where: str, depth: int, convert: Convert | None) -> dict[str, Any]:
    _check_depth(depth, where)
    escaped: dict[str, Any] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise InvalidValueError(f"the key {name!r} is no str; keys of a dict must be", where)
        if name.startswith(("_", "$")):
            raise InvalidValueError(f"the key {_short(name)} begins with {name[0]!r}, which is reserved", where)
        if not name.isascii():
            _check_unicode(name, where)
        escaped[str.__str__(name)] = _escape(item, f"{where}.{name}" if where else name, depth + 1, convert)
    return escaped


def _escape_subclass(value: Any, where: str, depth: int, convert: Convert | None) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, (bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if type(value) is Int64:
        return {"$int64": str(_escape(int(value), where, depth, None))}
    if type(value) is Id:
        return str(value)
    if convert is not None:
        # Ours to convert, so that what is within stays exact.
        if isinstance(value, dict):
            return _escape_dict(value, where, depth, convert)
        if isinstance(value, (list, tuple, set, frozenset)):
            return _escape(list(value), where, depth, convert)
        try:
            converted = convert(value)
        except ValueError as error:  # pydantic's errors are, and those of decoding
            raise InvalidValueError(f"a {type(value).__name__} can't be stored: {error}", where) from error
        if type(converted) is not type(value):
            return _escape(converted, where, depth, convert)
    raise InvalidValueError(
        f"a {type(value).__name__} is no value; use None, bool, int, float, str, bytes, list or dict", where
    )


def _unescape(value: Any) -> Any:
    if type(value) is list:
        return [_unescape(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((name, item),) = value.items()
        if name == "$bytes":
            return base64.b64decode(item)
        if name == "$float":
            return _SPECIAL_FLOATS[item]
        if name == "$int64":
            return Int64(item)
    return {name: _unescape(item) for name, item in value.items()}


def _infinity(value: float) -> str:
    return "Infinity" if value > 0 else "-Infinity"


def _check_depth(depth: int, where: str) -> None:
    if depth > DEPTH_MAX:
        raise LimitError("levels of nesting", depth, DEPTH_MAX, f"at {where[:80]}")


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(
            f"the str {_short(text)} holds a lone surrogate, which is not valid Unicode", where
        ) from None


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 512 else f"of {value.bit_length()} bits"
    return text if len(text) <= 60 else text[:57] + "..."
