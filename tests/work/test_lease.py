"""The lease keeper: a thread that must end when it is told to, whatever it is doing just then."""

import asyncio
import threading

import pytest

from duly._work.lease import LeaseKeeper
from duly.errors import StoreUnavailableError
from tests.support import eventually


class SlowLease:
    """A lease whose renewal on the keeper's thread takes until it is let go."""

    lapses = False

    def __init__(self) -> None:
        self.renewing = threading.Event()
        self.go = threading.Event()
        self.released = threading.Event()

    def renew(self) -> None:
        if threading.current_thread().name == "duly lease":
            self.renewing.set()
            assert self.go.wait(20)

    async def ensure(self) -> None:
        self.renew()

    def release(self) -> None:
        self.released.set()


def test_a_keeper_that_is_closed_while_it_does_not_wait_ends_all_the_same() -> None:
    lease = SlowLease()
    keeper = LeaseKeeper(lease, 0.001)
    asyncio.run(keeper.hold())
    assert lease.renewing.wait(20)
    keeper.rest()
    closing = threading.Thread(target=keeper.close, daemon=True)
    closing.start()
    while not keeper._closed:
        closing.join(0.001)
    lease.go.set()
    closing.join(20)
    assert lease.released.is_set()


class FailingLease:
    """A lease that can't be renewed while `down`."""

    lapses = True
    down = True
    renewals = 0

    def renew(self) -> None:
        self.renewals += 1
        if self.down:
            raise StoreUnavailableError("the store is down")

    async def ensure(self) -> None: ...

    def release(self) -> None: ...


async def test_that_it_is_renewed_again_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lease = FailingLease()
    keeper = LeaseKeeper(lease, 0.001)

    async def renewed() -> bool:
        return lease.renewals > 3

    await eventually(renewed)
    lease.down, lease.renewals = False, 0
    await eventually(renewed)
    keeper.close()
    *before, last = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert set(before) == {("WARNING", "the lease could not be renewed: the store is down")}
    assert last == ("WARNING", "the lease is renewed again")
