"""What the tests of the rules share: a stage on which a test says what the functions of an app do.

An app's functions stand at the top level of a module, but what a test wants of them is best read in the test. So each
test module has a few functions that do whatever the running test has put on its stage under a name.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import duly
from duly._app import Parts
from tests.support import ManualClock, eventually

C = TypeVar("C")

Json = dict[str, Any]

FINISHED = ("success", "failed", "canceled")


class Stage:
    """Bodies by name, what they noted, and gates at which they wait."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.bodies: dict[str, Callable[[Any], Any]] = {}
        self.seen: list[Any] = []
        self._gates: dict[str, asyncio.Event] = {}
        self._thread_gates: dict[str, threading.Event] = {}

    def gate(self, name: str) -> asyncio.Event:
        """An event for functions on the loop; the same one for the same name."""
        return self._gates.setdefault(name, asyncio.Event())

    def thread_gate(self, name: str) -> threading.Event:
        """An event for functions in threads; the same one for the same name."""
        return self._thread_gates.setdefault(name, threading.Event())

    def body(self, function: Callable[[C], Awaitable[Any]], /) -> str:
        """Puts a body on the stage; returns its name, to be passed to the functions that perform."""
        self.bodies[function.__name__] = function
        return function.__name__

    def thread_body(self, function: Callable[[C], Any], /) -> str:
        """The same for a plain `def`."""
        self.bodies[function.__name__] = function
        return function.__name__

    async def has_seen(self, number: int) -> list[Any]:
        """Waits until the functions have noted so much."""

        async def look() -> bool:
            return len(self.seen) >= number

        await eventually(look)
        return self.seen


def app_with(app: duly.App, clock: ManualClock | None = None, store: Any = None) -> duly.App:
    """The app with another clock or store."""
    if store is not None:
        app._parts = Parts(clock=clock, store=store)
    else:
        app._parts = Parts(clock=clock)
    return app


async def has_finished(look: Callable[[], Awaitable[Json | None]], kind: str | None = None) -> Json:
    """Waits until a job has finished, and returns its document; `kind` says how it should have."""

    async def finished() -> Json | None:
        job = await look()
        assert job is not None
        return job if job["state"]["kind"] in FINISHED else None

    job = await eventually(finished)
    assert job is not None
    assert kind is None or job["state"]["kind"] == kind, job
    return job
