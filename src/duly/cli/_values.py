"""Results and documents as JSON text: what JSON lacks is written as it is stored, `{"$bytes": "aGk="}`."""

import json
import sys
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from duly._ground import values

__all__ = ["json_text", "jsonable"]


def jsonable(value: Any) -> Any:
    """The value in what JSON has. Keys that are reserved in stored values (`_id`) are fine here.

    Raises:
        ValueError: It holds what can't be written as JSON.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # an Enum that is a str, as what it stands for
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return {
            str.__str__(name) if isinstance(name, str) else str(name): jsonable(item) for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (float, bytes, bytearray, memoryview)):
        return orjson.loads(values.encode(value, float))
    return jsonable(to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="constants"))


def json_text(value: Any, *, pretty: bool = False) -> str:
    """JSON text that any stdout can take.

    Raises:
        ValueError: It holds what can't be written as JSON.
    """
    ready = jsonable(value)
    indent = 2 if pretty else None
    text = json.dumps(ready, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(ready, indent=indent)
    return text
