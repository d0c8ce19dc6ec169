"""The connections of one process, made when they are needed."""

import asyncio
import contextlib

import psycopg

from duly._store.postgresql.address import Address
from duly._store.postgresql.wire import Wire
from duly.errors import AppNotOpenError

__all__ = ["Pool"]


class Pool:
    """At most so many connections at once; whoever comes when all are taken waits.

    Args:
        address: Where to.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._free = asyncio.Semaphore(address.pool)
        self._idle: list[Wire] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def take(self) -> Wire:
        """Raises `StoreError`, `StoreUnavailableError`."""
        await self._free.acquire()
        try:
            if self._closed:
                raise AppNotOpenError
            while self._idle:
                wire = self._idle.pop()
                if not wire.hung_up:
                    return wire
                self._dismiss(wire)
            return await Wire.connect(self._address)
        except BaseException:
            self._free.release()
            raise

    def give(self, wire: Wire) -> None:
        """Back. One that is in the middle of something is closed: so the server undoes it."""
        self._free.release()
        if self._closed or wire.closed or wire.in_transaction:
            self._dismiss(wire)
        else:
            self._idle.append(wire)

    def forget_idle(self) -> None:
        """One was found dead: those that nobody used meanwhile are likely to be, too."""
        idle, self._idle = self._idle, []
        for wire in idle:
            self._dismiss(wire)

    def _dismiss(self, wire: Wire) -> None:
        wire.break_off()
        task = asyncio.get_running_loop().create_task(_close(wire), name="duly disconnect")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for wire in idle:
            await _close(wire)
        if self._leaving:
            await asyncio.wait(self._leaving)


async def _close(wire: Wire) -> None:
    with contextlib.suppress(psycopg.Error):
        await wire.close()
