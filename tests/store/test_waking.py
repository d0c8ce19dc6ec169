"""Waking who waits for work, and knowing which workers live."""

import asyncio

import pytest

from duly._model.job import Job
from duly._store.port import Rescued, Store, Topic, Transaction
from tests.store.conftest import Stores
from tests.store.engines import Engine
from tests.store.rows import NOW, add_jobs, job_of, new_job, state_of
from tests.support import DEADLINE_S, ManualClock, eventually

TOPICS: list[Topic] = ["mutation", "action", "upkeep"]


def waiting(store: Store, topic: Topic, until: float | None = None) -> asyncio.Task[None]:
    """Waits from now on: the version is read before anything else can happen."""
    since = store.version(topic)

    async def wait() -> None:
        await store.wait(topic, since, until)

    return asyncio.create_task(wait())


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


# --- waiting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_a_commit_that_makes_work_wakes_who_waits_for_it(store: Store, kind: Topic) -> None:
    sleeper, another = waiting(store, kind), waiting(store, kind)
    await turns()
    assert not sleeper.done()
    before = store.version(kind)
    await add_jobs(store, new_job(kind="mutation" if kind == "mutation" else "action"))
    await asyncio.wait_for(asyncio.gather(sleeper, another), DEADLINE_S)
    assert store.version(kind) > before


async def test_work_of_the_other_kind_wakes_nobody(store: Store) -> None:
    sleeper = waiting(store, "action")
    await add_jobs(store, new_job(kind="mutation"))
    await turns()
    assert not sleeper.done()
    sleeper.cancel()


async def test_a_transaction_that_fails_wakes_nobody(store: Store) -> None:
    class NoError(Exception):
        pass

    async def body(tx: Transaction) -> None:
        await tx.insert_job(new_job())
        raise NoError

    sleeper = waiting(store, "mutation")
    with pytest.raises(NoError):
        await store.transact(body)
    await turns()
    assert not sleeper.done()
    sleeper.cancel()


async def test_nobody_is_woken_before_the_commit(store: Store) -> None:
    job, written, goon = new_job(), asyncio.Event(), asyncio.Event()

    async def body(tx: Transaction) -> None:
        await tx.insert_job(job)
        written.set()
        await goon.wait()

    sleeper = waiting(store, "mutation")
    writing = asyncio.ensure_future(store.transact(body))
    await written.wait()
    await turns()
    too_early = sleeper.done()
    goon.set()
    assert not too_early
    await asyncio.wait_for(sleeper, DEADLINE_S)
    assert await store.read(lambda tx: tx.due_jobs("mutation", NOW, 1)) == [job]
    await writing


async def test_what_came_between_looking_and_waiting_is_not_missed(store: Store) -> None:
    since = store.version("mutation")
    assert await store.read(lambda tx: tx.due_jobs("mutation", NOW, 1)) == []
    await add_jobs(store, new_job())
    await asyncio.wait_for(store.wait("mutation", since, None), DEADLINE_S)


async def test_no_wake_up_is_lost_however_often_it_is_looked(store: Store) -> None:
    jobs = [new_job(due=NOW + number) for number in range(60)]
    found: list[Job] = []

    async def look(tx: Transaction) -> None:
        for job in await tx.due_jobs("mutation", NOW + 100, 5):
            assert await tx.settle_job(job.id, "pending", 0, "success", NOW, started=NOW)
            found.append(job)

    async def worker() -> None:
        while len(found) < len(jobs):
            since = store.version("mutation")
            before = len(found)
            await store.transact(look)
            if len(found) == before:
                await store.wait("mutation", since, None)

    async def scheduler() -> None:
        for number, job in enumerate(jobs):
            await add_jobs(store, job)
            for _ in range(number % 7):
                await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(worker(), scheduler()), DEADLINE_S)
    assert found == jobs


