"""The lease keeper: a thread that must end when it is told to, whatever it is doing just then."""

import asyncio
import threading

from duly._work.lease import LeaseKeeper


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
