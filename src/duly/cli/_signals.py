"""SIGTERM and SIGINT: the first asks to stop, the second stops at once (rule A4)."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_requested"]


@contextmanager
def stop_requested(at_once: Callable[[], None] = lambda: None) -> Iterator[asyncio.Event]:
    """An event that the first signal sets. The second ends the process, after `at_once`.

    The handlers run between any two lines of Python, so the second signal works even while a function blocks the loop.
    """
    loop = asyncio.get_running_loop()
    requested = asyncio.Event()
    first: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if first:
            at_once()
            os.write(2, b"stopped at once\n")
            os._exit(128 + number)
        first.append(number)
        loop.call_soon_threadsafe(requested.set)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
