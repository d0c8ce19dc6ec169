"""The states of a scheduled function, its deletion after its retention time, and what a deploy does to it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import pytest

import duly
from duly._app import Parts
from duly._model.job import MOVES, JobKind
from duly._store.port import Transaction
from duly.errors import AlreadyFinishedError, ScheduledFunctionNotFoundError
from tests.rules.deploy import deploy
from tests.rules.stage import FINISHED, Json, Stage, has_finished
from tests.support import FaultyStore, ManualClock, eventually

T = TypeVar("T")

stage = Stage()

DAY_S = 24 * 60 * 60


@pytest.fixture(autouse=True)
def empty_stage() -> None:
    stage.clear()


@duly.mutation
async def enter(ctx: duly.MutationCtx, what: str) -> None:
    await ctx.db.insert("ledger", {"what": what})


@duly.mutation
async def perform(ctx: duly.MutationCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.mutation
async def fail(ctx: duly.MutationCtx) -> None:
    raise ValueError("no")


@duly.mutation
async def enter_many(ctx: duly.MutationCtx, number: int, text: str) -> None:
    for _ in range(number):
        await ctx.scheduler.run_after(0, enter, text)


@duly.action
async def act(ctx: duly.ActionCtx, name: str) -> Any:
    return await stage.bodies[name](ctx)


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.query
async def all_jobs(ctx: duly.QueryCtx) -> list[Any]:
    return list(await ctx.db.system.query("_scheduled_functions").collect())


@duly.query
async def job_count(ctx: duly.QueryCtx) -> int:
    return await ctx.db.system.query("_scheduled_functions").count()


async def finished(app: duly.App, job_id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, job_id), kind)


# The state machine.


async def test_states_a_mutation_goes_from_pending_to_each_end(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock)
    async with app:
        success = await app.scheduler.run_after(1_000, enter, "tea")
        failed = await app.scheduler.run_after(1_000, fail)
        canceled = await app.scheduler.run_after(1_000, enter, "never")
        for job_id in (success, failed, canceled):
            job = await app.query(job_of, job_id)
            assert job["state"] == {"kind": "pending"}
            assert job["scheduledTime"] == job["nextAttemptTime"] == clock.now_ms() + 1_000
            assert job["attempts"] == 0
            assert not {"startedTime", "completedTime", "pendingReason"} & job.keys()
        await app.scheduler.cancel(canceled)
        await clock.advance(1)
        assert (await finished(app, success, "success"))["completedTime"] == clock.now_ms()
        assert (await finished(app, failed, "failed"))["completedTime"] == clock.now_ms()
        assert (await finished(app, canceled, "canceled"))["completedTime"] == clock.now_ms() - 1_000


async def test_states_each_document_has_the_fields_of_its_state(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()

        @stage.body
        async def fail_action(ctx: duly.ActionCtx) -> None:
            raise ValueError("no")

        ids = {
            "pending": await app.scheduler.run_after(timedelta(days=1), enter, "later"),
            "inProgress": await app.scheduler.run_after(0, act, wait_at_the_gate),
            "success": await app.scheduler.run_after(0, enter, "tea"),
            "failed": await app.scheduler.run_after(0, fail),
            "failed action": await app.scheduler.run_after(0, act, fail_action),
            "canceled": await app.scheduler.run_after(timedelta(days=1), enter, "never"),
        }
        await app.scheduler.cancel(ids["canceled"])
        for name in ("success", "failed", "failed action"):
            await finished(app, ids[name])
        await stage.has_seen(1)
        always = {"_id", "_creationTime", "name", "args", "scheduledTime", "state", "attempts"}
        more = {
            "pending": {"nextAttemptTime"},
            "inProgress": {"startedTime"},
            "success": {"startedTime", "completedTime"},
            "failed": {"startedTime", "completedTime"},
            "failed action": {"startedTime", "completedTime"},
            "canceled": {"completedTime"},
        }
        for name, job_id in ids.items():
            job = await app.query(job_of, job_id)
            assert job.keys() == always | more[name], name
            kind = name.partition(" ")[0]
            assert job["state"].keys() == ({"kind", "error"} if kind == "failed" else {"kind"})
            assert job["state"]["kind"] == kind
            assert job["attempts"] == (0 if kind in ("pending", "canceled") else 1)
        stage.gate("open").set()


async def test_states_only_the_moves_of_the_diagram_are_ever_seen(database: str) -> None:
    app = duly.App(__name__, database=database, concurrent_actions=4)
    async with app:

        @stage.body
        async def wait_a_little(ctx: duly.ActionCtx) -> None:
            await asyncio.sleep(0.005)

        @stage.body
        async def fail_action(ctx: duly.ActionCtx) -> None:
            await asyncio.sleep(0.005)
            raise ValueError("no")

        kinds: dict[str, JobKind] = {}
        for number in range(25):
            kinds[await app.scheduler.run_after(number % 7, enter, "tea")] = "mutation"
            kinds[await app.scheduler.run_after(number % 5, fail)] = "mutation"
            kinds[await app.scheduler.run_after(number % 3, act, wait_a_little)] = "action"
            kinds[await app.scheduler.run_after(number, act, fail_action)] = "action"
            kinds[await app.scheduler.run_after(timedelta(days=1), act, fail_action)] = "action"
        for job_id in [*list(kinds)[::7], *list(kinds)[4::5]]:
            await app.scheduler.cancel(job_id, missing_ok=True)

        last: dict[str, str] = {}
        ends: set[str] = set()

        async def look() -> bool:
            for job in await app.query(all_jobs):
                job_id, state = job["_id"], job["state"]["kind"]
                before = last.get(job_id, "pending")
                if before != state:
                    allowed = MOVES[kinds[job_id]]
                    # Between two looks an action may have begun and ended.
                    through = {(a, d) for a, b in allowed for c, d in allowed if b == c}
                    assert (before, state) in allowed | through, f"{kinds[job_id]}: {before} to {state}"
                last[job_id] = state
            ends.update(last.values())
            return all(state in FINISHED for state in last.values())

        await eventually(look)
        assert {"success", "failed", "canceled"} <= ends


@pytest.mark.parametrize("end", ["success", "failed"])
async def test_states_success_and_failed_are_final(end: str, database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock)
    async with app:
        job_id = await (
            app.scheduler.run_after(0, enter, "tea") if end == "success" else app.scheduler.run_after(0, fail)
        )
        job = await finished(app, job_id, end)
        with pytest.raises(AlreadyFinishedError) as caught:
            await app.scheduler.cancel(job_id)
        assert caught.value.state == end
        await app.scheduler.cancel(job_id, missing_ok=True)
        await clock.advance(3 * DAY_S)
        assert await app.query(job_of, job_id) == job


@pytest.mark.parametrize("outcome", ["returns", "raises"])
async def test_states_canceled_is_final_whatever_becomes_of_the_action(outcome: str, database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()
            stage.seen.append("ended")
            if outcome == "raises":
                raise ValueError("no")

        job_id = await app.scheduler.run_after(0, act, wait_at_the_gate)
        await stage.has_seen(1)
        await app.scheduler.cancel(job_id)
        job = await app.query(job_of, job_id)
        assert job["state"] == {"kind": "canceled"}
        assert job["completedTime"] >= job["startedTime"]
        stage.gate("open").set()
        await stage.has_seen(2)
        await app.scheduler.cancel(job_id)
        await finished(app, await app.scheduler.run_after(0, enter, "next"), "success")
    assert stage.seen == ["inside", "ended"]


async def test_states_final_rows_are_untouched_by_a_restart(file_database: str) -> None:
    app = duly.App(__name__, database=file_database)
    async with app:
        ids = [await app.scheduler.run_after(0, enter, "tea"), await app.scheduler.run_after(0, fail)]
        ids.append(await app.scheduler.run_after(1000, enter, "never"))
        await app.scheduler.cancel(ids[2])
        before = [await finished(app, job_id) for job_id in ids]
    again = duly.App(__name__, database=file_database)
    async with again:
        await finished(again, await again.scheduler.run_after(0, enter, "next"), "success")
        assert [await again.query(job_of, job_id) for job_id in ids] == before


# Retention.


async def test_retention_a_finished_function_is_deleted_after_seven_days(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock)
    async with app:
        ids = [await app.scheduler.run_after(0, enter, "tea"), await app.scheduler.run_after(0, fail)]
        ids.append(await app.scheduler.run_after(1000, enter, "never"))
        await app.scheduler.cancel(ids[2])
        for job_id in ids:
            await finished(app, job_id)
        await clock.advance(7 * DAY_S - 1)
        for job_id in ids:
            assert await app.query(job_of, job_id) is not None
        await clock.advance(2)

        async def gone() -> bool:
            return await app.query(job_count) == 0

        await eventually(gone)
        for job_id in ids:
            assert await app.query(job_of, job_id) is None
            with pytest.raises(ScheduledFunctionNotFoundError):
                await app.scheduler.cancel(job_id)
            await app.scheduler.cancel(job_id, missing_ok=True)


async def test_retention_counts_from_the_end_and_not_from_the_scheduling(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock)
    async with app:
        job_id = await app.scheduler.run_after(timedelta(days=30), enter, "late")
        await clock.advance(30 * DAY_S)
        await finished(app, job_id, "success")
        await clock.advance(7 * DAY_S - 1)
        assert await app.query(job_of, job_id) is not None
        await clock.advance(2)

        async def gone() -> bool:
            return await app.query(job_of, job_id) is None

        await eventually(gone)


async def test_retention_what_lives_is_never_deleted(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database, retention=timedelta(hours=1), action_timeout=timedelta(days=900))
    app._parts = Parts(clock=clock)
    async with app:

        @stage.body
        async def wait_at_the_gate(ctx: duly.ActionCtx) -> None:
            stage.seen.append("inside")
            await stage.gate("open").wait()

        pending = await app.scheduler.run_after(timedelta(days=1000), enter, "later")
        in_progress = await app.scheduler.run_after(0, act, wait_at_the_gate)
        await stage.has_seen(1)
        short = await app.scheduler.run_after(0, enter, "tea")
        await finished(app, short, "success")
        await clock.advance(20 * DAY_S)

        async def gone() -> bool:
            return await app.query(job_of, short) is None

        await eventually(gone)
        assert (await app.query(job_of, pending))["state"] == {"kind": "pending"}
        assert (await app.query(job_of, in_progress))["state"] == {"kind": "inProgress"}
        stage.gate("open").set()
        await finished(app, in_progress, "success")


async def test_retention_can_be_set(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database, retention=timedelta(minutes=1))
    app._parts = Parts(clock=clock)
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        await finished(app, job_id, "success")
        await clock.advance(59)
        assert await app.query(job_of, job_id) is not None
        await clock.advance(2)

        async def gone() -> bool:
            return await app.query(job_of, job_id) is None

        await eventually(gone)


async def test_retention_many_are_deleted_in_batches_with_their_long_arguments(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=1))
    app._parts = Parts(clock=clock)
    async with app:
        long = "x" * 2_000
        await app.mutation(enter_many, 900, "short")
        await app.mutation(enter_many, 300, long)
        writer = getattr(app._store, "_writer", None)  # SQLite keeps long arguments apart

        async def all_done() -> bool:
            return all(job["state"]["kind"] == "success" for job in await app.query(all_jobs))

        await eventually(all_done, deadline_s=60)
        assert writer is None or writer.execute("SELECT count(*) FROM _scheduled_arguments").fetchall() == [(300,)]
        kept = await app.scheduler.run_after(timedelta(days=30), enter, long)
        counts: list[int] = []

        async def gone() -> bool:
            # On a server deleting and counting may lose against each other, and try again a little later.
            await clock.advance(1)
            counts.append(await app.query(job_count))
            return counts[-1] == 1

        await clock.advance(7 * DAY_S + 1)
        await eventually(gone)
        assert writer is None or writer.execute("SELECT id FROM _scheduled_arguments").fetchall() == [(kept,)]
        assert len(await app.query(all_jobs)) == 1


class PruneCounts(FaultyStore):
    """Notes how many jobs each transaction deletes."""

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], /, *, claims: bool = False) -> T:
        return await super().transact(lambda tx: body(cast("Transaction", _NotingPrunes(tx))), claims=claims)


class _NotingPrunes:
    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def prune_jobs(self, completed_before: float, limit: int) -> int:
        stage.seen.append(await self._tx.prune_jobs(completed_before, limit))
        return cast("int", stage.seen[-1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)


async def test_retention_no_batch_is_large(database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=1))
    app._parts = Parts(clock=clock, store=PruneCounts)
    async with app:
        await app.mutation(enter_many, 1_000, "tea")
        await app.mutation(enter_many, 300, "tea")

        async def all_done() -> bool:
            return all(job["state"]["kind"] == "success" for job in await app.query(all_jobs))

        await eventually(all_done)
        await clock.advance(7 * DAY_S + 1)

        async def gone() -> bool:
            return await app.query(job_count) == 0

        await eventually(gone)
    assert sum(stage.seen) == 1_300
    assert max(stage.seen) <= 500


async def test_retention_what_expired_while_nobody_ran_is_deleted_after_the_start(file_database: str) -> None:
    clock = ManualClock()
    app = duly.App(__name__, database=file_database)
    app._parts = Parts(clock=clock)
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        await finished(app, job_id, "success")
    later = ManualClock(clock.now_ms() + 8 * DAY_S * 1_000)
    again = duly.App(__name__, database=file_database)
    again._parts = Parts(clock=later)
    async with again:

        async def gone() -> bool:
            return await again.query(job_of, job_id) is None

        await eventually(gone)


async def test_retention_an_idle_worker_makes_no_transaction_until_something_expires(database: str) -> None:
    clock = ManualClock()
    stores: list[FaultyStore] = []

    def make(url: str, clock: Any) -> FaultyStore:
        stores.append(FaultyStore(url, clock))
        return stores[0]

    app = duly.App(__name__, database=database)
    app._parts = Parts(clock=clock, store=make)
    async with app:
        job_id = await app.scheduler.run_after(0, enter, "tea")
        await finished(app, job_id, "success")
        await clock.advance(1)
        before = stores[0].transactions
        await clock.advance(6 * DAY_S)
        assert stores[0].transactions == before
        await clock.advance(1 * DAY_S)

        async def gone() -> bool:
            return await app.query(job_of, job_id) is None

        await eventually(gone)


# Deploys: the code that runs a job need not be the code that scheduled it.

LOOK = """
    import duly

    @duly.query
    async def job_of(ctx: duly.QueryCtx, id: str) -> object:
        return await ctx.db.system.get(id)

    @duly.query
    async def ledger(ctx: duly.QueryCtx) -> list[object]:
        return [entry["what"] for entry in await ctx.db.query("ledger").collect()]

    @duly.mutation
    async def enter(ctx: duly.MutationCtx, what: str) -> None:
        await ctx.db.insert("ledger", {"what": what})
