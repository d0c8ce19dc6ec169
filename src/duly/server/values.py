"""Values at the border, as Convex's clients write and read them: JSON in which every number is a float.

What JSON lacks is an object with one key: {"$integer": …} for 64-bit ints, {"$bytes": …}, and {"$float": …} for NaN,
the infinities and -0.0, each with the base64 of its little-endian bytes. The format `json` is for people: lossy, and
for output only.
"""

import base64
import math
import struct
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import orjson

from duly._ground.values import Int64
from duly._model.signature import json_key, storable
from duly.errors import InvalidValueError, LimitError

__all__ = ["Format", "decode", "encode"]

Format = Literal["convex_encoded_json", "json"]

_DEPTH_MAX = 64
_ELEMENTS_MAX = 8_192
_FIELDS_MAX = 1_024
_KEY_CHARACTERS_MAX = 1_024
_BYTES_MAX = 16 << 20
# Up to here a JavaScript number is exact.
_NUMBER_MAX = 1 << 53

_Where = tuple[()] | tuple["_Where", int | str]
"""The way to a value: from within, that is what costs least for the many that are as they should be."""


# --- reading --------------------------------------------------------------------------------------------------------


def decode(value: Any) -> Any:
    """The value that a client sent.

    Args:
        value: Parsed JSON; its numbers may be ints.

    Returns:
        A value of its own: nothing of it is shared with what was given.

    Raises:
        InvalidValueError: It is no encoded value.
        LimitError: It is nested too deep, or a list or an object in it is too long.

    Example:
        >>> decode({"count": 1, "big": {"$integer": "AQAAAAAAAAA="}})
        {'count': 1.0, 'big': 1}
    """
    return _decode(value, (), 1)


