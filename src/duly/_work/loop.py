"""The rhythm of looking for work: look, sleep until there is a reason to look again, and never give up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from duly._call.scope import Environment
from duly._ground.tasks import is_being_cancelled
from duly._model.backoff import CONFLICT, OUTAGE
from duly._store.port import Topic
from duly._work.outcome import Looked
from duly.errors import ConflictError, StoreError

__all__ = ["Loop"]

_log = logging.getLogger("duly")


class Loop:
    """Calls `look` again and again until `stop`.

    Args:
        environment: The app's.
        topic: What is looked for: which wake-ups matter.
        look: Does the work that is due and says when to come back.
    """

    def __init__(self, environment: Environment, topic: Topic, look: Callable[[], Awaitable[Looked]]) -> None:
        self._environment = environment
        self._topic: Topic = topic
        self._look = look
        self._stopping = False
        self._asleep: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ends `run` once the look that is under way has ended: what it claimed is not to be forgotten."""
        self._stopping = True
        if self._asleep is not None:
            self._asleep.cancel()

    async def run(self) -> None:
        store = self._environment.store
        failures = 0
        while not self._stopping:
            # Read before looking: what is committed while we look is seen by the sleep that follows.
            seen = store.version(self._topic)
            try:
                looked = await self._look()
            except ConflictError:
                failures += 1
                await self._pause(CONFLICT.delay_ms(failures, self._environment.entropy.uniform()))
                continue
            except StoreError as error:
                failures += 1
                if failures == 1:
                    _log.warning("looking for due %ss failed, and goes on until it works: %s", self._topic, error)
                await self._pause(OUTAGE.delay_ms(failures, self._environment.entropy.uniform()))
                continue
            except (Exception, asyncio.CancelledError):
                if is_being_cancelled():
                    raise
                # A bug, ours or a library's. A worker that seems alive and takes nothing would be worse than noise.
                failures += 1
                _log.exception("looking for due %ss failed, and goes on", self._topic)
                await self._pause(OUTAGE.delay_ms(failures, self._environment.entropy.uniform()))
                continue
            if failures:
                _log.info("looking for due %ss works again", self._topic)
            failures = 0
            self._environment.emit(*looked.events)
            if not looked.more and not self._stopping:
                await self._sleep(store.wait(self._topic, seen, looked.next_due))

    async def _pause(self, delay_ms: float) -> None:
        await self._sleep(self._environment.clock.sleep(delay_ms / 1_000))

    async def _sleep(self, sleep: Coroutine[Any, Any, None]) -> None:
        if self._stopping:
            sleep.close()
            return
        self._asleep = asyncio.get_running_loop().create_task(sleep)
        try:
            await asyncio.wait({self._asleep})
            if not self._asleep.cancelled():
                self._asleep.result()
        finally:
            self._asleep.cancel()
            self._asleep = None
