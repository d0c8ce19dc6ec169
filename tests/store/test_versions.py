"""Several versions of the code at once: jobs that one refused, and what the workers that live can run."""

import asyncio
from collections.abc import Mapping
from functools import partial

from duly._model.job import Job
from duly._store.port import Lease, Store, Transaction
from tests.store.conftest import Stores
from tests.store.engines import Engine
from tests.store.rows import NOW, add_jobs, job_of, new_job
from tests.support import ManualClock

LONG = '{"text":"' + "ä" * 40_000 + '"}'


async def refuse(store: Store, job: Job, *fingerprints: str) -> None:
    for fingerprint in fingerprints:
        assert await store.transact(partial(_refuse, job.id, fingerprint))


async def _refuse(id: str, fingerprint: str, tx: Transaction) -> bool:
    return await tx.refuse_job(id, 0, fingerprint, f"not for {fingerprint}")


async def test_a_refused_job_stands_aside_visibly(store: Store) -> None:
    job = new_job()
    await add_jobs(store, job)
    await refuse(store, job, "b", "a", "b")
    assert await job_of(store, job.id) == job._replace(pending_reason="not for b", parked=True, refused="a b")
    assert await store.read(lambda tx: tx.due_jobs("mutation", NOW, 10)) == []
    assert await store.read(lambda tx: tx.next_due("mutation")) is None


async def test_refused_jobs_are_looked_up_in_start_order_by_who_refused_them(store: Store) -> None:
    jobs = [new_job("f:f", due=NOW + number, args=LONG if number == 2 else "{}") for number in range(4)]
    other, due = new_job("f:other"), new_job("f:f", due=NOW - 1)
    await add_jobs(store, *reversed(jobs), other, due)
    await refuse(store, jobs[0], "a")
    await refuse(store, jobs[1], "b", "a")
    await refuse(store, jobs[2], "b")
    await refuse(store, other, "c")
    assert await store.transact(lambda tx: tx.park_job(jobs[3].id, 0, "gone"))

    async def look(tx: Transaction) -> None:
        async def parked(fingerprint: str, now: float = NOW + 3, limit: int = 10) -> list[float | None]:
            return [job.due for job in await tx.parked_jobs("f:f", fingerprint, now, limit)]

        async def refused(fingerprint: str, limit: int = 10) -> list[float | None]:
            return [job.due for job in await tx.refused_jobs("f:f", fingerprint, limit)]

        assert sorted(await tx.parked_names()) == [
            ("f:f", "", NOW + 3),
            ("f:f", "a", NOW),
            ("f:f", "a b", NOW + 1),
            ("f:f", "b", NOW + 2),
            ("f:other", "c", NOW),
        ]
        assert await parked("c") == [NOW, NOW + 1, NOW + 2, NOW + 3]
        assert await parked("a") == [NOW + 2, NOW + 3]
        assert await parked("b") == [NOW, NOW + 3]
        assert await parked("c", now=NOW + 1) == [NOW, NOW + 1]
        assert await parked("c", limit=3) == [NOW, NOW + 1, NOW + 2]
        assert await refused("a") == [NOW, NOW + 1]
        assert await refused("b") == [NOW + 1, NOW + 2]
        assert await refused("b", limit=1) == [NOW + 1]
        assert await refused("c") == []
        (long,) = await tx.parked_jobs("f:f", "a", NOW + 2, 10)
        assert (long.args, await tx.get_arguments(long)) == ("", LONG)

    await store.transact(look)
    await store.read(look)


async def test_a_refusal_is_seen_by_the_transaction_that_makes_it(store: Store) -> None:
    job = new_job()
    await add_jobs(store, job)

    async def body(tx: Transaction) -> None:
        (found,) = await tx.due_jobs("mutation", NOW, 10)
        assert await tx.refuse_job(found.id, 0, "a", "why")
        assert await tx.due_jobs("mutation", NOW, 10) == []
        assert await tx.parked_jobs(job.name, "a", NOW, 10) == []
        (parked,) = await tx.parked_jobs(job.name, "b", NOW, 10)
        assert parked.refused == "a"

    await store.transact(body)