"""

MUTATION = (
    LOOK
    + """
    @duly.mutation
    async def run(ctx: duly.MutationCtx, what: str) -> None:
        await ctx.db.insert("ledger", {"what": f"mutation {what}"})
"""
)

ACTION = (
    LOOK
    + """
    @duly.action
    async def run(ctx: duly.ActionCtx, what: str) -> None:
        job = await ctx.run_query(job_of, ctx.scheduled_function_id)
        await ctx.run_mutation(enter, f"action {what} {job['state']['kind']}")
"""
)

QUERY = (
    LOOK
    + """
    @duly.query
    async def run(ctx: duly.QueryCtx, what: str) -> None:
        seen.append("ran")
"""
)


class Deploys:
    """Apps of successive versions of one module over one database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
        self._monkeypatch = monkeypatch
        self._database = database
        self._number = 0

    def __call__(self, source: str, **options: Any) -> duly.App:
        self._number += 1
        name = deploy(self._monkeypatch, f"version{self._number}.jobs", source, seen=stage.seen)
        return duly.App(name, database=self._database, **options)


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch, file_database: str) -> Deploys:
    return Deploys(monkeypatch, file_database)


async def job(app: duly.App, job_id: str) -> Json:
    return cast("Json", await app.query("jobs:job_of", job_id))


