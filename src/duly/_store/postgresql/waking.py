"""Waking other processes: LISTEN and NOTIFY, and a slow poll behind it.

A notification is a hint that may get lost, or never come at all: through a pooler that gives each transaction another
session, or on a distributed database that knows none. So every worker also asks once a second what is due next, in one
statement.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

import psycopg

from duly._ground.clock import SystemClock
from duly._store.port import TOPICS, Topic
from duly._store.postgresql.address import Address
from duly._store.postgresql.shared import Shared
from duly._store.postgresql.wire import Answer, Statement, Wire
from duly._store.signal import Signal
from duly.errors import DulyError

__all__ = ["Waking", "channel_of", "token"]

_log = logging.getLogger("duly")

_POLL_S = 1.0
_PRUNE_POLLS = 60
_PRUNED_MAX = 10_000
_TOKENS_S = 600
_RECONNECT_S = 1.0
# So often one commit tells others by itself.
_WORD_S = 0.01
_REAL = SystemClock()
"""Other processes are in the real world, also in a test that stops time."""
_TOPICS: dict[str, Topic] = {topic[0]: topic for topic in TOPICS}


class Word(NamedTuple):
    """What others are told, and of what."""

    topics: frozenset[Topic]
    statement: Statement


class Waking:
    """Tells others of our commits, and our sleepers of theirs.

    Args:
        address: Where the database is.
        shared: The store's statements and clock.
        signal: What our own sleepers wait for.
        ask: Runs statements outside of any transaction of ours.
    """

    def __init__(
        self,
        address: Address,
        shared: Shared,
        signal: Signal,
        ask: Callable[[Sequence[Statement]], Awaitable[list[Answer]]],
    ) -> None:
        self._address = address
        self._shared = shared
        self._signal = signal
        self._ask = ask
        self._channel = channel_of(address.schema)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: dict[Topic, float | None] = {}
        self._sender: asyncio.Task[None] | None = None
        self._word_at = -math.inf
        self._glance = asyncio.Event()
        self._listening = False
        self._polls = 0
        self._polled: dict[Topic, float | None] = {}
        # The ids of the other workers, as of the last poll.
        self.others: str | None = None

    # Telling.

    def word_of(self, made_work: dict[Topic, float | None]) -> Word | None:
        """Before a commit: what others can be told right behind it, with no round trip more.

        Only the first for a while: where one commit follows the other, they are told together, by `tell`.
        """
        now = self._shared.clock.monotonic()
        work: dict[Topic, float | None] = {
            topic: due for topic, due in made_work.items() if self._concerns_others(topic)
        }
        if not work or self._sender is not None or now - self._word_at < _WORD_S:
            return None
        self._word_at = now
        return Word(frozenset(work), self._statement_of(work))

    def tell(self, made_work: dict[Topic, float | None], *, told: Collection[Topic] = ()) -> None:
        """After a commit: wakes our own sleepers, and soon those of others, but for what these have been told."""
        for topic, due in made_work.items():
            self._notify(topic, due)
            if topic in told or not self._concerns_others(topic):
                continue
            earliest = self._unsent.get(topic, due)
            self._unsent[topic] = None if due is None or earliest is None else min(due, earliest)
        if self._unsent and self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send(), name="duly notify")
            self._tasks.add(self._sender)

    def _concerns_others(self, topic: Topic) -> bool:
        return topic == "upkeep" or not self._shared.worker or self.others is not None

    def _statement_of(self, work: dict[Topic, float | None]) -> Statement:
        payload = " ".join(token(topic, due) for topic, due in work.items())
        return Statement(self._shared.sql["notify"], (self._channel, payload))

    async def _send(self) -> None:
        """What is told while one is on the way goes with the next."""
        try:
            while self._unsent:
                statement = self._statement_of(self._unsent)
                self._unsent.clear()
                with contextlib.suppress(DulyError):  # the poll will see
                    await self._ask([statement])
        finally:
            task, self._sender = self._sender, None
            if task is not None:
                self._tasks.discard(task)

    # Being told.

    def start(self) -> None:
        """From now on others wake our sleepers."""
        if self._listening:
            return
        self._listening = True
        loop = asyncio.get_running_loop()
        self._tasks.add(loop.create_task(self._poll(), name="duly poll"))
        if self._address.listen:
            self._tasks.add(loop.create_task(self._listen(), name="duly listen"))

    async def stop(self) -> None:
        tasks = set(self._tasks)
        if self._sender is not None:
            # It tells of what is committed, and may as well end.
            await asyncio.wait({self._sender})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._listening = False

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(DulyError, psycopg.Error):
                wire = await Wire.connect(self._address)
                try:
                    await wire.run([Statement(f'LISTEN "{self._channel}"')])
                    self._look_everywhere()  # what came before may have been missed
                    async for notification in wire.connection.notifies():
                        self._receive(notification.payload)
                finally:
                    with contextlib.suppress(psycopg.Error):
                        await wire.close()
            await _REAL.sleep(_RECONNECT_S)

    def _receive(self, payload: str) -> None:
        for token in payload.split():
            topic = _TOPICS.get(token[0])
            if topic == "upkeep":
                self._glance.set()
            if topic is not None:
                with contextlib.suppress(ValueError):
                    self._notify(topic, float(token[1:]) if token[1:] else None)

    def _notify(self, topic: Topic, due: float | None) -> None:
        if due is None:
            self._shared.nothing_parked = False  # as after a job was parked
        self._signal.notify(topic, due)

    def _look_everywhere(self) -> None:
        for topic in _TOPICS.values():
            self._notify(topic, None)

    async def _poll(self) -> None:
        while True:
            await self._until_next_poll()
            try:
                await self.poll()
            except DulyError:
                pass  # whoever looks for work says what is wrong
            except Exception:  # noqa: BLE001 (a worker that seems alive and is deaf would be worse than noise)
                _log.exception("asking what is due next failed, and goes on")

    async def _until_next_poll(self) -> None:
        """A second; less if somebody came or went."""
        timer = _REAL.call_later(_POLL_S, self._glance.set)
        try:
            await self._glance.wait()
        finally:
            timer.cancel()
            self._glance.clear()

    async def poll(self) -> None:
        shared = self._shared
        now = shared.clock.now_ms()
        answers = await self._ask([Statement(shared.sql["poll"], (now, f"{shared.worker} {shared.follows}"))])
        mutation, action, parked, others = answers[0].rows[0]
        if parked and shared.nothing_parked:
            self._look_everywhere()
        shared.nothing_parked = not parked
        found: dict[Topic, Any] = {"mutation": mutation, "action": action}
        for topic, due in found.items():
            if due is not None and (due != self._polled.get(topic) or due <= now):
                self._signal.notify(topic, due)
            self._polled[topic] = due
        self._polls += 1
        if self._polls % _PRUNE_POLLS == 0:
            await self._ask([Statement(shared.sql["commits_prune"], (shared.token_time(_TOKENS_S),))])
            # What those wrote of whom nobody knew whether somebody follows.
            before = now - _TOKENS_S * 1_000
            place = (await self._ask([Statement(shared.sql["changes_place"])]))[0].rows[0][0]
            prune = Statement(shared.sql["changes_prune"], (before, _PRUNED_MAX, shared.ended_before(before, place)))
            await self._ask([prune])
        if self._shared.follows:
            self._signal.notify("change")  # of which no notification may have come
        if others != self.others:
            self.others = others
            self._signal.notify("upkeep")


def channel_of(schema: str) -> str:
    """Where those who share a schema listen."""
    return f"duly_{schema}"


def token(topic: Topic, due: float | None) -> str:
    """That there is work, and when it is due (now if None). A notification has one or more of these."""
    return f"{topic[0]}{'' if due is None else repr(due)}"
