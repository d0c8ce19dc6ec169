"""Values between a test and a driver's process, as JSON.

In a test a `float` is a JavaScript number, an `int` is a bigint and `bytes` is an ArrayBuffer. What JSON does not have
travels as `{"$": kind, "text": …}`; no value of Convex's has a field named `$`.
"""

import base64
import json
import math
from typing import Any

__all__ = ["decode", "dumps", "encode", "loads"]


def encode(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return {"$": "bigint", "text": str(value)}
        case float() if math.isnan(value):
            return {"$": "number", "text": "NaN"}
        case float() if math.isinf(value):
            return {"$": "number", "text": "Infinity" if value > 0 else "-Infinity"}
        case float() if value == 0.0 and math.copysign(1, value) < 0:
            return {"$": "number", "text": "-0"}
        case bytes():
            return {"$": "bytes", "text": base64.b64encode(value).decode()}
        case list():
            return [encode(item) for item in value]
        case dict():
            return {name: encode(field) for name, field in value.items()}
        case _:
            return value


def decode(value: Any) -> Any:
    match value:
        case {"$": "bigint", "text": str(text)}:
            return int(text)
        case {"$": "number", "text": str(text)}:
            return float(text)
        case {"$": "bytes", "text": str(text)}:
            return base64.b64decode(text)
        case list():
            return [decode(item) for item in value]
        case dict():
            return {name: decode(field) for name, field in value.items()}
        case _:
            return value


def dumps(message: dict[str, Any]) -> str:
    """One line of what a driver reads or writes."""
    return json.dumps(message, allow_nan=False)


def loads(line: str | bytes) -> dict[str, Any]:
    """A line of what a driver reads or writes. JavaScript writes 1 for 1.0."""
    message: dict[str, Any] = json.loads(line, parse_int=float)
    return message
