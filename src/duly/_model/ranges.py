"""Bounds on the last field that an index range narrows: `gt`, `gte`, `lt`, `lte`, joined by `&`."""

from dataclasses import dataclass
from typing import Any

from duly._ground.keys import KEY_AFTER, encode_key

__all__ = ["Bound", "Range", "gt", "gte", "key_bounds", "lt", "lte"]


@dataclass(frozen=True, slots=True)
class Bound:
    value: Any
    inclusive: bool


@dataclass(frozen=True, slots=True)
class Range:
    """A range of values of one field; see `gt`, `gte`, `lt` and `lte`. Join two with `&`."""

    lower: Bound | None = None
    upper: Bound | None = None

    def __and__(self, other: "Range") -> "Range":
        if not isinstance(other, Range):
            return NotImplemented
        if (self.lower and other.lower) or (self.upper and other.upper):
            raise TypeError("a range has at most one lower and one upper bound: gte(1) & lt(5)")
        return Range(self.lower or other.lower, self.upper or other.upper)


def gt(value: Any) -> Range:
    """Greater than `value`, in the order of values: None, numbers, bool, str, bytes, list, dict.

    Example:
        q = ctx.db.query(orders).with_index("by_total", total=duly.gt(10))
    """
    return Range(lower=Bound(value, inclusive=False))


def gte(value: Any) -> Range:
    """Greater than or equal to `value`.

    Example:
        q = ctx.db.query(orders).with_index("by_total", total=duly.gte(10) & duly.lt(20))
    """
    return Range(lower=Bound(value, inclusive=True))


def lt(value: Any) -> Range:
    """Less than `value`. Includes documents without the field unless a lower bound says otherwise.

    Example:
        q = ctx.db.query(orders).with_index("by_total", total=duly.lt(10))
    """
    return Range(upper=Bound(value, inclusive=False))


def lte(value: Any) -> Range:
    """Less than or equal to `value`.

    Example:
        q = ctx.db.query(orders).with_index("by_total", total=duly.lte(10))
    """
    return Range(upper=Bound(value, inclusive=True))


def key_bounds(prefix: list[Any], last: Range) -> tuple[bytes, bytes]:
    """The index keys `[lower, upper)` of entries whose fields begin with `prefix`, the next field being in `last`."""
    start = encode_key(prefix)
    lower, upper = start, start + KEY_AFTER
    if last.lower:
        lower = start + encode_key([last.lower.value]) + (b"" if last.lower.inclusive else KEY_AFTER)
    if last.upper:
        upper = start + encode_key([last.upper.value]) + (KEY_AFTER if last.upper.inclusive else b"")
    return lower, upper
