"""Messages of clients, field by field: what is there, and of which kind."""

import base64
from typing import Any

import orjson

__all__ = ["BadMessageError", "Reader", "decode_moment", "encode_moment"]

_U32_MAX = (1 << 32) - 1
_MOMENT_MAX = (1 << 63) - 1


class BadMessageError(ValueError):
    """A client broke the protocol."""


class Reader:
    """An object in a message.

    Args:
        fields: As parsed.
        size: How long it is, for a whole message.
    """

    def __init__(self, fields: dict[str, Any], size: int = 0) -> None:
        self.fields = fields
        self.size = size

    @classmethod
    def of(cls, text: str | None) -> "Reader":
        """A whole message. Raises `BadMessageError`."""
        if text is None:
            raise BadMessageError("messages are text")
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise BadMessageError(f"a message is no JSON: {error}") from None
        return cls._of(fields, "a message", len(text))

    @classmethod
    def _of(cls, fields: Any, what: str, size: int = 0) -> "Reader":
        if not isinstance(fields, dict):
            raise BadMessageError(f"{what} is an object")
        return cls(fields, size)

    def text(self, name: str) -> str:
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise BadMessageError(f"{name} is a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self.fields.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """An unsigned number of 32 bits."""
        value = self.fields.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _U32_MAX:
            raise BadMessageError(f"{name} is a whole number of 32 bits")
        return value

    def readers(self, name: str) -> "list[Reader]":
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise BadMessageError(f"{name} is a list")
        return [self._of(item, f"each of {name}") for item in value]

    def args(self) -> Any:
        """As they are: whether they fit is told to whoever called."""
        return self.fields.get("args", [])

    def check_component(self) -> None:
        """Only the app itself can be meant."""
        if self.fields.get("componentPath"):
            raise BadMessageError("there are no components")

    def moment(self, name: str) -> int | None:
        """A moment in ns, if there is one."""
        text = self.optional_text(name)
        if text is None:
            return None
        try:
            return decode_moment(text)
        except ValueError:  # no base64, or no ASCII even
            raise BadMessageError(f"{name} is no timestamp") from None


def encode_moment(ns: int) -> str:
    """As clients write it: base64 of eight bytes, little-endian."""
    return base64.b64encode(ns.to_bytes(8, "little")).decode()


def decode_moment(text: str) -> int:
    """What `encode_moment` wrote. Raises `ValueError`."""
    raw = base64.b64decode(text, validate=True)
    moment = int.from_bytes(raw, "little")
    if len(raw) != 8 or moment > _MOMENT_MAX:
        raise ValueError("a moment is eight bytes, the highest bit of which is not set")
    return moment