async def done(app: duly.App, job_id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: job(app, job_id), kind)


async def parked(app: duly.App, job_id: str) -> Json:
    async def look() -> Json | None:
        document = await job(app, job_id)
        return document if "pendingReason" in document else None

    document = await eventually(look)
    assert document is not None
    return document


@pytest.mark.parametrize("source", [MUTATION, ACTION], ids=["mutation", "action"])
async def test_deploy_a_function_that_is_gone_stays_pending_and_says_so(source: str, version: Deploys) -> None:
    old, without, new = version(source), version(LOOK), version(source)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
        before = await job(old, job_id)
    async with without:
        waiting = await parked(without, job_id)
        assert waiting["state"] == {"kind": "pending"}
        assert "no worker that looked at it has the function 'jobs:run'" in waiting["pendingReason"]
        assert "deploy code that has it, or cancel the job" in waiting["pendingReason"]
        assert waiting["scheduledTime"] == before["scheduledTime"]
        assert waiting["attempts"] == 0
        # It holds up nobody.
        await done(without, await without.scheduler.run_after(0, "jobs:enter", what="next"), "success")
        assert await job(without, job_id) == waiting
    # And it is there when the function is.
    async with new:
        ended = await done(new, job_id, "success")
        assert "pendingReason" not in ended
        assert ended["attempts"] == 1
        assert ended["scheduledTime"] == before["scheduledTime"]
        entries = await new.query("jobs:ledger")
    assert entries == ["next", "mutation tea" if source is MUTATION else "action tea inProgress"]