async def test_who_runs_a_refused_job_clears_it(store: Store) -> None:
    started, settled, turned, later = new_job(kind="action"), new_job(), new_job(), new_job()
    await add_jobs(store, started, settled, turned, later)
    for job in (started, settled, turned, later):
        await refuse(store, job, "a")

    async def change(tx: Transaction) -> None:
        assert await tx.start_job(started.id, 0, NOW, "w")
        assert await tx.settle_job(settled.id, "pending", 0, "success", NOW, started=NOW)
        assert await tx.set_job_kind(turned.id, 0, "action")
        assert await tx.postpone_job(later.id, 0, NOW + 9, "the disk is full")

    await store.transact(change)
    for job in (started, settled, turned):
        now = await job_of(store, job.id)
        assert (now.refused, now.parked, now.pending_reason) == ("", False, None)
    # Who refused it need not see it again because the store failed another.
    waiting = await job_of(store, later.id)
    assert (waiting.refused, waiting.parked, waiting.pending_reason) == ("a", True, "the disk is full")
    assert await store.read(lambda tx: tx.parked_names()) == [(later.name, "a", NOW + 9)]


async def test_a_refusal_wakes_workers_that_may_take_it(store: Store) -> None:
    job = new_job(kind="action")
    await add_jobs(store, job)
    seen = store.version("mutation"), store.version("action")
    await refuse(store, job, "a")
    assert store.version("mutation") > seen[0]
    assert store.version("action") > seen[1]


# --- what workers publish -------------------------------------------------------------------------------------------


async def live(store: Store, name: str = "f:f", now: float | None = None) -> set[str]:
    moment = store.clock.now_ms() if now is None else now
    return await store.read(lambda tx: tx.live_fingerprints(name, moment))


async def worker(store: Store, name: str, functions: Mapping[str, str]) -> Lease:
    return await store.register_worker(name, 10, functions)


async def test_a_worker_publishes_what_it_can_run_while_it_lives(store: Store) -> None:
    assert await live(store) == set()
    lease = await worker(store, "one", {"f:f": "a", "f:g": "b", 'f:"ö.$[0]': "c"})
    assert await live(store) == {"a"}
    assert await live(store, 'f:"ö.$[0]') == {"c"}
    assert await live(store, "f:none") == set()
    assert await store.transact(lambda tx: tx.live_fingerprints("f:f", store.clock.now_ms())) == {"a"}
    await store.unregister_worker("one")
    lease.release()
    assert await live(store) == set()


async def test_workers_of_several_versions_are_told_apart(durable_engine: Engine, stores: Stores) -> None:
    one, two, three = [await stores.open(durable_engine) for _ in range(3)]
    leases = [
        await worker(one, "one", {"f:f": "a", "f:g": "g"}),
        await worker(two, "two", {"f:f": "b"}),
        await worker(three, "three", {"f:f": "b"}),
    ]
    for store in (one, two, three):
        assert await live(store) == {"a", "b"}
        assert await live(store, "f:g") == {"g"}
    # Killed: it signs off nowhere.
    leases[0].release()
    assert await live(two) == {"b"}
    await two.unregister_worker("two")
    leases[1].release()
    assert await live(one) == {"b"}
    await three.unregister_worker("three")
    leases[2].release()
    assert await live(one) == set()


async def test_a_worker_that_is_idle_lives(engine: Engine, stores: Stores) -> None:
    """Where it renews its lease only while it has actions in progress, nobody may think it dead meanwhile."""
    clock = ManualClock(NOW)
    store = await stores.open(engine, clock=clock)
    lease = await worker(store, "one", {"f:f": "a"})
    await clock.advance(60)
    if lease.lapses:
        await asyncio.to_thread(lease.renew)
    assert await live(store, now=clock.now_ms()) == {"a"}
    lease.release()
