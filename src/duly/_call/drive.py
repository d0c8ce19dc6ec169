"""Driving a handler that must not wait for anything but its database calls (rule T3).

On SQLite database calls never suspend, so a well-behaved handler runs from its first line to its last in one go, and
none of the machinery below is set up. One that suspends is watched: gathering database calls is fine and takes a few
turns of the event loop; several turns without a database call mean that it waits for the world, while every other
mutation waits for it.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from duly._call.scope import Scope
from duly.errors import DulyError, MutationWaitError

__all__ = ["Drive", "begin", "inside"]

_TURNS_MAX = 10
_ASKING_S = 0.01

inside: contextvars.ContextVar[str | None] = contextvars.ContextVar("duly_inside", default=None)
"""The path of the query or mutation that is running: calling the app from inside it would wait for itself."""


def begin(path: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a handler up to where it first suspends, if it does. To be called in a context of its own.

    Raises:
        StopIteration: It has returned.
    """
    inside.set(path)
    try:
        return coroutine.send(None)
    except GeneratorExit as error:
        raise _of_its_own_making(path) from error


def _of_its_own_making(path: str) -> RuntimeError:
    """In place of a handler's GeneratorExit, which further out would be taken for the end of the event loop."""
    return RuntimeError(f"{path!r} raised GeneratorExit")


class Drive:
    """Awaits a handler that has suspended, within its limits.

    Args:
        coroutine: The handler, begun.
        awaited: What it waits for.
        context: What it runs in: of its own, so that nothing it sets is seen by the next handler on the same task.
        scope: Its scope; `scope.deadline` is None for a query, which holds nobody up.
        waits: Called once with the scope and where the handler waits for the world; returns the error to end it with,
            or None.
    """

    _error: DulyError | None = None
    _handle: asyncio.Handle | None = None
    _turns = 0
    _calls_seen = 0
    _asked = False

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        awaited: Any,
        context: contextvars.Context,
        scope: Scope,
        waits: Callable[[Scope, str], MutationWaitError | None],
    ) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._context = context
        self._scope = scope
        self._waits = waits
        self._task = asyncio.current_task()
        # How often the handler cancelled the task that it runs on.
        self._own_cancels = self._cancelling()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._suspended(self._awaited)

    def _suspended(self, awaited: Any) -> Generator[Any, Any, Any]:
        timer = None
        if self._scope.deadline is not None:
            clock = self._scope.environment.clock
            timer = clock.call_later(
                max(0.0, self._scope.deadline - clock.monotonic()),
                lambda: self._interrupt(self._scope.out_of_time()),
            )
        try:
            while True:
                self._watch()
                try:
                    sent = yield awaited
                except GeneratorExit:
                    self._coroutine.close()  # the event loop is gone
                    raise
                except BaseException as error:  # noqa: BLE001 (whatever it is, it is the handler's)
                    resume: Callable[[Any], Any] = self._coroutine.throw
                    sent = self._take_error(error)
                else:
                    resume = self._coroutine.send
                finally:
                    if self._handle is not None:
                        self._handle.cancel()
                try:
                    awaited = self._step(resume, sent)
                except StopIteration as stop:
                    if self._error is not None:
                        raise self._error from None  # it swallowed the interruption
                    return stop.value
                if self._error is not None:
                    # It swallowed the interruption, and waits again. It may swallow its end as well.
                    with contextlib.suppress(RuntimeError):
                        self._coroutine.close()
                    raise self._error
        finally:
            if timer is not None:
                timer.cancel()
                self._undo_own_cancels()

    def _step(self, resume: Callable[[Any], Any], sent: Any) -> Any:
        before = self._cancelling()
        try:
            return self._context.run(resume, sent)
        except GeneratorExit as error:
            raise _of_its_own_making(self._scope.path) from error
        finally:
            self._own_cancels = max(0, self._own_cancels + self._cancelling() - before)

    def _cancelling(self) -> int:
        return 0 if self._task is None else self._task.cancelling()

    def _undo_own_cancels(self) -> None:
        """A mutation runs on the writer's task. One that cancels it means itself, and the writer goes on to others."""
        for _ in range(self._own_cancels):
            if self._task is not None:
                self._task.uncancel()

    def _watch(self) -> None:
        """A query has no deadline, holds nobody up, and may wait for what it likes."""
        if self._scope.deadline is None:
            return
        self._turns = 0
        self._calls_seen = self._scope.usage.calls
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        if self._scope.usage.calls != self._calls_seen:
            self._calls_seen, self._turns = self._scope.usage.calls, 0
        self._turns += 1
        self._asked = self._asked or self._scope.tx.asking > 0
        if self._turns <= _TURNS_MAX:
            self._handle = asyncio.get_running_loop().call_soon(self._turn)
            return
        if self._asked:
            # An engine takes its time. Whoever gathers something else with it is found out a little later.
            self._turns, self._asked = 0, False
            self._handle = asyncio.get_running_loop().call_later(_ASKING_S, self._turn)
            return
        error = self._waits(self._scope, self._where())
        if error is not None:
            self._interrupt(error)

    def _interrupt(self, error: DulyError) -> None:
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    def _take_error(self, error: BaseException) -> BaseException:
        """What the handler sees of an interruption: our error in place of the cancellation that carried it."""
        if self._error is not None and isinstance(error, asyncio.CancelledError) and self._task is not None:
            self._task.uncancel()
            return self._error
        return error

    def _where(self) -> str:
        frame = getattr(self._coroutine, "cr_frame", None)
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown line"