async def test_deploy_a_function_that_is_gone_is_pending_without_reason_until_it_is_due(version: Deploys) -> None:
    old, without = version(MUTATION), version(LOOK)
    async with old.client():
        job_id = await old.scheduler.run_after(timedelta(days=1), "jobs:run", what="tea")
    async with without:
        await done(without, await without.scheduler.run_after(0, "jobs:enter", what="next"), "success")
        assert "pendingReason" not in await job(without, job_id)


@pytest.mark.parametrize("source", [MUTATION, ACTION], ids=["mutation", "action"])
async def test_deploy_one_that_waits_for_its_function_can_be_cancelled(source: str, version: Deploys) -> None:
    old, without, new = version(source), version(LOOK), version(source)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    async with without:
        await parked(without, job_id)
        await without.scheduler.cancel(job_id)
        canceled = await job(without, job_id)
        assert canceled["state"] == {"kind": "canceled"}
        assert "pendingReason" not in canceled
    async with new:
        await done(new, await new.scheduler.run_after(0, "jobs:enter", what="next"), "success")
        assert await job(new, job_id) == canceled


@pytest.mark.parametrize("source", [MUTATION, ACTION], ids=["mutation", "action"])
async def test_deploy_what_one_worker_lacks_another_runs_at_once(source: str, version: Deploys) -> None:
    """Two versions at work at the same time, as in a rolling deploy."""
    without, new = version(LOOK), version(source)
    async with without, new:
        for number in range(10):
            job_id = await new.scheduler.run_after(0, "jobs:run", what=str(number))
            await done(new, job_id, "success")
        assert len(await new.query("jobs:ledger")) == 10


