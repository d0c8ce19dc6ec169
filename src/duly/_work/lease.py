"""Keeping the worker's lease alive, from a thread of its own.

Blocking code in a function stops the event loop and not this thread, so it never makes a live worker look dead. Where
the lease does not lapse, nobody needs it while no action is in progress, and the thread sleeps without waking: an idle
worker does nothing.
"""

import logging
import threading
from typing import Protocol

from duly._store.port import Lease
from duly.errors import StoreError

__all__ = ["Keeper", "LeaseKeeper"]

_log = logging.getLogger("duly")

_NOT_RENEWED = "the lease could not be renewed"


class Keeper(Protocol):
    """Holds the lease while actions are in progress."""

    async def hold(self) -> None: ...
    def rest(self) -> None: ...
    def close(self) -> None: ...


class LeaseKeeper:
    """Started when made. `hold` before the first action is claimed, `rest` when none is left, `close` last of all.

    Args:
        lease: What the store gave this worker.
        every_s: How often to renew it; a third of its length.
    """

    def __init__(self, lease: Lease, every_s: float) -> None:
        self._lease = lease
        self._every_s = every_s
        self._changed = threading.Condition()
        # Both guarded by the condition.
        self._held = False
        self._closed = False
        self._failed = False
        self._thread = threading.Thread(target=self._keep, name="duly lease", daemon=True)
        self._thread.start()

    async def hold(self) -> None:
        """From now on the lease is good, until `rest`."""
        with self._changed:
            if not self._held:
                self._held = True
                self._changed.notify()
        # Also if it is held: a process that was stopped for longer than the lease may come here before its thread.
        try:
            await self._lease.ensure()
        except Exception:
            if self._lease.lapses:
                raise  # nothing is claimed on a lease that may have run out
            _log.exception(_NOT_RENEWED)

    def rest(self) -> None:
        """Nothing of this worker's is in progress."""
        with self._changed:
            self._held = False

    def close(self) -> None:
        """Ends the thread and gives the lease back."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._lease.release()

    def _keep(self) -> None:
        while True:
            with self._changed:
                # Closed before it came to wait: nobody will notify it again.
                if not self._closed:
                    self._changed.wait(self._every_s if self._held or self._lease.lapses else None)
                if self._closed:
                    return
                held = self._held or self._lease.lapses
            if held:
                self._renew()

    def _renew(self) -> None:
        try:
            self._lease.renew()
        except StoreError as error:
            # Tried again in a third of the lease. If it never works, others settle our actions, and we record nothing.
            self._failed = True
            _log.warning("%s: %s", _NOT_RENEWED, error)
        except Exception:  # noqa: BLE001 (the thread must go on whatever a store raises)
            self._failed = True
            _log.exception(_NOT_RENEWED)
        else:
            if self._failed:
                self._failed = False
                _log.warning("the lease is renewed again")
