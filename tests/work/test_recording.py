"""What ends in a bad moment: while the store is down, while the worker stops, while a validator breaks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import pytest
from pydantic import BeforeValidator

import duly
from duly._app import Parts
from duly._ground.clock import Clock, SystemClock
from duly._store.port import Transaction
from duly._work.lease import LeaseKeeper
from duly.errors import StoreUnavailableError
from tests.support import FaultyStore, ManualClock, eventually

T = TypeVar("T")


class Outage(FaultyStore):
    """A store that is down while `down` is true."""

    down = False
    refused = 0

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        if self.down:
            self.refused += 1
            raise StoreUnavailableError("the store is down")
        return await super().transact(body, claims=claims)


class Stage:
    """What the functions below look at."""

    gate: asyncio.Event
    broken = False


def refuse_if_broken(value: object) -> object:
    if Stage.broken:
        raise KeyError("a bug in a validator, which pydantic does not catch")
    return value


@duly.action
async def wait_for_gate(ctx: duly.ActionCtx) -> None:
    await Stage.gate.wait()


@duly.action
async def picky(ctx: duly.ActionCtx, value: Annotated[int, BeforeValidator(refuse_if_broken)]) -> None: ...


@duly.query
async def job(ctx: duly.QueryCtx, id: duly.Id[duly.ScheduledFunction]) -> duly.ScheduledFunction | None:
    return await ctx.db.system.get(id)


async def state_of(app: duly.App, id: duly.Id[duly.ScheduledFunction]) -> str:
    found = await app.query(job, id=id)
    assert found is not None
    return found["state"]["kind"]


async def until_state(app: duly.App, id: duly.Id[duly.ScheduledFunction], kind: str) -> None:
    async def there() -> bool:
        return await state_of(app, id) == kind

    await eventually(there)


def app_with_outages(database: str, clock: Clock, *, drain: timedelta) -> tuple[duly.App, list[Outage]]:
    Stage.gate = asyncio.Event()
    stores: list[Outage] = []

    def make_store(url: str, clock: Clock) -> Outage:
        stores.append(Outage(url, clock))
        return stores[-1]

    app = duly.App(__name__, database=database, drain=drain)
    app._parts = Parts(clock=clock, store=make_store)
    return app, stores


async def test_A2_an_outcome_is_recorded_soon_after_a_long_outage(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    app, stores = app_with_outages(database, clock, drain=timedelta(0))
    async with app:
        job_id = await app.scheduler.run_after(0, wait_for_gate)
        await until_state(app, job_id, "inProgress")
        stores[0].down = True
        Stage.gate.set()
        await clock.advance(300)
        assert stores[0].refused > 100
        assert await state_of(app, job_id) == "inProgress"
        stores[0].down = False
        await clock.advance(6)
        assert await state_of(app, job_id) == "success"
    # Both at the same level: who reads the one reads the other.
    assert [(record.levelname, record.getMessage()) for record in caplog.records if "outcome" in record.message] == [
        ("WARNING", f"the outcome of {job_id} is not recorded yet, and will be: the store is down"),
        ("WARNING", f"the outcome of {job_id} (success) is recorded now"),
    ]


async def test_that_looking_works_again_is_logged_once_and_as_loud_as_that_it_failed(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    app, stores = app_with_outages(database, clock, drain=timedelta(0))
    Stage.gate.set()
    async with app:
        job_id = await app.scheduler.run_after(1_000, wait_for_gate)
        await clock.advance(0.5)
        stores[0].down = True
        await clock.advance(300)
        stores[0].down = False
        await clock.advance(300)
        await until_state(app, job_id, "success")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if "due action" in record.message]
    assert lines == [
        ("WARNING", "looking for due actions failed, and goes on until it works: the store is down"),
        ("WARNING", "looking for due actions works again"),
    ]


async def test_A2_a_stop_does_not_lose_an_outcome_that_is_still_to_be_written(file_database: str) -> None:
    app, stores = app_with_outages(file_database, SystemClock(), drain=timedelta(0))
    async with app:
        job_id = await app.scheduler.run_after(0, wait_for_gate)
        await until_state(app, job_id, "inProgress")
        stores[0].down = True
        refused = stores[0].refused
        Stage.gate.set()

        async def tried() -> bool:
            return stores[0].refused > refused

        await eventually(tried)
        stores[0].down = False
    async with app.client():
        assert await state_of(app, job_id) == "success"


async def test_a_stop_says_that_it_waits_for_an_outcome_to_be_recorded(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    app, stores = app_with_outages(database, clock, drain=timedelta(0))

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "the stop waits" in record.getMessage()]

    async with app:
        job_id = await app.scheduler.run_after(0, wait_for_gate)
        await until_state(app, job_id, "inProgress")
        stores[0].down = True
        stopping = asyncio.ensure_future(app._stop(timedelta(0)))
        await clock.advance(4.5)
        assert said() == []
        await clock.advance(60)
        assert said() == [f"the stop waits until the database takes the outcome of {job_id}"]
        assert not stopping.done()
        stores[0].down = False
        await clock.advance(6)
        await stopping
        assert await state_of(app, job_id) == "failed"


async def test_S3_arguments_that_break_their_validator_fail_their_job_and_hold_up_no_other(database: str) -> None:
    app = duly.App(__name__, database=database)
    Stage.gate = asyncio.Event()
    Stage.gate.set()
    async with app:
        poison = await app.scheduler.run_after(100, picky, value=1)
        Stage.broken = True
        try:
            other = await app.scheduler.run_after(110, wait_for_gate)
            await until_state(app, other, "success")
            assert await state_of(app, poison) == "failed"
        finally:
            Stage.broken = False


class CountingLease:
    lapses = False
    renewed = 0

    def renew(self) -> None:
        self.renewed += 1

    async def ensure(self) -> None:
        self.renew()

    def release(self) -> None: ...


async def test_A3_a_lease_is_renewed_before_each_claim_even_if_it_is_held() -> None:
    """The process may have been stopped since the thread renewed it last."""
    lease = CountingLease()
    keeper = LeaseKeeper(lease, 3_600)
    await keeper.hold()
    await keeper.hold()
    keeper.close()
    assert lease.renewed == 2