async def test_deploy_a_worker_that_comes_with_the_function_runs_what_others_parked(version: Deploys) -> None:
    old, without, new = version(MUTATION), version(LOOK), version(MUTATION)
    async with old.client():
        ids = [await old.scheduler.run_after(0, "jobs:run", what=str(number)) for number in range(400)]
    async with without:
        await parked(without, ids[-1])
        async with new:
            for job_id in ids:
                await done(new, job_id, "success")
            # In the order of scheduling.
            assert await new.query("jobs:ledger") == [f"mutation {number}" for number in range(400)]


async def test_deploy_many_that_wait_for_their_function_hold_up_nobody(version: Deploys) -> None:
    old, without = version(MUTATION), version(LOOK, concurrent_actions=1)
    async with old.client():
        ids = [await old.scheduler.run_after(0, "jobs:run", what=str(number)) for number in range(600)]
    async with without:
        await done(without, await without.scheduler.run_after(0, "jobs:enter", what="next"), "success")
        await parked(without, ids[-1])


async def test_deploy_a_mutation_that_has_become_an_action_runs_as_one(version: Deploys) -> None:
    old, new = version(MUTATION), version(ACTION)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    async with new:
        await done(new, job_id, "success")
        assert await new.query("jobs:ledger") == ["action tea inProgress"]


async def test_deploy_an_action_that_has_become_a_mutation_runs_as_one(version: Deploys) -> None:
    old, new = version(ACTION), version(MUTATION)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    async with new:
        await done(new, job_id, "success")
        assert await new.query("jobs:ledger") == ["mutation tea"]


@pytest.mark.parametrize(
    ("before", "after"), [(MUTATION, ACTION), (ACTION, MUTATION)], ids=["to action", "to mutation"]
)
async def test_deploy_a_function_that_was_gone_may_come_back_as_the_other_kind(
    before: str, after: str, version: Deploys
) -> None:
    old, without, new = version(before), version(LOOK), version(after)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    async with without:
        await parked(without, job_id)
    async with new:
        await done(new, job_id, "success")
        assert await new.query("jobs:ledger") == ["action tea inProgress" if after is ACTION else "mutation tea"]


