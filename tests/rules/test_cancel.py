"""Cancelling: rules C1 to C4."""

import asyncio
from datetime import timedelta
from typing import Any, Literal, TypedDict

import pytest

import duly
from duly._store.port import Transaction
from duly.errors import (
    AlreadyFinishedError,
    AppError,
    ArgumentError,
    InvalidIdError,
    LimitError,
    ScheduledFunctionNotFoundError,
)
from tests.rules.stage import Json, Stage, app_with, has_finished
from tests.support import ManualClock, eventually

stage = Stage()


@pytest.fixture(autouse=True)
def clear_stage() -> None:
    stage.clear()


class Item(TypedDict):
    name: str


items = duly.Table("items", Item)


@duly.mutation
async def perform(ctx: duly.MutationCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
async def act(ctx: duly.ActionCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
def act_in_thread(ctx: duly.SyncActionCtx, body: str) -> Any:
    return stage.bodies[body](ctx)


@duly.mutation
async def note(ctx: duly.MutationCtx, what: Any = None) -> None:
    await ctx.db.insert(items, {"name": str(what)})
    stage.seen.append(what)


@duly.action
async def note_in_action(ctx: duly.ActionCtx, what: Any = None) -> None:
    stage.seen.append(what)


@duly.mutation
async def add(ctx: duly.MutationCtx, name: str) -> duly.Id[Item]:
    return await ctx.db.insert(items, {"name": name})


@duly.mutation
async def cancel(ctx: duly.MutationCtx, id: duly.Id[duly.ScheduledFunction]) -> None:
    await ctx.scheduler.cancel(id)


@duly.query
async def names(ctx: duly.QueryCtx) -> list[str]:
    return [item["name"] async for item in ctx.db.query(items)]


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


def app_on(database: str, **options: Any) -> duly.App:
    # None of these rules is about the time a mutation may take, and a busy machine takes longer.
    return duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=1), **options)


async def job(app: duly.App, id: str) -> Json:
    document: Json | None = await app.query(job_of, id)
    assert document is not None
    return document


async def kind_of(app: duly.App, id: str) -> str:
    kind: str = (await job(app, id))["state"]["kind"]
    return kind


async def finished(app: duly.App, id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, id), kind)


Place = Literal["mutation", "action", "thread", "python"]
PLACES: list[Place] = ["mutation", "action", "thread", "python"]


async def cancel_in(place: Place, app: duly.App, *args: Any, **kwargs: Any) -> None:
    """Calls `cancel`, untyped, from each place that has one."""

    @stage.body
    async def cancels(ctx: Any) -> None:
        assert await ctx.scheduler.cancel(*args, **kwargs) is None

    @stage.thread_body
    def cancels_in_thread(ctx: Any) -> None:
        assert ctx.scheduler.cancel(*args, **kwargs) is None

    match place:
        case "mutation":
            await app.mutation(perform, cancels)
        case "action":
            await app.action(act, cancels)
        case "thread":
            await app.action(act_in_thread, cancels_in_thread)
        case "python":
            scheduler: Any = app.scheduler
            assert await scheduler.cancel(*args, **kwargs) is None


# C1: what is pending.


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", [note, note_in_action], ids=["mutation", "action"])
async def test_C1_a_canceled_job_never_runs(
    database: str, place: Place, target: duly.FunctionReference[[Any], None]
) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        id = await app.scheduler.run_after(1_000, target, "never")
        before = await job(app, id)
        await clock.advance(0.25)
        await cancel_in(place, app, id)
        canceled = await job(app, id)
        assert canceled["state"] == {"kind": "canceled"}
        assert canceled["completedTime"] == clock.now_ms()
        assert canceled["scheduledTime"] == before["scheduledTime"]
        assert canceled["attempts"] == 0
        assert "startedTime" not in canceled
        assert "nextAttemptTime" not in canceled
        assert canceled["args"] == before["args"]
        await clock.advance(10)
        # What is due later has run: it would have, too.
        await finished(app, await app.scheduler.run_after(0, target, "next"), "success")
        assert await job(app, id) == canceled
    assert stage.seen == ["next"]