async def test_a_time_that_has_come_ends_the_wait(engine: Engine, stores: Stores) -> None:
    clock = ManualClock(NOW)
    store = await stores.open(engine, clock=clock)
    await asyncio.wait_for(store.wait("mutation", store.version("mutation"), NOW), DEADLINE_S)
    await asyncio.wait_for(store.wait("mutation", store.version("mutation"), NOW - 1), DEADLINE_S)
    sleeper = waiting(store, "mutation", NOW + 2_000)
    await clock.advance(1.999)
    assert not sleeper.done()
    await clock.advance(0.001)
    await asyncio.wait_for(sleeper, DEADLINE_S)


async def test_work_that_is_due_sooner_ends_the_wait_for_later_work(engine: Engine, stores: Stores) -> None:
    clock = ManualClock(NOW)
    store = await stores.open(engine, clock=clock)
    sleeper = waiting(store, "mutation", NOW + 60_000)
    await turns()
    await add_jobs(store, new_job(due=NOW + 30_000))
    await asyncio.wait_for(sleeper, DEADLINE_S)


async def test_a_wait_can_be_given_up(store: Store) -> None:
    for topic in TOPICS:
        sleeper = waiting(store, topic)
        await turns()
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
    sleeper = waiting(store, "mutation")
    await add_jobs(store, new_job())
    await asyncio.wait_for(sleeper, DEADLINE_S)


async def test_what_makes_a_job_run_elsewhere_or_later_wakes(store: Store) -> None:
    parked, turned, postponed = new_job(), new_job(), new_job()
    await add_jobs(store, parked, turned, postponed)
    sleeper = waiting(store, "mutation")
    assert await store.transact(lambda tx: tx.park_job(parked.id, 0, "not here"))
    await asyncio.wait_for(sleeper, DEADLINE_S)
    sleeper = waiting(store, "action")
    assert await store.transact(lambda tx: tx.set_job_kind(turned.id, 0, "action"))
    await asyncio.wait_for(sleeper, DEADLINE_S)
    sleeper = waiting(store, "mutation")
    assert await store.transact(lambda tx: tx.postpone_job(postponed.id, 0, NOW + 1, "busy"))
    await asyncio.wait_for(sleeper, DEADLINE_S)


# --- other stores on the same database ------------------------------------------------------------------------------


async def test_workers_on_one_database_know_of_each_other(durable_engine: Engine, stores: Stores) -> None:
    one, two = await stores.open(durable_engine), await stores.open(durable_engine)
    lease_one = await one.register_worker("one", 10, {})
    assert not one.shared
    upkeep = waiting(one, "upkeep")
    lease_two = await two.register_worker("two", 10, {})
    assert two.shared
    await asyncio.wait_for(upkeep, DEADLINE_S)
    await eventually(lambda: shared(one))

    await two.unregister_worker("two")
    lease_two.release()
    await eventually(lambda: alone(one))
    await one.unregister_worker("one")
    lease_one.release()


async def test_a_commit_wakes_workers_in_other_stores(durable_engine: Engine, stores: Stores) -> None:
    one, two = await stores.open(durable_engine), await stores.open(durable_engine)
    leases = [await one.register_worker("one", 10, {}), await two.register_worker("two", 10, {})]
    await eventually(lambda: shared(one))
    for job in (new_job(), new_job(kind="action"), new_job()):
        for writer, sleeper in ((one, two), (two, one)):
            waits = waiting(sleeper, job.kind)
            await add_jobs(writer, new_job(kind=job.kind))
            await asyncio.wait_for(waits, DEADLINE_S)
    for lease in leases:
        lease.release()


async def test_a_client_that_is_no_worker_wakes_workers(durable_engine: Engine, stores: Stores) -> None:
    worker, client = await stores.open(durable_engine), await stores.open(durable_engine)
    lease = await worker.register_worker("one", 10, {})
    waits = waiting(worker, "mutation")
    await add_jobs(client, new_job())
    await asyncio.wait_for(waits, DEADLINE_S)
    lease.release()


# --- leases and rescue ----------------------------------------------------------------------------------------------


