"""Plain `def` actions: each in a thread of its own, from which its ctx reaches back to the event loop."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["blocker", "in_thread", "without_exit"]

T = TypeVar("T")


async def in_thread(name: str, call: Callable[[], T]) -> T:
    """Runs a call in a daemon thread: one that hangs does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return  # nobody waits any more: timed out, or the worker stops
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError(f"{name} raised StopIteration"))
        else:
            future.set_exception(error)

    def target() -> None:
        result, error = None, None
        try:
            result = context.run(call)
        except BaseException as raised:  # noqa: BLE001 (it is the action's, and is raised on the loop)
            error = raised
        # If the loop has closed, the process is ending, and the next worker settles the job.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=target, name=f"duly {name}", daemon=True).start()
    return await future


def blocker(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """What the ctx of a plain action calls to run a coroutine on the loop and wait for it in the thread."""

    def block(coroutine: Coroutine[Any, Any, Any]) -> Any:
        body = without_exit(coroutine)
        try:
            result, left = asyncio.run_coroutine_threadsafe(body, loop).result()
        except RuntimeError:
            body.close()
            coroutine.close()
            raise
        if left is not None:
            raise left
        return result

    return block


async def without_exit(body: Coroutine[Any, Any, T]) -> tuple[T | None, SystemExit | None]:
    """A task that ends with SystemExit takes the event loop, and so the worker, with it: hand it over instead."""
    try:
        return await body, None
    except SystemExit as error:
        return None, error
