"""The log that a command writes to stderr."""

import logging
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from duly._model.event import Event, EventKind

__all__ = ["LogFormat", "log_failures", "log_to_stderr"]

_log = logging.getLogger("duly")

LogFormat = Literal["text", "json"]

_FIELDS = ("function", "job_id", "request_id", "error")
_TOLD: dict[EventKind, str] = {
    "failed": "failed",
    "interrupted": "failed",
    "retry": "is tried again later",
    "parked": "waits",
}


def log_to_stderr(format: LogFormat = "text") -> None:
    """Shows warnings, of duly and of all else, unless the app has arranged for logging itself.

    Args:
        format: A line that people read, or a JSON object on a line.
    """
    root = logging.getLogger()
    if root.handlers or _log.handlers:
        return
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_JSONFormatter() if format == "json" else text)
    root.addHandler(handler)


class _JSONFormatter(logging.Formatter):
    """Each record as a JSON object on one line; what it is about as fields of their own, where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_failures(event: Event) -> None:
    """One line for what an operator wants to know of; the whole error is in the database."""
    what = _TOLD.get(event.kind)
    if what is None:
        return
    reason = (event.detail or "").partition("\n")[0]
    fields = {"function": event.path, "job_id": event.job_id, "error": event.detail}
    _log.warning("%s %s: %s (%s)", event.path, what, reason, event.job_id, extra=fields)
