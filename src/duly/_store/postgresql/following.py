"""Those who follow what is committed: from when on every writer knows of them."""

from collections.abc import Awaitable, Callable, Sequence

from duly._ground.clock import SystemClock
from duly._store.postgresql.shared import Shared
from duly._store.postgresql.waking import Waking
from duly._store.postgresql.wire import Answer, Statement

__all__ = ["Following"]

# Longer than a short transaction can take to commit. A long one says what it wrote in any case, and so does somebody
# else's that duly was enlisted in.
_SETTLED_S = 25.0
# One that began before may see only when we would have stopped, had we not gone on: so that has to be well before then.
_AHEAD_MS = 10_000
_SETTLED_PAUSE_S = 0.01
# By when a transaction of duly's, which begins with a question, has left a trace that tells it from others.
_TELLS_ITSELF_S = 1.0
_REAL = SystemClock()
"""Other processes are in the real world, also in a test that stops time."""


class Following:
    """This process as one of them.

    Args:
        shared: The store's statements and clock.
        waking: Hears what others commit.
        ask: Runs statements outside of any transaction of ours.
    """

    def __init__(
        self, shared: Shared, waking: Waking, ask: Callable[[Sequence[Statement]], Awaitable[list[Answer]]]
    ) -> None:
        self._shared = shared
        self._waking = waking
        self._ask = ask
        # Until when (ms) those who write know of us.
        self._until = 0.0

    async def follow(self, follower: str, seconds: float) -> None:
        shared = self._shared
        now = shared.clock.now_ms()
        until = now + seconds * 1_000
        await self._ask([Statement(shared.sql["follower_put"], (follower, until, now))])
        if shared.follows and now < self._until - _AHEAD_MS:
            self._until = until
            return
        shared.follows = follower
        self._waking.start()
        self._waking.tell({"upkeep": None})
        await self._settle()
        self._until = until

    async def _settle(self) -> None:
        """Waits for the transactions that are open: also one that has written nothing so far may not know of us."""
        sql = self._shared.sql
        began = _REAL.monotonic()
        deadline = began + _SETTLED_S
        there = (await self._ask([Statement(sql["transactions_open"])]))[0].rows[0][0]
        while (now := _REAL.monotonic()) < deadline:
            settled = Statement(sql["transactions_ended"], (there, now - began < _TELLS_ITSELF_S))
            if (await self._ask([settled]))[0].rows[0][0]:
                return
            await _REAL.sleep(_SETTLED_PAUSE_S)

    async def unfollow(self, follower: str) -> None:
        self._shared.follows = ""
        await self._ask([Statement(self._shared.sql["follower_delete"], (follower,))])
