"""Telling a cancellation that is meant for us from one that merely passes through."""

import asyncio

__all__ = ["is_being_cancelled"]


def is_being_cancelled() -> bool:
    """Whether the task that runs now was asked to end: by whoever owns it, or because the event loop shuts down."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