@pytest.mark.parametrize("before", [MUTATION, ACTION], ids=["mutation", "action"])
@pytest.mark.parametrize("gone_between", [False, True])
async def test_deploy_a_function_that_has_become_a_query_fails_it(
    before: str, gone_between: bool, version: Deploys
) -> None:
    old, without, new = version(before), version(LOOK), version(QUERY)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    if gone_between:
        async with without:
            await parked(without, job_id)
    async with new:
        failed = await done(new, job_id, "failed")
        assert failed["state"]["error"].startswith("NotSchedulableError: 'jobs:run' is a query and can't be scheduled")
        await done(new, await new.scheduler.run_after(0, "jobs:enter", what="next"), "success")
    assert stage.seen == []


@pytest.mark.parametrize("before", [MUTATION, ACTION], ids=["mutation", "action"])
async def test_deploy_arguments_that_no_longer_fit_fail_it_before_its_first_line(before: str, version: Deploys) -> None:
    changed = before.replace("def run(ctx: duly.MutationCtx, what: str)", "def run(ctx: duly.MutationCtx, cup: int)")
    changed = changed.replace("def run(ctx: duly.ActionCtx, what: str)", "def run(ctx: duly.ActionCtx, cup: int)")
    changed = changed.replace("{what}", "{cup}")
    assert changed != before
    old, new = version(before), version(changed)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    async with new:
        failed = await done(new, job_id, "failed")
        assert failed["state"]["error"].startswith("ArgumentError: the arguments don't fit 'jobs:run': ")
        assert "cup" in failed["state"]["error"]
        assert await new.query("jobs:ledger") == []


async def test_deploy_arguments_of_before_fit_a_function_with_more_that_have_defaults(version: Deploys) -> None:
    changed = MUTATION.replace(
        "run(ctx: duly.MutationCtx, what: str", "run(ctx: duly.MutationCtx, what: str, cups: int = 2"
    )
    changed = changed.replace("mutation {what}", "{cups} {what}")
    assert changed != MUTATION
    old, new = version(MUTATION), version(changed)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    async with new:
        await done(new, job_id, "success")
        assert await new.query("jobs:ledger") == ["2 tea"]


async def transactions_while_idle(store: FaultyStore) -> int:
    """How many are made in many turns of the event loop, once what there was to do is done."""
    for _ in range(50):
        await asyncio.sleep(0.001)
    before = store.transactions
    for _ in range(50):
        await asyncio.sleep(0.001)
    return store.transactions - before


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_deploy_a_worker_that_lacks_a_function_does_not_spin(kind: str, version: Deploys) -> None:
    source = MUTATION if kind == "mutation" else ACTION
    stores: list[FaultyStore] = []

    def make(url: str, clock: Any) -> FaultyStore:
        stores.append(FaultyStore(url, clock))
        return stores[0]

    old, without = version(source), version(LOOK)
    async with old.client():
        job_id = await old.scheduler.run_after(0, "jobs:run", what="tea")
    without._parts = Parts(store=make)
    async with without:
        await parked(without, job_id)
        assert await transactions_while_idle(stores[0]) <= 2


async def test_deploy_a_parked_action_that_has_no_room_does_not_make_the_mutations_spin(version: Deploys) -> None:
    stores: list[FaultyStore] = []

    def make(url: str, clock: Any) -> FaultyStore:
        stores.append(FaultyStore(url, clock))
        return stores[0]

    blocking = (
        ACTION
        + """
    import asyncio

    @duly.action
    async def block(ctx: duly.ActionCtx) -> None:
        seen.append(asyncio.Event())
        await seen[0].wait()
"""
    )
    old, without, new = version(blocking), version(LOOK), version(blocking, concurrent_actions=1)
    async with old.client():
        first = await old.scheduler.run_after(0, "jobs:block")
    new._parts = Parts(store=make)
    async with old.client():
        second = await old.scheduler.run_after(1, "jobs:run", what="tea")
    async with without:
        await parked(without, first)
        await parked(without, second)
    async with new:
        await stage.has_seen(1)
        assert await transactions_while_idle(stores[0]) <= 2
        await done(new, await new.scheduler.run_after(0, "jobs:enter", what="next"), "success")
        stage.seen[0].set()
        await done(new, first, "success")
        await done(new, second, "success")
