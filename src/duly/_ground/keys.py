"""Index keys: bytes whose order is the order of the values they stand for, the same in every engine.

Values order by kind (absent, None, numbers, bool, str, bytes, list, dict), then within the kind. 1 and 1.0 are the
same number and the same key; so are 0.0 and -0.0. NaN follows infinity. Strings order by code point. A dict orders as
the list of its items sorted by key. No key is a prefix of another, so keys can be put one after the other.
"""

import math
import struct
from collections.abc import Iterable
from typing import Any

__all__ = ["ABSENT", "KEY_AFTER", "Absent", "encode_key"]


class Absent:
    """The type of `ABSENT`, which stands for a field that a document does not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()

# A tag begins every value. 0x00 ends lists and dicts, so that a shorter one comes first.
_END = b"\x00"
_ABSENT, _NONE, _NUMBER, _FALSE, _TRUE, _STR, _BYTES, _LIST, _DICT = (bytes([tag]) for tag in range(1, 10))

KEY_AFTER = b"\xff"
"""Appended to a key, sorts after every key that begins with it."""

_SIGN = 1 << 63
_ALL = (1 << 64) - 1


def encode_key(values: Iterable[Any]) -> bytes:
    """The key of an index entry: the fields' values, one after the other."""
    return b"".join([_encode(value) for value in values])


def _encode(value: Any) -> bytes:
    if isinstance(value, str):
        return _STR + _escape(value.encode())
    if value is None:
        return _NONE
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    if isinstance(value, (int, float)):
        return _NUMBER + _encode_number(value)
    if isinstance(value, bytes):
        return _BYTES + _escape(value)
    if isinstance(value, (list, tuple)):
        return _LIST + b"".join([_encode(item) for item in value]) + _END
    if isinstance(value, dict):
        items = sorted((name.encode(), item) for name, item in value.items())
        return _DICT + b"".join([_STR + _escape(name) + _encode(item) for name, item in items]) + _END
    assert value is ABSENT, f"{type(value)} is no value"
    return _ABSENT


def _escape(raw: bytes) -> bytes:
    # 00 becomes 00 FF, and 00 01 ends: "a" < "a\0" < "aa", and the end sorts below anything that may follow.
    return raw.replace(b"\x00", b"\x00\xff") + b"\x00\x01"


def _encode_number(number: float) -> bytes:
    # The nearest double in sortable form, then what the double lost: exact for every 64-bit int, and comparable
    # between int and float. Rounding is monotonic, so numbers with different doubles are ordered by the doubles.
    if isinstance(number, int):
        nearest = float(number)
        rest = number - int(nearest)
    else:
        # One NaN for all: they differ in bits nobody can see. Adding 0.0 turns -0.0 into 0.0.
        nearest = math.nan if math.isnan(number) else number + 0.0
        rest = 0
    (bits,) = struct.unpack(">Q", struct.pack(">d", nearest))
    sortable = bits ^ (_ALL if bits & _SIGN else _SIGN)
    return struct.pack(">QH", sortable, rest + 0x8000)
