"""What is recorded of a failure: the error's type, its message, and the user's part of the traceback (rule M2)."""

import os
import traceback
from pathlib import Path

__all__ = ["describe_failure"]

_OURS = f"{Path(__file__).parent.parent}{os.sep}"
_CHARACTERS_MAX = 16_384


def describe_failure(error: BaseException) -> str:
    """`Type: message` on the first line, then the traceback without duly's own frames."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 (a user's __str__ may raise anything)
        message = "(its message could not be made)"
    headline = f"{name}: {message}" if message else name
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    text = headline
    if frames:
        text += "\n\nTraceback (most recent call last):\n" + "".join(traceback.format_list(frames)).rstrip()
    if error.__cause__ is not None:
        text += f"\n\ncaused by {describe_failure(error.__cause__)}"
    if len(text) > _CHARACTERS_MAX:
        half = _CHARACTERS_MAX // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
    # A database takes valid Unicode only.
    return text.encode("utf-8", "backslashreplace").decode()
