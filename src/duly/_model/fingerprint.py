"""What tells two versions of a function apart: a fingerprint of its kind and of what its arguments must be.

The same for the same code in every process and on every machine. It should tell of each change in what a signature
accepts; where it tells of one that changes nothing, a job takes a detour and no harm is done.
"""

import hashlib
import json
import re
from typing import Any

from duly._model.function import FunctionKind

__all__ = ["fingerprint_of"]

_DIGITS = 16
# Of a pydantic schema: what has no say in whether a value fits.
_BESIDE = frozenset(["metadata", "serialization", "default", "default_factory", "computed_fields"])
# Where something is in memory: `<function f at 0x7f…>`, and in the names of definitions, `shop.Order:139…`.
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+|:\d{5,}")


def fingerprint_of(kind: FunctionKind, arguments: Any) -> str:
    """Some hexadecimal digits for a function of a kind, the arguments of which fit a pydantic schema."""
    text = _ADDRESS.sub("", json.dumps([kind, _outline(arguments)], sort_keys=True))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _outline(part: Any) -> Any:
    """A schema as JSON: validators and classes by their names."""
    if isinstance(part, dict):
        left_out = _BESIDE if isinstance(part.get("type"), str) else ()  # otherwise these are fields by their names
        return {str(name): _outline(value) for name, value in part.items() if name not in left_out}
    if isinstance(part, (list, tuple)):
        return [_outline(item) for item in part]
    if isinstance(part, (set, frozenset)):
        return sorted(map(_name_of, part))
    return part if isinstance(part, (str, int, float, type(None))) else _name_of(part)


def _name_of(part: Any) -> str:
    try:
        return str(getattr(part, "__qualname__", None) or repr(part))
    except Exception:  # noqa: BLE001 (an object of the user's may raise anything)
        return type(part).__qualname__
