"""The rhythm of looking for work: look, sleep until there is a reason to look again, and never give up."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from duly._call.scope import Environment
from duly._ground.tasks import is_being_cancelled
from duly._model.backoff import CONFLICT, OUTAGE, Backoff
from duly._store.port import Topic
from duly._work.outcome import Looked
from duly.errors import ConflictError, StoreError

__all__ = ["Loop", "Rest"]

_log = logging.getLogger("duly")


class Rest(NamedTuple):
    """When to look again: once something is due that came after the store's version `seen`, or at the time `until`.

    After a failure `seen` is None: nothing that is committed makes it come sooner.
    """

    seen: int | None
    until: float | None


class Loop:
    """Calls `look` again and again until `stop`.

    Args:
        environment: The app's.
        topic: What is looked for: which wake-ups matter.
        look: Does the work that is due and says when to come back.
    """

    def __init__(self, environment: Environment, topic: Topic, look: Callable[[], Awaitable[Looked]]) -> None:
        self._environment = environment
        self.topic: Topic = topic
        self._look = look
        self._what = "upkeep" if topic == "upkeep" else f"looking for due {topic}s"
        self._failures = 0
        self._backoff = OUTAGE
        # Whether the log says that it fails, and is still to say that it works again.
        self._told = False
        self._stopping = False
        self._asleep: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ends `run` once the look that is under way has ended: what it claimed is not to be forgotten."""
        self._stopping = True
        if self._asleep is not None:
            self._asleep.cancel()

    async def run(self) -> None:
        while not self._stopping:
            rest = await self.turn()
            if not self.is_ready(rest):
                await self._sleep(rest)

    async def turn(self) -> Rest:
        """Looks once, and tells what came of it. Says when to look again."""
        environment = self._environment
        # Read before looking: what is committed while we look is seen by the sleep that follows.
        seen = environment.store.version(self.topic)
        try:
            looked = await self._look()
        except ConflictError:
            # A mutation waits for longer and longer (rule M3); rescues, and actions that are due, do not.
            return self._after_failure(CONFLICT if self.topic == "mutation" else OUTAGE)
        except StoreError as error:
            if not self._told:
                self._told = True
                _log.warning("%s failed, and goes on until it works: %s", self._what, error)
            return self._after_failure(OUTAGE)
        except (Exception, asyncio.CancelledError):
            if is_being_cancelled():
                raise
            # A bug, ours or a library's. A worker that seems alive and takes nothing would be worse than noise.
            self._told = True
            _log.exception("%s failed, and goes on", self._what)
            return self._after_failure(OUTAGE)
        if self._told:
            # As loud as what said that it fails: who has read that waits for this.
            _log.warning("%s works again", self._what)
            self._told = False
        self._failures = 0
        environment.emit(*looked.events)
        return Rest(seen, -math.inf if looked.more else looked.next_due)

    def is_ready(self, rest: Rest) -> bool:
        """Whether it is time to look again."""
        at = self.ready_at(rest)
        return at is not None and at <= self._environment.clock.now_ms()

    def ready_at(self, rest: Rest) -> float | None:
        """When (ms) it is time to look again, as far as that is known by now; None for not before something is due."""
        if rest.seen is None:
            return rest.until
        due = self._environment.store.due_since(self.topic, rest.seen)
        if due is None or rest.until is None:
            return rest.until if due is None else due
        return min(due, rest.until)

    async def _until_ready(self, rest: Rest) -> None:
        environment = self._environment
        if rest.seen is None:
            assert rest.until is not None, "a failure is followed by a pause"
            await environment.clock.sleep((rest.until - environment.clock.now_ms()) / 1_000)
            return
        while not self.is_ready(rest):
            # What has come so far is for later; what comes sooner ends the wait.
            await environment.store.wait(self.topic, environment.store.version(self.topic), self.ready_at(rest))

    def _after_failure(self, backoff: Backoff) -> Rest:
        # Of one kind in a row: after an outage, which takes many, the first conflict is the first.
        self._failures = self._failures + 1 if backoff is self._backoff else 1
        self._backoff = backoff
        pause = backoff.delay_ms(self._failures, self._environment.entropy.uniform())
        return Rest(None, self._environment.clock.now_ms() + pause)

    async def _sleep(self, rest: Rest) -> None:
        if self._stopping:
            return
        self._asleep = asyncio.get_running_loop().create_task(self._until_ready(rest))
        try:
            await asyncio.wait({self._asleep})
            if not self._asleep.cancelled():
                self._asleep.result()
        finally:
            self._asleep.cancel()
            self._asleep = None