async def running(store: Store, worker: str, count: int = 1) -> list[Job]:
    """Actions that a worker has begun."""
    jobs = [new_job(kind="action") for _ in range(count)]
    await add_jobs(store, *jobs)

    async def start(tx: Transaction) -> None:
        for job in jobs:
            assert await tx.start_job(job.id, 0, NOW, worker)

    await store.transact(start)
    return [await job_of(store, job.id) for job in jobs]


async def rescue(store: Store, worker: str = "me", now: float = NOW + 1_000) -> Rescued:
    return await store.transact(lambda tx: tx.rescue(worker, now, "interrupted: the worker stopped"))


async def test_what_a_dead_worker_had_in_progress_is_failed(store: Store) -> None:
    jobs = await running(store, "dead", 3)
    own = await running(store, "me")
    waiting_still, done = new_job(kind="action"), new_job(kind="action")
    await add_jobs(store, waiting_still, done)
    await store.transact(lambda tx: tx.settle_job(done.id, "pending", 0, "canceled", NOW))

    rescued = await rescue(store)
    assert sorted(job.id for job in rescued.jobs) == sorted(job.id for job in jobs)
    assert rescued.look_again is None
    for job in jobs:
        assert await job_of(store, job.id) == job._replace(
            state="failed", completed_time=NOW + 1_000, error="interrupted: the worker stopped"
        )
    assert await job_of(store, own[0].id) == own[0], "one's own are not touched"
    assert await state_of(store, waiting_still.id) == "pending"
    assert await state_of(store, done.id) == "canceled"
    assert (await rescue(store)).jobs == []
    # The dead, should it still be there, can't record anything any more.
    assert not await store.transact(lambda tx: tx.settle_job(jobs[0].id, "inProgress", 1, "success", NOW))


async def test_what_a_living_worker_has_in_progress_is_left_alone(durable_engine: Engine, stores: Stores) -> None:
    one, two = await stores.open(durable_engine), await stores.open(durable_engine)
    lease = await one.register_worker("one", 10, {})
    (job,) = await running(one, "one")
    now = one.clock.now_ms()
    found = await rescue(two, "two", now=now)
    assert found.jobs == []
    assert found.look_again is not None
    assert now < found.look_again <= now + 10_000
    assert await state_of(two, job.id) == "inProgress"
    lease.release()
    found = await rescue(two, "two")
    assert [rescued.id for rescued in found.jobs] == [job.id]
    assert found.look_again is None


async def test_a_lease_that_is_not_renewed_runs_out(durable_engine: Engine, stores: Stores) -> None:
    clock = ManualClock(NOW)
    one = await stores.open(durable_engine, clock=clock)
    two = await stores.open(durable_engine, clock=clock)
    lease = await one.register_worker("one", 10, {})
    (job,) = await running(one, "one")
    await clock.advance(6)
    await asyncio.get_running_loop().run_in_executor(None, lease.renew)  # from a thread of its own
    await clock.advance(6)
    found = await rescue(two, "two", now=clock.now_ms())
    assert found.jobs == []
    assert found.look_again == clock.now_ms() + 4_000
    await clock.advance(3.999)
    assert (await rescue(two, "two", now=clock.now_ms())).jobs == []
    await clock.advance(0.001)
    assert [rescued.id for rescued in (await rescue(two, "two", now=clock.now_ms())).jobs] == [job.id]
    lease.release()


async def test_a_worker_that_leaves_is_forgotten(durable_engine: Engine, stores: Stores) -> None:
    store = await stores.open(durable_engine)
    for number in range(3):
        lease = await store.register_worker(f"worker-{number}", 10, {})
        lease.renew()
        await store.unregister_worker(f"worker-{number}")
        lease.release()
        await stores.close(store)
        store = await stores.open(durable_engine)
    assert not store.shared


async def shared(store: Store) -> bool:
    return store.shared


async def alone(store: Store) -> bool:
    return not store.shared