def _decode(value: Any, where: _Where, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int or kind is float:
        return float(value)
    _check_size("levels of nesting", depth, _DEPTH_MAX, where)
    if kind is list:
        _check_size("elements of a list", len(value), _ELEMENTS_MAX, where)
        return [_decode(item, (where, index), depth + 1) for index, item in enumerate(value)]
    if len(value) == 1:
        ((name, item),) = value.items()
        if name.startswith("$"):
            return _decode_escape(name, item, where)
    _check_size("fields of an object", len(value), _FIELDS_MAX, where)
    for name in value:
        _check_key(name, where)
    return {name: _decode(item, (where, name), depth + 1) for name, item in value.items()}


def _decode_escape(name: str, text: Any, where: _Where) -> Any:
    if name not in ("$bytes", "$float", "$integer"):
        _check_key(name, where)
    try:
        content = base64.b64decode(text, validate=True)
        if name == "$bytes":
            return content
        (number,) = struct.unpack("<d" if name == "$float" else "<q", content)
    except (struct.error, TypeError, ValueError) as error:
        raise InvalidValueError(f"{name} does not hold the base64 of its bytes: {error}", _shown(where)) from error
    if name == "$integer":
        return Int64(number)
    if not _is_special(number):
        raise InvalidValueError("$float is for what is no JSON number; write this one as it is", _shown(where))
    return number


# --- writing --------------------------------------------------------------------------------------------------------


class _Forms(NamedTuple):
    """How a format writes what is not the same in both."""

    number: Callable[[int], float]
    int64: Callable[[int], Any]
    bytes: Callable[[bytes], Any]
    special_float: Callable[[float], Any]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


_FORMS: dict[Format, _Forms] = {
    "convex_encoded_json": _Forms(
        number=float,
        int64=lambda number: {"$integer": _base64(number.to_bytes(8, "little", signed=True))},
        bytes=lambda content: {"$bytes": _base64(content)},
        special_float=lambda number: {"$float": _base64(struct.pack("<d", number))},
    ),
    "json": _Forms(
        number=int,
        int64=str,
        bytes=_base64,
        special_float=lambda number: (
            number if number == 0 else str(number).replace("inf", "Infinity").replace("nan", "NaN")
        ),
    ),
}


def encode(value: Any, format: Format = "convex_encoded_json") -> str:
    """The JSON text of a value.

    Args:
        value: What a function returned, as `Signature.show_return` gives it; or the data of an `AppError`.
        format: `convex_encoded_json` is exact. `json` is what a person expects, and can't be read back.

    Raises:
        InvalidValueError: It holds what clients can't be given, and says where.
        LimitError: It is too large or nested too deep.

    Example:
        >>> encode({"count": 1, "big": Int64(1)})
        '{"count":1.0,"big":{"$integer":"AQAAAAAAAAA="}}'
        >>> encode({"count": 1, "big": Int64(1)}, "json")
        '{"count":1,"big":"1"}'
    """
    text = orjson.dumps(_encode(value, _FORMS[format], (), 1))
    _check_size("bytes of a value", len(text), _BYTES_MAX, ())
    return text.decode()


def _encode(value: Any, forms: _Forms, where: _Where, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or (kind is str and value.isascii()):
        return value
    if isinstance(value, str):
        return _valid(value, where)
    if isinstance(value, int):
        return _encode_int(value, forms, where)
    if isinstance(value, float):
        return forms.special_float(value) if _is_special(value) else float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return forms.bytes(bytes(value))
    if isinstance(value, dict):
        return _encode_dict(value, forms, where, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        _check_size("levels of nesting", depth, _DEPTH_MAX, where)
        return [_encode(item, forms, (where, index), depth + 1) for index, item in enumerate(value)]
    try:
        converted = storable(value)
    except ValueError as error:  # pydantic's errors are
        raise InvalidValueError(f"a {kind.__name__} can't be sent: {error}", _shown(where)) from error
    return _encode(converted, forms, where, depth)


def _encode_int(value: int, forms: _Forms, where: _Where) -> Any:
    if type(value) is Int64:
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidValueError(f"an Int64 of {value.bit_length() + 1} bits does not fit 64", _shown(where))
        return forms.int64(value)
    if abs(value) > _NUMBER_MAX:
        raise InvalidValueError(
            "an int beyond ±2**53 is no exact number in JavaScript; make it a duly.Int64, which is a bigint there",
            _shown(where),
        )
    return forms.number(value)


def _encode_dict(value: dict[Any, Any], forms: _Forms, where: _Where, depth: int) -> dict[str, Any]:
    _check_size("levels of nesting", depth, _DEPTH_MAX, where)
    encoded: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str else str.__str__(json_key(key))
        # Clients can't read other keys: the one in JavaScript stops for good.
        _check_key(name, where)
        encoded[name] = _encode(item, forms, (where, name), depth + 1)
    return encoded


def _valid(text: str, where: _Where) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidValueError("a str holds a lone surrogate, which is not valid Unicode", _shown(where)) from None
    return str.__str__(text)


# --- in common ------------------------------------------------------------------------------------------------------


def _is_special(number: float) -> bool:
    """Whether it is NaN, an infinity or -0.0."""
    return not math.isfinite(number) or (number == 0 and math.copysign(1.0, number) < 0)


def _shown(where: _Where) -> str:
    if not where:
        return ""
    before, step = where
    prefix = _shown(before)
    return f"{prefix}[{step}]" if isinstance(step, int) else f"{prefix}.{step}" if prefix else step


def _check_key(name: str, where: _Where) -> None:
    if name.startswith("$"):
        raise InvalidValueError(f"the key {name[:60]!r} begins with '$', which is reserved", _shown(where))
    _check_size("characters of a key", len(name), _KEY_CHARACTERS_MAX, where)
    if not (name.isascii() and name.isprintable()):
        raise InvalidValueError(
            f"the key {name[:60]!r} has other characters than the printable ones of ASCII", _shown(where)
        )


def _check_size(what: str, actual: int, maximum: int, where: _Where) -> None:
    if actual > maximum:
        raise LimitError(what, actual, maximum, f"at {_shown(where)[:80]}" if where else "")