async def test_C1_only_the_named_job_is_canceled(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        ids = [await app.scheduler.run_after(1_000, note, number) for number in range(5)]
        await app.scheduler.cancel(ids[1])
        await app.scheduler.cancel(ids[3])
        await clock.advance(1)
        await stage.has_seen(3)
        assert [await kind_of(app, id) for id in ids] == ["success", "canceled", "success", "canceled", "success"]
    assert stage.seen == [0, 2, 4]


async def test_C1_a_job_that_one_before_it_cancels_is_not_even_begun(database: str) -> None:
    """Both are due, and looked up together."""
    victims: list[duly.Id[duly.ScheduledFunction]] = []
    async with app_on(database) as app:

        @stage.body
        async def cancel_the_next(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.cancel(victims[-1])

        @stage.body
        async def schedule_both(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.run_after(0, perform, cancel_the_next)
            victims.append(await ctx.scheduler.run_after(0, note, what="ran"))

        await app.mutation(perform, schedule_both)
        await finished(app, victims[-1], "canceled")
        last = await app.scheduler.run_after(0, note, what="last")
        await finished(app, last, "success")
    assert stage.seen == ["last"]


async def test_C1_the_cancel_is_rolled_back_with_its_transaction(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        id = await app.scheduler.run_after(1_000, note, "runs")
        before = await job(app, id)

        @stage.body
        async def fails(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.cancel(id)
            canceled = await ctx.db.system.get(id)
            assert canceled is not None
            assert canceled["state"] == {"kind": "canceled"}
            raise AppError("no")

        with pytest.raises(AppError):
            await app.mutation(perform, fails)
        assert await job(app, id) == before
        # As a scheduled function that fails, too.
        await finished(app, await app.scheduler.run_after(0, perform, fails), "failed")
        assert await job(app, id) == before
        await clock.advance(1)
        await finished(app, id, "success")
    assert stage.seen == ["runs"]


async def test_C1_the_cancel_is_rolled_back_with_its_nested_mutation(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        first = await app.scheduler.run_after(1_000, note, "runs")
        second = await app.scheduler.run_after(1_000, note, "never")

        @stage.body
        async def inner(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.cancel(first)
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, inner)
            await ctx.run_mutation(cancel, second)

        await app.mutation(perform, outer)
        assert await kind_of(app, first) == "pending"
        assert await kind_of(app, second) == "canceled"
        await clock.advance(1)
        await finished(app, first, "success")
    assert stage.seen == ["runs"]


async def test_C1_the_cancel_is_atomic_with_the_other_writes(file_database: str) -> None:
    async with app_on(file_database).client() as app, app_on(file_database).client() as onlooker:
        id = await app.scheduler.run_after(60_000, note)

        @stage.body
        async def cancels(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.cancel(id)
            await ctx.db.insert(items, {"name": "canceled"})
            stage.seen.append("canceled")
            await stage.gate("looked").wait()

        running = asyncio.create_task(app.mutation(perform, cancels))
        await stage.has_seen(1)
        assert await kind_of(onlooker, id) == "pending"
        assert await onlooker.query(names) == []
        stage.gate("looked").set()
        await running
        assert await kind_of(onlooker, id) == "canceled"
        assert await onlooker.query(names) == ["canceled"]


@pytest.mark.parametrize(("succeeds", "state"), [(True, "success"), (False, "failed")])
async def test_C1_a_cancel_that_races_a_running_mutation_fails_because_it_committed(
    database: str, succeeds: bool, state: str
) -> None:
    """Or, on a server, where neither waits for the other, the mutation has no effect because the cancel committed."""
    async with app_on(database) as app:

        @stage.body
        async def runs(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert(items, {"name": "effect"})
            stage.seen.append("running")
            await stage.gate("go").wait()
            if not succeeds:
                raise AppError("no")

        # A little later, so that it does not share its commit with this call, which then would wait for it.
        id = await app.scheduler.run_after(50, perform, runs)
        await stage.has_seen(1)
        cancelling = asyncio.create_task(app.scheduler.cancel(id))
        for _ in range(20):
            await asyncio.sleep(0)
        on_a_server = database.startswith("postgresql")
        assert on_a_server or not cancelling.done()
        stage.gate("go").set()
        if on_a_server:
            await asyncio.wait({cancelling})
            if cancelling.exception() is None:
                assert await kind_of(app, id) == "canceled"
                assert await app.query(names) == []
                return
        with pytest.raises(AlreadyFinishedError) as raised:
            await cancelling
        assert raised.value.state == state
        assert raised.value.id == id
        assert await kind_of(app, id) == state
        assert await app.query(names) == (["effect"] if succeeds else [])


async def test_C1_either_the_mutation_has_no_effect_or_the_cancel_fails(database: str) -> None:
    async with app_on(database) as app:

        async def race(number: int) -> bool:
            id = await app.scheduler.run_after(number % 7 / 2, note, number)
            for _ in range(number % 5):
                await asyncio.sleep(0)
            try:
                await app.scheduler.cancel(id)
            except AlreadyFinishedError as error:
                state = error.state
            else:
                state = "canceled"
            assert await kind_of(app, id) == state
            return state == "success"

        ran = await asyncio.gather(*(race(number) for number in range(200)))
        # The one that ran last has.
        await finished(app, await app.scheduler.run_after(0, note, "end"), "success")
        expected = {str(number) for number in range(200) if ran[number]} | {"end"}
        assert sorted(await app.query(names)) == sorted(expected)
    begun = {str(seen) for seen in stage.seen}
    # On a server one may begin, lose against the cancel, and leave nothing behind.
    assert begun >= expected if database.startswith("postgresql") else begun == expected


async def test_C1_the_race_has_one_winner_between_two_apps_on_one_file(file_database: str) -> None:
    async with app_on(file_database) as worker, app_on(file_database).client() as client:
        ids = {str(number): await client.scheduler.run_after(20, note, str(number)) for number in range(40)}
        winners: set[str] = set()

        async def race(name: str, id: duly.Id[duly.ScheduledFunction]) -> None:
            try:
                await client.scheduler.cancel(id)
            except AlreadyFinishedError:
                winners.add(name)

        for name, id in ids.items():
            await race(name, id)
        for id in ids.values():
            await finished(worker, id)
        assert set(await client.query(names)) == winners
        assert {name for name, id in ids.items() if await kind_of(client, id) == "success"} == winners


async def test_C1_a_cancel_and_what_it_cancels_can_be_one_transaction(database: str) -> None:
    """The way to reschedule."""
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        first = await app.scheduler.run_after(1_000, note, "first")

        @stage.body
        async def reschedules(ctx: duly.MutationCtx) -> str:
            await ctx.scheduler.cancel(first)
            return await ctx.scheduler.run_after(2_000, note, "second")

        second = await app.mutation(perform, reschedules)
        await clock.advance(2)
        await finished(app, second, "success")
        assert await kind_of(app, first) == "canceled"
    assert stage.seen == ["second"]


# C2: an action in progress.


@pytest.mark.parametrize("outcome", ["returns", "raises"])
@pytest.mark.parametrize("place", PLACES)
async def test_C2_a_running_action_is_canceled_at_once_and_its_outcome_is_not_recorded(
    database: str, place: Place, outcome: str
) -> None:
    clock = ManualClock()
    async with app_with(app_on(database, concurrent_actions=1), clock) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            stage.seen.append("started")
            await stage.gate("go").wait()
            stage.seen.append("last line")
            if outcome == "raises":
                raise AppError("no")

        id = await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        assert await kind_of(app, id) == "inProgress"
        await clock.advance(1)
        await cancel_in(place, app, id)
        canceled = await job(app, id)
        assert canceled["state"] == {"kind": "canceled"}
        assert canceled["completedTime"] == clock.now_ms()
        assert canceled["startedTime"] == clock.now_ms() - 1_000
        assert stage.seen == ["started"]
        await clock.advance(1)
        stage.gate("go").set()
        # There is room for one: when another has run, the first has ended and been dealt with.
        await finished(app, await app.scheduler.run_after(0, note_in_action, "next"), "success")
        assert await job(app, id) == canceled
    assert stage.seen == ["started", "last line", "next"]


async def test_C2_a_canceled_plain_action_runs_on_and_its_outcome_is_not_recorded(database: str) -> None:
    async with app_on(database, concurrent_actions=1) as app:

        @stage.thread_body
        def runs(ctx: duly.SyncActionCtx) -> None:
            stage.seen.append("started")
            assert stage.thread_gate("go").wait(20)
            ctx.run_mutation(add, "written after the cancel")
            stage.seen.append(ctx.scheduler.run_after(0, note, "never"))

        id = await app.scheduler.run_after(0, act_in_thread, runs)
        await stage.has_seen(1)
        await app.scheduler.cancel(id)
        canceled = await job(app, id)
        assert canceled["state"] == {"kind": "canceled"}
        stage.thread_gate("go").set()
        await finished(app, await app.scheduler.run_after(0, note_in_action, "next"), "success")
        assert await job(app, id) == canceled
        assert await app.query(names) == ["written after the cancel"]
        assert await kind_of(app, stage.seen[1]) == "canceled"
    assert stage.seen[2:] == ["next"]


async def test_C2_the_body_is_not_interrupted_and_its_other_writes_commit(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            stage.seen.append("started")
            await stage.gate("go").wait()
            await ctx.run_mutation(add, "written after the cancel")
            assert await ctx.run_query(names) == ["written after the cancel"]
            stage.seen.append("last line")

        id = await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        await app.scheduler.cancel(id)
        stage.gate("go").set()
        await stage.has_seen(2)
        assert await app.query(names) == ["written after the cancel"]
        assert await kind_of(app, id) == "canceled"


async def test_C2_what_a_canceled_action_schedules_from_then_on_is_created_canceled(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:

        @stage.body
        async def schedules_nested(ctx: duly.MutationCtx) -> str:
            return await ctx.scheduler.run_after(0, note, "through a nested mutation")

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> list[str]:
            await ctx.db.insert(items, {"name": "committed"})
            ids: list[str] = [
                await ctx.scheduler.run_after(0, note, "through a mutation"),
                await ctx.scheduler.run_at(ctx.now + timedelta(hours=1), note_in_action, "through a mutation, later"),
                await ctx.run_mutation(perform, schedules_nested),
            ]
            own = await ctx.db.system.get(ids[0])
            assert own is not None
            assert own["state"] == {"kind": "canceled"}
            return ids

        @stage.body
        async def schedules_in_action(ctx: duly.ActionCtx) -> str:
            return await ctx.scheduler.run_after(0, note, "through an action")

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            before = [
                await ctx.scheduler.run_after(500, note, "before, directly"),
                await ctx.run_mutation(perform, schedules_before),
            ]
            stage.seen.append(before)
            await stage.gate("go").wait()
            after = [
                await ctx.scheduler.run_after(0, note, "directly"),
                await ctx.scheduler.run_after(0, note_in_action, "directly, an action"),
                await ctx.scheduler.run_after(timedelta(days=1), note, "directly, later"),
                await ctx.run_action(act, schedules_in_action),
                *await ctx.run_mutation(perform, schedules),
            ]
            stage.seen.append(after)

        @stage.body
        async def schedules_before(ctx: duly.MutationCtx) -> str:
            return await ctx.scheduler.run_after(500, note, "before, through a mutation")

        id = await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        await app.scheduler.cancel(id)
        stage.gate("go").set()
        before, after = await stage.has_seen(2)
        assert len(set(after)) == 7
        for child in after:
            document = await job(app, child)
            assert document["state"] == {"kind": "canceled"}
            assert document["completedTime"] == clock.now_ms()
            assert document["attempts"] == 0
            assert "nextAttemptTime" not in document
            assert "startedTime" not in document
            assert document["args"] != [{}]
        # What it scheduled before is untouched, and runs.
        for child in before:
            assert await kind_of(app, child) == "pending"
        stage.seen.clear()
        await clock.advance(2 * 24 * 3_600)
        for child in before:
            await finished(app, child, "success")
        assert [await kind_of(app, child) for child in after] == ["canceled"] * 7
        assert await app.query(names) == ["committed", "before, directly", "before, through a mutation"]
    assert stage.seen == ["before, directly", "before, through a mutation"]


async def test_C2_scheduling_from_a_canceled_action_is_still_checked(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is not None
            await ctx.scheduler.cancel(ctx.scheduled_function_id)
            with pytest.raises(ValueError, match="negative"):
                await ctx.scheduler.run_after(-1, note)
            with pytest.raises(ArgumentError):
                await ctx.scheduler.run_after(0, "test_cancel:note", nothing="like it")
            with pytest.raises(LimitError):
                await ctx.scheduler.run_after(0, note, "x" * 4 * 1024 * 1024)
            stage.seen.append("checked")

        await app.scheduler.run_after(0, act, runs)
        assert await stage.has_seen(1) == ["checked"]


async def test_C2_an_action_may_cancel_itself(database: str) -> None:
    async with app_on(database, concurrent_actions=1) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is not None
            await ctx.scheduler.cancel(ctx.scheduled_function_id)
            await ctx.scheduler.cancel(ctx.scheduled_function_id)
            stage.seen.append(await ctx.scheduler.run_after(0, note, "never"))

        id = await app.scheduler.run_after(0, act, runs)
        (child,) = await stage.has_seen(1)
        await finished(app, await app.scheduler.run_after(0, note_in_action, "next"), "success")
        assert await kind_of(app, id) == "canceled"
        assert await kind_of(app, child) == "canceled"
    assert stage.seen[1:] == ["next"]


async def test_C2_an_action_may_cancel_itself_through_a_mutation(database: str) -> None:
    async with app_on(database, concurrent_actions=1) as app:

        async def cancel_and_schedule(ctx: duly.MutationCtx) -> list[str]:
            before = await ctx.scheduler.run_after(0, note, "runs")
            assert ctx.scheduled_function_id is not None
            await ctx.scheduler.cancel(ctx.scheduled_function_id)
            return [before, await ctx.scheduler.run_after(0, note, "never")]

        @stage.body
        async def succeeds(ctx: duly.MutationCtx) -> list[str]:
            return await cancel_and_schedule(ctx)

        @stage.body
        async def fails(ctx: duly.MutationCtx) -> None:
            await cancel_and_schedule(ctx)
            raise AppError("no")

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            # A cancel that was rolled back has no such effect.
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, fails)
            stage.seen.append([await ctx.scheduler.run_after(0, note, "not yet canceled")])
            stage.seen.append(await ctx.run_mutation(perform, succeeds))

        id = await app.scheduler.run_after(0, act, runs)
        await finished(app, id, "canceled")

        async def ended() -> bool:
            return sum(isinstance(seen, list) for seen in stage.seen) == 2

        await eventually(ended)
        (first,), (second, third) = (seen for seen in stage.seen if isinstance(seen, list))
        await finished(app, first, "success")
        await finished(app, second, "success")
        assert await kind_of(app, third) == "canceled"
        assert await app.query(names) == ["not yet canceled", "runs"]


async def test_C2_the_cut_is_no_deeper_than_the_chain_of_the_action(database: str) -> None:
    """Others are not concerned: not who scheduled it, nor those it scheduled before, nor what those schedule."""
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:

        @stage.body
        async def child(ctx: duly.ActionCtx) -> None:
            stage.seen.append(await ctx.scheduler.run_after(0, note, "grandchild"))

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            stage.seen.append(await ctx.scheduler.run_after(500, act, child))
            await stage.gate("go").wait()

        id = await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        await app.scheduler.cancel(id)
        await clock.advance(1)
        child_id, grandchild_id, _ = await stage.has_seen(3)
        await finished(app, child_id, "success")
        await finished(app, grandchild_id, "success")
        await finished(app, await app.scheduler.run_after(0, note, "another"), "success")
        stage.gate("go").set()
    assert stage.seen[2:] == ["grandchild", "another"]


async def test_C2_a_canceled_action_may_still_cancel_others(database: str) -> None:
    async with app_on(database) as app:
        other = await app.scheduler.run_after(60_000, note, "never")

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is not None
            await ctx.scheduler.cancel(ctx.scheduled_function_id)
            await ctx.scheduler.cancel(other)
            stage.seen.append("done")

        await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        assert await kind_of(app, other) == "canceled"


async def test_C2_an_action_that_was_called_and_not_scheduled_is_never_cut_off(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            assert ctx.scheduled_function_id is None
            own = await ctx.scheduler.run_after(60_000, note)
            await ctx.scheduler.cancel(own)
            stage.seen.append(await ctx.scheduler.run_after(0, note, "runs"))

        await app.action(act, runs)
        await finished(app, stage.seen[0], "success")
    assert stage.seen[1:] == ["runs"]


async def test_C2_a_canceled_action_whose_row_is_deleted_does_not_schedule_again_as_if_canceled(database: str) -> None:
    """Its retention is over while it still runs: nobody knows of it any more, and what it schedules is nobody's."""
    clock = ManualClock()
    async with app_with(app_on(database, retention=timedelta(hours=1), action_timeout=timedelta(days=1)), clock) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            stage.seen.append("started")
            await stage.gate("go").wait()
            stage.seen.append(await ctx.scheduler.run_after(0, note, "runs"))

        id = await app.scheduler.run_after(0, act, runs)
        await stage.has_seen(1)
        await app.scheduler.cancel(id)
        await clock.advance(3 * 3_600)

        async def gone() -> bool:
            return await app.query(job_of, id) is None

        await eventually(gone)
        stage.gate("go").set()
        await stage.has_seen(3)
        await finished(app, stage.seen[1], "success")


# C3: what can't be cancelled.


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("state", ["success", "failed"])
@pytest.mark.parametrize("target", [perform, act], ids=["mutation", "action"])
async def test_C3_what_has_succeeded_or_failed_is_already_finished(
    database: str, place: Place, state: str, target: duly.FunctionReference[[str], Any]
) -> None:
    async with app_on(database) as app:

        @stage.body
        async def runs(ctx: Any) -> None:
            if state == "failed":
                raise AppError("no")

        id = await app.scheduler.run_after(0, target, runs)
        before = await finished(app, id, state)
        with pytest.raises(AlreadyFinishedError, match="missing_ok=True") as raised:
            await cancel_in(place, app, id)
        assert raised.value.state == state
        assert raised.value.id == id
        await cancel_in(place, app, id, missing_ok=True)
        assert await job(app, id) == before


@pytest.mark.parametrize("place", PLACES)
async def test_C3_cancelling_what_is_canceled_does_nothing(database: str, place: Place) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock).client() as app:
        id = await app.scheduler.run_after(1_000, note)
        await app.scheduler.cancel(id)
        canceled = await job(app, id)
        await clock.advance(1)
        for missing_ok in (False, True):
            await cancel_in(place, app, id, missing_ok=missing_ok)
            assert await job(app, id) == canceled


async def id_from_elsewhere() -> str:
    """The id of a scheduled function of another database: a good id of something that never was here."""
    async with app_on("sqlite:///:memory:").client() as app:
        return await app.scheduler.run_after(1_000, note)


@pytest.mark.parametrize("place", PLACES)
async def test_C3_what_never_was_is_not_found(database: str, place: Place) -> None:
    id = await id_from_elsewhere()
    async with app_on(database).client() as app:
        with pytest.raises(ScheduledFunctionNotFoundError, match="missing_ok=True") as raised:
            await cancel_in(place, app, id)
        assert raised.value.id == id
        await cancel_in(place, app, id, missing_ok=True)


async def test_C3_what_was_rolled_back_is_not_found(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def fails(ctx: duly.MutationCtx) -> None:
            stage.seen.append(await ctx.scheduler.run_after(1_000, note))
            raise AppError("no")

        with pytest.raises(AppError):
            await app.mutation(perform, fails)
        with pytest.raises(ScheduledFunctionNotFoundError):
            await app.scheduler.cancel(stage.seen[0])


async def test_C3_what_was_deleted_after_its_7_days_is_not_found(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:
        done = await app.scheduler.run_after(0, note)
        await finished(app, done, "success")
        canceled = await app.scheduler.run_after(1_000, note)
        await app.scheduler.cancel(canceled)
        await clock.advance(7 * 24 * 3_600 - 1)
        with pytest.raises(AlreadyFinishedError):
            await app.scheduler.cancel(done)
        await app.scheduler.cancel(canceled)
        await clock.advance(2 * 24 * 3_600)

        async def gone() -> bool:
            return [await app.query(job_of, id) for id in (done, canceled)] == [None, None]

        await eventually(gone)
        for id in (done, canceled):
            with pytest.raises(ScheduledFunctionNotFoundError):
                await app.scheduler.cancel(id)
            await app.scheduler.cancel(id, missing_ok=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("missing_ok", [False, True])
async def test_C3_an_id_of_another_table_is_invalid(database: str, place: Place, missing_ok: bool) -> None:
    async with app_on(database).client() as app:
        item = await app.mutation(add, "tea")
        with pytest.raises(InvalidIdError) as raised:
            await cancel_in(place, app, item, missing_ok=missing_ok)
        assert raised.value.id == item


@pytest.mark.parametrize("missing_ok", [False, True])
@pytest.mark.parametrize(
    "id", ["", "x", "_scheduled_functions", "0" * 32, "~" * 32, "é" * 32, None, 5, 1.5, b"x" * 32, [], True], ids=repr
)
async def test_C3_what_is_no_id_is_invalid(database: str, id: Any, missing_ok: bool) -> None:
    async with app_on(database).client() as app:
        for place in PLACES:
            with pytest.raises(InvalidIdError):
                await cancel_in(place, app, id, missing_ok=missing_ok)


async def test_C3_a_mistyped_id_is_invalid(database: str) -> None:
    async with app_on(database).client() as app:
        id = await app.scheduler.run_after(1_000, note)
        for position in range(5, len(id)):
            other = "z" if id[position] != "z" else "y"
            with pytest.raises(InvalidIdError):
                await app.scheduler.cancel(duly.Id(id[:position] + other + id[position + 1 :]))
        for wrong in (id[:-1], id + "0", id.upper(), f" {id}", f"{id}\n"):
            with pytest.raises(InvalidIdError):
                await app.scheduler.cancel(duly.Id(wrong))
        assert await kind_of(app, id) == "pending"


async def test_C3_the_errors_are_caught_in_a_mutation_and_the_rest_commits(database: str) -> None:
    foreign = await id_from_elsewhere()
    async with app_on(database) as app:
        done = await app.scheduler.run_after(0, note, "done")
        await finished(app, done, "success")
        other = await app.scheduler.run_after(60_000, note)

        @stage.body
        async def cancels(ctx: duly.MutationCtx) -> None:
            item = await ctx.db.insert(items, {"name": "committed"})
            await ctx.scheduler.cancel(other)
            with pytest.raises(AlreadyFinishedError):
                await ctx.scheduler.cancel(done)
            with pytest.raises(ScheduledFunctionNotFoundError):
                await ctx.scheduler.cancel(foreign)
            with pytest.raises(InvalidIdError):
                await ctx.scheduler.cancel(str(item))

        await app.mutation(perform, cancels)
        assert await kind_of(app, other) == "canceled"
        assert await app.query(names) == ["done", "committed"]


# C4: a mutation and the job it runs as.


@pytest.mark.parametrize("nested", [False, True], ids=["itself", "nested"])
async def test_C4_a_scheduled_mutation_can_not_cancel_itself(database: str, nested: bool) -> None:
    async with app_on(database) as app:

        @stage.body
        async def cancels(ctx: duly.MutationCtx) -> None:
            assert ctx.scheduled_function_id is not None
            with pytest.raises(AlreadyFinishedError) as raised:
                await ctx.scheduler.cancel(ctx.scheduled_function_id)
            assert raised.value.id == ctx.scheduled_function_id
            assert raised.value.state == "pending"
            assert "missing_ok=True" in str(raised.value)
            await ctx.db.insert(items, {"name": "effect"})

        @stage.body
        async def runs(ctx: duly.MutationCtx) -> None:
            await (ctx.run_mutation(perform, cancels) if nested else stage.bodies[cancels](ctx))

        id = await app.scheduler.run_after(0, perform, runs)
        await finished(app, id, "success")
        assert await app.query(names) == ["effect"]


async def test_C4_uncaught_it_fails_the_mutation_without_effects(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def cancels(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert(items, {"name": "never"})
            assert ctx.scheduled_function_id is not None
            await ctx.scheduler.cancel(ctx.scheduled_function_id)

        failed = await finished(app, await app.scheduler.run_after(0, perform, cancels), "failed")
        assert "AlreadyFinishedError" in failed["state"]["error"]
        assert await app.query(names) == []


@pytest.mark.parametrize("nested", [False, True], ids=["itself", "nested"])
async def test_C4_with_missing_ok_nothing_happens(database: str, nested: bool) -> None:
    """The usual case: a mutation that clears its own timer."""
    async with app_on(database) as app:

        @stage.body
        async def cancels(ctx: duly.MutationCtx) -> None:
            assert ctx.scheduled_function_id is not None
            await ctx.scheduler.cancel(ctx.scheduled_function_id, missing_ok=True)
            itself = await ctx.db.system.get(ctx.scheduled_function_id)
            assert itself is not None
            assert itself["state"] == {"kind": "pending"}
            await ctx.db.insert(items, {"name": "effect"})
            stage.seen.append(await ctx.scheduler.run_after(0, note, "follow-up"))

        @stage.body
        async def runs(ctx: duly.MutationCtx) -> None:
            await (ctx.run_mutation(perform, cancels) if nested else stage.bodies[cancels](ctx))

        id = await app.scheduler.run_after(0, perform, runs)
        await finished(app, id, "success")
        await finished(app, stage.seen[0], "success")
        assert await app.query(names) == ["effect", "follow-up"]


async def test_C4_concerns_the_mutation_only_while_it_runs(database: str) -> None:
    """The same code, called directly, cancels it; and a scheduled mutation cancels others."""
    async with app_on(database) as app:
        ids = [await app.scheduler.run_after(60_000, note, "never") for _ in range(2)]
        await app.mutation(cancel, ids[0])
        await finished(app, await app.scheduler.run_after(0, cancel, ids[1]), "success")
        assert [await kind_of(app, id) for id in ids] == ["canceled", "canceled"]


# And nothing else ever happens to what has finished.


@pytest.mark.parametrize("after", ["success", "failed", "canceled"])
async def test_a_final_state_is_never_written_over(database: str, after: Any) -> None:
    async with app_on(database).client() as app:
        id = await app.scheduler.run_after(1_000, note)
        await app.scheduler.cancel(id)
        canceled = await job(app, id)

        async def settles(tx: Transaction) -> bool:
            return await tx.settle_job(id, "pending", 0, after, 1.0)

        assert app._store is not None
        assert not await app._store.transact(settles)
        assert await job(app, id) == canceled
