"""What is recorded of a failure: the error's type, its message, and the user's part of the traceback (rule M2)."""

import os
import traceback
from pathlib import Path

__all__ = ["describe_failure"]

_OURS = f"{Path(__file__).parent.parent}{os.sep}"
_CHARACTERS_MAX = 16_384
_CAUSES_MAX = 16


def describe_failure(error: BaseException) -> str:
    """`Type: message` on the first line, then the traceback without duly's own frames, then what it was caused by."""
    # An error may be its own cause, directly or in a circle: `raise error from error`.
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < _CAUSES_MAX and not any(cause is known for known in chain):
        chain.append(cause)
        cause = cause.__cause__
    text = "\n\ncaused by ".join(_describe_one(link) for link in chain)
    if len(text) > _CHARACTERS_MAX:
        half = _CHARACTERS_MAX // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
    # A database takes valid Unicode only, and PostgreSQL no NUL.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _describe_one(error: BaseException) -> str:
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 (a user's __str__ may raise anything)
        message = "(its message could not be made)"
    headline = f"{name}: {message}" if message else name
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    if not frames:
        return headline
    return headline + "\n\nTraceback (most recent call last):\n" + "".join(traceback.format_list(frames)).rstrip()
