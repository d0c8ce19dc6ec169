"""The job verbs: look-ups in start order, and changes that happen only to what still is as it was."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from duly._model.job import MOVES, Job, JobKind, JobState
from duly._store.port import Store, Transaction
from tests.store.conftest import Stores
from tests.store.engines import Engine
from tests.store.rows import NOW, add_jobs, job_of, new_id, new_job, state_of
from tests.support import ManualClock

LONG = json.dumps({"text": "ä" * 40_000, "escaped": "\0\"'\\"})


# --- what is put in comes out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job",
    [
        new_job(),
        new_job(kind="action", due=NOW + 0.001, scheduled_time=NOW - 5.25),
        new_job(due=None, state="canceled", completed_time=NOW),
        new_job(name="admin/users:remove", args='{"name":"Zoë \\u0000 🍵"}'),
        new_job(args=LONG),
        new_job(pending_reason="why", parked=True, refused="a b", trace="00-1-2-01"),
    ],
    ids=["plain", "times", "canceled", "unicode", "long", "refused"],
)
async def test_a_job_comes_out_as_it_went_in(store: Store, job: Job) -> None:
    await add_jobs(store, job)
    assert await job_of(store, job.id) == job
    assert await state_of(store, job.id) == job.state


async def test_a_job_that_is_not_there_is_none(store: Store) -> None:
    id = new_id("_scheduled_functions")
    assert await store.read(lambda tx: tx.get_job(id)) is None
    assert await state_of(store, id) is None


async def test_long_arguments_come_with_a_job_or_when_asked_for(store: Store) -> None:
    due, parked, short = new_job(args=LONG), new_job(args=LONG, name="gone:gone"), new_job(args='{"n":2}')
    await add_jobs(store, due, parked, short)
    assert await store.transact(lambda tx: tx.park_job(parked.id, 0, "not here"))

    async def look(tx: Transaction) -> None:
        assert [job.args for job in await tx.scan_jobs("", "~", descending=False, limit=10)] == [LONG, LONG, short.args]
        assert [job.args for job in await tx.scan_jobs("", "~", descending=True, limit=10)] == [short.args, LONG, LONG]
        assert [job.args for job in await tx.list_jobs("pending", "~", 10)] == [short.args, LONG, LONG]
        # Looking for work does not drag them along.
        found = [*await tx.due_jobs("mutation", NOW, 10), *await tx.parked_jobs("gone:gone", "me", NOW, 10)]
        assert [job.id for job in found] == [due.id, short.id, parked.id]
        assert [await tx.get_arguments(job) for job in found] == [LONG, short.args, LONG]

    await store.transact(look)
    await store.read(look)


# --- due ------------------------------------------------------------------------------------------------------------


async def test_due_jobs_come_in_the_order_of_due_time_then_of_scheduling(store: Store) -> None:
    late, early, same1, same2 = new_job(due=NOW), new_job(due=NOW - 10), new_job(due=NOW - 5), new_job(due=NOW - 5)
    await add_jobs(store, late, same2, same1, early)
    assert await due(store) == [early, same1, same2, late]
    assert await due(store, limit=3) == [early, same1, same2]


async def test_a_job_is_due_from_its_time_on_and_not_before(store: Store) -> None:
    job = new_job(due=NOW)
    await add_jobs(store, job)
    assert await due(store, now=NOW - 0.001) == []
    assert await due(store, now=NOW) == [job]


async def test_only_pending_jobs_of_the_kind_are_due(store: Store) -> None:
    mutation, action = new_job(), new_job(kind="action")
    done, failed, cancelled = new_job(), new_job(), new_job()
    running, parked = new_job(kind="action"), new_job(kind="action")
    await add_jobs(store, mutation, action, done, failed, cancelled, running, parked)
    await add_jobs(store, new_job(state="canceled", due=None, completed_time=NOW))

    async def change(tx: Transaction) -> None:
        assert await tx.settle_job(done.id, "pending", 0, "success", NOW, started=NOW)
        assert await tx.settle_job(failed.id, "pending", 0, "failed", NOW, error="x", started=NOW)
        assert await tx.settle_job(cancelled.id, "pending", 0, "canceled", NOW)
        assert await tx.start_job(running.id, 0, NOW, "w")
        assert await tx.park_job(parked.id, 0, "not here")

    await store.transact(change)
    assert await due(store) == [mutation]
    assert await due(store, "action") == [action]


async def test_what_a_transaction_adds_is_due_in_it_at_once(store: Store) -> None:
    job = new_job()

    async def body(tx: Transaction) -> list[Job]:
        await tx.insert_job(job)
        return await tx.due_jobs("mutation", NOW, 10)

    assert await store.transact(body) == [job]


async def test_next_due_is_the_earliest_of_its_kind_that_is_not_parked(store: Store) -> None:
    async def next_due(kind: JobKind) -> float | None:
        return await store.read(lambda tx: tx.next_due(kind))

    assert await next_due("mutation") is None
    first, second, third = new_job(due=NOW + 5), new_job(due=NOW + 9.5), new_job(due=NOW + 7)
    await add_jobs(store, second, first, third, new_job(kind="action", due=NOW + 1))
    assert await next_due("mutation") == NOW + 5
    assert await next_due("action") == NOW + 1
    assert await store.transact(lambda tx: tx.park_job(first.id, 0, "not here"))
    assert await next_due("mutation") == NOW + 7
    assert await store.transact(lambda tx: tx.settle_job(third.id, "pending", 0, "canceled", NOW))
    assert await next_due("mutation") == NOW + 9.5


# --- parking --------------------------------------------------------------------------------------------------------


async def test_jobs_are_tallied_by_state_and_no_further_than_asked(store: Store) -> None:
    due = [new_job(due=NOW - n) for n in range(3)]
    parked, running = new_job(), new_job(kind="action")
    ended = [new_job(due=None, state=state, completed_time=NOW) for state in ("success", "failed", "canceled")]
    later = new_job(kind="action", due=NOW + 1)
    await add_jobs(store, *due, parked, running, *ended, later)
    assert await store.transact(lambda tx: tx.park_job(parked.id, 0, "not here"))
    assert await store.transact(lambda tx: tx.start_job(running.id, 0, NOW, "me"))
    assert {(state, kind): (number, first) for state, kind, number, first in await tallied(store, 10)} == {
        ("due", "mutation"): (3, NOW - 2),
        ("due", "action"): (0, None),
        ("later", "mutation"): (0, None),
        ("later", "action"): (1, NOW + 1),
        ("parked", None): (1, None),
        ("inProgress", "action"): (1, None),
        ("failed", None): (1, None),
        ("canceled", None): (1, None),
    }
    assert ("due", "mutation", 2, NOW - 2) in await tallied(store, 2)


async def tallied(store: Store, limit: int) -> list[Any]:
    return [tuple(tally) for tally in await store.read(lambda tx: tx.tally_jobs(NOW, limit))]


async def test_a_parked_job_stands_aside_visibly(store: Store) -> None:
    jobs = [new_job("gone:one", due=NOW + 3), new_job("gone:one", due=NOW + 1), new_job("gone:two", due=NOW + 2)]
    await add_jobs(store, *jobs, new_job("here:here"))

    async def park(tx: Transaction) -> None:
        for job in jobs:
            assert await tx.park_job(job.id, 0, "no code here has it")

    await store.transact(park)
    assert [job.name for job in await due(store, now=NOW + 10)] == ["here:here"]
    names = sorted(await store.read(lambda tx: tx.parked_names()))
    assert names == [("gone:one", "", NOW + 1), ("gone:two", "", NOW + 2)]

    async def parked(now: float, limit: int = 10) -> list[str]:
        return [job.id for job in await store.read(lambda tx: tx.parked_jobs("gone:one", "me", now, limit))]

    assert await parked(NOW) == []
    assert await parked(NOW + 1) == [jobs[1].id]
    assert await parked(NOW + 3) == [jobs[1].id, jobs[0].id]
    assert await parked(NOW + 3, limit=1) == [jobs[1].id]
    found = await job_of(store, jobs[0].id)
    assert found == jobs[0]._replace(pending_reason="no code here has it", parked=True)


async def test_a_parked_job_can_be_run_and_cancelled_where_it_is(store: Store) -> None:
    started, settled, cancelled = new_job(kind="action"), new_job(), new_job()
    await add_jobs(store, started, settled, cancelled)

    async def change(tx: Transaction) -> None:
        for job in (started, settled, cancelled):
            assert await tx.park_job(job.id, 0, "not here")
        assert await tx.start_job(started.id, 0, NOW, "w")
        assert await tx.settle_job(settled.id, "pending", 0, "success", NOW, started=NOW)
        assert await tx.settle_job(cancelled.id, "pending", 0, "canceled", NOW)
        assert await tx.parked_names() == []

    await store.transact(change)
    for job in (started, settled, cancelled):
        assert (await job_of(store, job.id)).pending_reason is None


async def test_a_job_can_become_the_other_kind(store: Store) -> None:
    job = new_job()
    await add_jobs(store, job)

    async def change(tx: Transaction) -> None:
        assert await tx.park_job(job.id, 0, "not here")
        assert await tx.set_job_kind(job.id, 0, "action")
        assert await tx.parked_names() == []

    await store.transact(change)
    assert await due(store) == []
    assert await due(store, "action") == [job._replace(kind="action")]


# --- moving ---------------------------------------------------------------------------------------------------------


async def test_starting_records_who_and_when(store: Store) -> None:
    job = new_job(kind="action", scheduled_time=NOW - 3)
    await add_jobs(store, job)
    assert await store.transact(lambda tx: tx.start_job(job.id, 0, NOW + 1, "worker-1"))
    expected = job._replace(state="inProgress", due=None, started_time=NOW + 1, attempts=1, worker="worker-1")
    assert await job_of(store, job.id) == expected


@pytest.mark.parametrize(
    ("after", "error", "started"),
    [
        ("success", None, NOW - 1),
        ("failed", "ValueError: no", NOW - 1),
        ("failed", "bad args", None),
        ("canceled", None, None),
    ],
)
async def test_a_pending_job_is_settled(
    store: Store, after: JobState, error: str | None, started: float | None
) -> None:
    job = new_job()
    await add_jobs(store, job)
    settled = await store.transact(
        lambda tx: tx.settle_job(job.id, "pending", 0, after, NOW, error=error, started=started)
    )
    assert settled
    # One that ran counts as an attempt; one that was never begun does not.
    assert await job_of(store, job.id) == job._replace(
        state=after,
        due=None,
        completed_time=NOW,
        error=error,
        started_time=started,
        attempts=0 if started is None else 1,
    )


@pytest.mark.parametrize(("after", "error"), [("success", None), ("failed", "TimeoutError"), ("canceled", None)])
async def test_a_running_job_is_settled(store: Store, after: JobState, error: str | None) -> None:
    job = new_job(kind="action")
    await add_jobs(store, job)
    await store.transact(lambda tx: tx.start_job(job.id, 0, NOW, "w"))
    assert await store.transact(lambda tx: tx.settle_job(job.id, "inProgress", 1, after, NOW + 5, error=error))
    found = await job_of(store, job.id)
    assert (found.state, found.error, found.completed_time) == (after, error, NOW + 5)
    assert (found.started_time, found.attempts, found.due) == (NOW, 1, None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("success", "failed"),
        ("failed", "pending"),
        ("canceled", "success"),
        ("inProgress", "pending"),
        ("pending", "pending"),
    ],
)
async def test_a_move_that_there_is_not_is_refused(store: Store, before: JobState, after: JobState) -> None:
    assert all((before, after) not in moves for moves in MOVES.values())
    job = new_job()
    await add_jobs(store, job)
    with pytest.raises(AssertionError):
        await store.transact(lambda tx: tx.settle_job(job.id, before, 0, after, NOW))
    assert await job_of(store, job.id) == job


async def test_a_postponed_job_is_due_later_with_an_attempt_more(store: Store) -> None:
    job = new_job()
    await add_jobs(store, job)
    assert await store.transact(lambda tx: tx.postpone_job(job.id, 0, NOW + 500, "the disk is full"))
    expected = job._replace(due=NOW + 500, attempts=1, pending_reason="the disk is full")
    assert await job_of(store, job.id) == expected
    assert await due(store, now=NOW + 499) == []
    assert await due(store, now=NOW + 500) == [expected]
    assert await store.transact(lambda tx: tx.postpone_job(job.id, 1, NOW + 900, "still full"))
    assert (await job_of(store, job.id)).attempts == 2


# --- only if it still is as it was ----------------------------------------------------------------------------------

Change = Callable[[Transaction, str, int], Awaitable[bool]]

OF_PENDING: dict[str, Change] = {
    "park": lambda tx, id, attempts: tx.park_job(id, attempts, "x"),
    "refuse": lambda tx, id, attempts: tx.refuse_job(id, attempts, "me", "x"),
    "set_kind": lambda tx, id, attempts: tx.set_job_kind(id, attempts, "mutation"),
    "start": lambda tx, id, attempts: tx.start_job(id, attempts, NOW, "w2"),
    "succeed": lambda tx, id, attempts: tx.settle_job(id, "pending", attempts, "success", NOW, started=NOW),
    "fail": lambda tx, id, attempts: tx.settle_job(id, "pending", attempts, "failed", NOW, error="x"),
    "cancel": lambda tx, id, attempts: tx.settle_job(id, "pending", attempts, "canceled", NOW),
    "postpone": lambda tx, id, attempts: tx.postpone_job(id, attempts, NOW + 9, "x"),
}
OF_RUNNING: dict[str, Change] = {
    "succeed": lambda tx, id, attempts: tx.settle_job(id, "inProgress", attempts, "success", NOW),
    "fail": lambda tx, id, attempts: tx.settle_job(id, "inProgress", attempts, "failed", NOW, error="x"),
    "cancel": lambda tx, id, attempts: tx.settle_job(id, "inProgress", attempts, "canceled", NOW),
}


@pytest.mark.parametrize("verb", OF_PENDING)
async def test_a_pending_job_is_changed_with_its_attempt_only(store: Store, verb: str) -> None:
    job = new_job(kind="action")
    await add_jobs(store, job)
    await store.transact(lambda tx: tx.postpone_job(job.id, 0, NOW, "once"))
    before = await job_of(store, job.id)
    for attempts in (0, 2):
        assert not await changed(store, OF_PENDING[verb], job.id, attempts)
        assert await job_of(store, job.id) == before
    assert await store.transact(lambda tx: OF_PENDING[verb](tx, job.id, 1))
    assert await job_of(store, job.id) != before


@pytest.mark.parametrize("verb", OF_RUNNING)
async def test_a_running_job_is_changed_with_its_attempt_only(store: Store, verb: str) -> None:
    job = new_job(kind="action")
    await add_jobs(store, job)
    await store.transact(lambda tx: tx.start_job(job.id, 0, NOW, "w"))
    before = await job_of(store, job.id)
    for attempts in (0, 2):
        assert not await changed(store, OF_RUNNING[verb], job.id, attempts)
        assert await job_of(store, job.id) == before
    assert await store.transact(lambda tx: OF_RUNNING[verb](tx, job.id, 1))


@pytest.mark.parametrize("verb", OF_PENDING)
@pytest.mark.parametrize("state", ["inProgress", "success", "failed", "canceled"])
async def test_what_is_not_pending_any_more_is_not_changed_as_if(store: Store, verb: str, state: JobState) -> None:
    job = await job_in(store, state)
    assert not await store.transact(lambda tx: OF_PENDING[verb](tx, job.id, job.attempts))
    assert await job_of(store, job.id) == job


@pytest.mark.parametrize("verb", OF_RUNNING)
@pytest.mark.parametrize("state", ["pending", "success", "failed", "canceled"])
async def test_what_does_not_run_is_not_changed_as_if(store: Store, verb: str, state: JobState) -> None:
    job = await job_in(store, state)
    assert not await store.transact(lambda tx: OF_RUNNING[verb](tx, job.id, job.attempts))
    assert await job_of(store, job.id) == job


@pytest.mark.parametrize("verb", [*OF_PENDING, *(f"running {verb}" for verb in OF_RUNNING)])
async def test_a_job_that_is_not_there_is_not_changed(store: Store, verb: str) -> None:
    other = new_job(kind="action")
    await add_jobs(store, other)
    change = OF_RUNNING[verb.removeprefix("running ")] if verb.startswith("running ") else OF_PENDING[verb]
    assert not await store.transact(lambda tx: change(tx, new_id("_scheduled_functions"), 0))
    assert await job_of(store, other.id) == other


async def test_of_two_that_start_a_job_one_does(store: Store) -> None:
    job = new_job(kind="action")
    await add_jobs(store, job)

    async def start(tx: Transaction) -> bool:
        return await tx.start_job(job.id, 0, NOW, "w")

    assert await store.transact(start)
    assert not await store.transact(start)


# --- listing --------------------------------------------------------------------------------------------------------


async def test_jobs_are_scanned_between_two_ids_in_either_order(store: Store) -> None:
    jobs = [new_job(due=NOW - number) for number in range(5)]
    await add_jobs(store, *jobs)

    async def scan(after: str, before: str, descending: bool, limit: int = 10) -> list[int]:
        found = await store.read(lambda tx: tx.scan_jobs(after, before, descending, limit))
        return [jobs.index(job) for job in found]

    assert await scan("", "~", False) == [0, 1, 2, 3, 4]
    assert await scan("", "~", True) == [4, 3, 2, 1, 0]
    assert await scan(jobs[0].id, jobs[3].id, False) == [1, 2]
    assert await scan(jobs[0].id, jobs[3].id, True) == [2, 1]
    assert await scan("", "~", False, 2) == [0, 1]
    assert await scan("", "~", True, 2) == [4, 3]
    assert await store.read(lambda tx: tx.count_jobs("", "~")) == 5
    assert await store.read(lambda tx: tx.count_jobs(jobs[0].id, jobs[3].id)) == 2


@pytest.mark.parametrize("state", ["pending", "inProgress", "success", "failed", "canceled"])
async def test_jobs_of_a_state_are_listed_last_scheduled_first(store: Store, state: JobState) -> None:
    for other in ("pending", "inProgress", "success", "failed", "canceled"):
        if other != state:
            await job_in(store, other)
    jobs = [await job_in(store, state) for _ in range(4)]
    assert await store.read(lambda tx: tx.list_jobs(state, "~", 10)) == jobs[::-1]
    assert await store.read(lambda tx: tx.list_jobs(state, "~", 3)) == jobs[:0:-1]
    assert await store.read(lambda tx: tx.list_jobs(state, jobs[2].id, 10)) == [jobs[1], jobs[0]]


# --- pruning --------------------------------------------------------------------------------------------------------


async def test_finished_jobs_are_pruned_oldest_first_in_batches_with_their_arguments(store: Store) -> None:
    jobs = [
        new_job(state="canceled", due=None, completed_time=NOW - 100 + number, args=LONG if number % 2 else "{}")
        for number in range(10)
    ]
    pending, running = new_job(due=NOW - 1_000), await job_in(store, "inProgress")
    await add_jobs(store, *reversed(jobs), pending)
    assert await store.read(lambda tx: tx.oldest_completed()) == NOW - 100

    assert await store.transact(lambda tx: tx.prune_jobs(NOW - 95, 3)) == 3
    assert await store.read(lambda tx: tx.oldest_completed()) == NOW - 97
    assert await left(store, jobs) == [3, 4, 5, 6, 7, 8, 9]
    # What finished exactly then is kept.
    assert await store.transact(lambda tx: tx.prune_jobs(NOW - 95, 100)) == 2
    assert await left(store, jobs) == [5, 6, 7, 8, 9]
    assert await store.transact(lambda tx: tx.prune_jobs(NOW - 95, 100)) == 0
    assert await store.transact(lambda tx: tx.prune_jobs(NOW + 1_000_000, 100)) == 5
    assert await left(store, jobs) == []
    assert await store.read(lambda tx: tx.oldest_completed()) is None
    assert await state_of(store, pending.id) == "pending"
    assert await state_of(store, running.id) == "inProgress"

    # The arguments went too: the same ids can come again, with other arguments.
    again = [job._replace(args='{"other":"' + "x" * 5_000 + '"}') for job in jobs]
    await add_jobs(store, *again)
    assert [await job_of(store, job.id) for job in again] == again


async def left(store: Store, jobs: list[Job]) -> list[int]:
    return [number for number, job in enumerate(jobs) if await state_of(store, job.id) is not None]


# --- help -----------------------------------------------------------------------------------------------------------


async def due(store: Store, kind: JobKind = "mutation", now: float = NOW, limit: int = 100) -> list[Job]:
    return await store.read(lambda tx: tx.due_jobs(kind, now, limit))


async def changed(store: Store, change: Change, id: str, attempts: int) -> bool:
    return await store.transact(lambda tx: change(tx, id, attempts))


async def job_in(store: Store, state: JobState) -> Job:
    """A job that has come to be in a state."""
    job = new_job(kind="action")
    await add_jobs(store, job)

    async def change(tx: Transaction) -> Any:
        if state == "pending":
            return
        if state in ("inProgress", "success"):
            assert await tx.start_job(job.id, 0, NOW, "w")
        if state == "success":
            assert await tx.settle_job(job.id, "inProgress", 1, "success", NOW)
        elif state == "failed":
            assert await tx.settle_job(job.id, "pending", 0, "failed", NOW, error="x")
        elif state == "canceled":
            assert await tx.settle_job(job.id, "pending", 0, "canceled", NOW)

    await store.transact(change)
    return await job_of(store, job.id)


# --- claims ---------------------------------------------------------------------------------------------------------


async def test_what_a_look_took_and_gave_up_is_there_for_the_next_also_while_the_clock_stands_still(
    engine: Engine, stores: Stores
) -> None:
    clock = ManualClock()
    store = await stores.open(engine, clock=clock)
    lease = await store.register_worker("w1", 10, {})
    jobs = [new_job(due=clock.now_ms() - number) for number in range(5)]
    await add_jobs(store, *jobs)

    async def look(tx: Transaction, *, fails: bool = False) -> list[str]:
        found: list[str] = [job.id for job in await tx.due_jobs("mutation", clock.now_ms(), 10)]
        if fails:
            raise ValueError("as the test asked for")
        return found

    expected: list[str] = [job.id for job in reversed(jobs)]
    for _ in range(3):
        with pytest.raises(ValueError, match="as the test"):
            await store.transact(lambda tx: look(tx, fails=True), claims=True)
        assert await store.transact(look, claims=True) == expected
    lease.release()


async def test_what_a_look_gave_up_is_due_for_whoever_gave_it_up(engine: Engine, stores: Stores) -> None:
    """Otherwise a worker would sleep until its own word for it has run out."""
    clock = ManualClock()
    store = await stores.open(engine, clock=clock)
    lease = await store.register_worker("w1", 10, {})
    await add_jobs(store, *(new_job(due=clock.now_ms() - number) for number in range(5)))

    async def take(tx: Transaction, limit: int) -> float | None:
        found = await tx.due_jobs("mutation", clock.now_ms(), limit)
        assert len(found) == limit
        if limit == 5:
            raise ValueError("as the test asked for")
        for job in found:
            assert await tx.settle_job(job.id, "pending", 0, "success", clock.now_ms(), started=clock.now_ms())
        return await tx.next_due("mutation")

    with pytest.raises(ValueError, match="as the test"):
        await store.transact(lambda tx: take(tx, 5), claims=True)
    due = await store.transact(lambda tx: take(tx, 2), claims=True)
    assert due is not None
    assert due <= clock.now_ms()
    lease.release()
