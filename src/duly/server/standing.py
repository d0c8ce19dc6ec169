"""Who the client of one connection is, and for how long."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

from duly._ground.clock import Clock, Timer
from duly.errors import DulyError
from duly.server.caller import Authenticator, Caller
from duly.server.identity import IdentityError

__all__ = ["Standing"]

# The longest that one timer is set for.
_DAY_S = 86_400.0
# How long a key that was revoked may keep a connection that it had opened.
_LOOK_AGAIN_S = 5.0


class Standing:
    """Nobody in particular, until the client shows something; and that, until it no longer holds.

    Args:
        authenticator: Tells who calls.
        clock: Tells when a token ends, and when to look whether an admin key still holds.
        end: Ends the connection, for a reason: a client that is still wanted comes back with something better.
    """

    def __init__(self, authenticator: Authenticator, clock: Clock, end: Callable[[str], None]) -> None:
        self.caller = Caller()
        self._authenticator = authenticator
        self._clock = clock
        self._end = end
        self._shown: Mapping[str, Any] = {}
        self._timer: Timer | None = None
        self._looking: asyncio.Task[None] | None = None

    async def establish(self, message: Mapping[str, Any]) -> None:
        """By an `Authenticate` message.

        Raises:
            IdentityError: It is no good, and nothing has changed.
        """
        self.caller = await self._authenticator.from_message(message)
        self._shown = message
        self.close()
        self._set_timer()

    def close(self) -> None:
        """Nobody looks any more whether it still holds."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _set_timer(self) -> None:
        left_s = max(0.0, self.caller.expires_at_ms - self._clock.now_ms()) / 1_000
        if self.caller.is_admin:
            self._timer = self._clock.call_later(_LOOK_AGAIN_S, self._start_looking)
        elif left_s < math.inf:
            self._timer = self._clock.call_later(min(left_s, _DAY_S), self._expire)

    def _expire(self) -> None:
        """Clients renew a token before its end; one that did not learns of it, and comes back with another."""
        if self.caller.expires_at_ms > self._clock.now_ms():
            self._set_timer()
        else:
            self._end("the token has expired")

    def _start_looking(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="duly admin key")

    async def _look(self) -> None:
        """What an admin watches goes on without a message: nothing but a look tells that the key was revoked."""
        try:
            await self._authenticator.from_message(self._shown)
        except IdentityError as error:
            self._end(error.message)
            return
        except DulyError:
            pass  # it can't be told at the moment
        self._set_timer()
