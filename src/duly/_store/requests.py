"""What waits for its turn in a transaction."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["GroupLostError", "Request"]


class Request:
    """A body that waits for its turn, and whom to tell."""

    __slots__ = ("body", "future", "outcome")

    def __init__(self, body: Callable[[Any], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
        self.body = body
        self.future = future
        self.outcome: Any = None

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def succeed(self) -> None:
        future = self.future
        if not future.done():
            future.set_result(self.outcome)


class GroupLostError(Exception):
    """The engine gave up the whole transaction; `fault` says why."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__(fault)
        self.fault = fault
