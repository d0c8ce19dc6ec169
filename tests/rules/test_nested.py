"""Nested runs: `ctx.run_query`, `ctx.run_mutation` and `ctx.run_action`, their jobs and their limits (DESIGN 3.2)."""

import asyncio
from datetime import timedelta
from typing import Any, TypedDict

import pytest

import duly
from duly._call.scope import CallChain
from duly.errors import (
    AppError,
    ArgumentError,
    FunctionKindError,
    FunctionNotFoundError,
    LimitError,
    MutationWaitError,
    ReturnValueError,
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


@duly.query
async def look(ctx: duly.QueryCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
async def act(ctx: duly.ActionCtx, body: str) -> Any:
    return await stage.bodies[body](ctx)


@duly.action
def act_in_thread(ctx: duly.SyncActionCtx, body: str) -> Any:
    return stage.bodies[body](ctx)


@duly.internal_mutation
async def add(ctx: duly.MutationCtx, name: str, *, fail: bool = False, job: bool = False) -> str | None:
    await ctx.db.insert(items, {"name": name})
    id = await ctx.scheduler.run_after(0, note, name) if job else None
    if fail:
        raise AppError(f"{name} failed")
    return id


@duly.internal_mutation
async def add_and_return(ctx: duly.MutationCtx, value: Any) -> int:
    await ctx.db.insert(items, {"name": str(value)})
    await ctx.scheduler.run_after(0, note, value)
    result: int = value
    return result


@duly.internal_query
async def names(ctx: duly.QueryCtx) -> list[str]:
    return [item["name"] async for item in ctx.db.query(items)]


@duly.internal_query
async def count(ctx: duly.QueryCtx) -> int:
    return len(await ctx.run_query(names))


@duly.mutation
async def note(ctx: duly.MutationCtx, what: Any = None) -> None:
    stage.seen.append(what)


@duly.query
async def job_of(ctx: duly.QueryCtx, id: str) -> Any:
    return await ctx.db.system.get(id)


@duly.query
async def all_jobs(ctx: duly.QueryCtx) -> Any:
    return await ctx.db.system.query("_scheduled_functions").collect()


def app_on(database: str, **options: Any) -> duly.App:
    # None of these rules is about the time a mutation may take, and a busy machine takes longer.
    return duly.App(__name__, database=database, mutation_timeout=timedelta(minutes=1), **options)


async def finished(app: duly.App, id: str, kind: str | None = None) -> Json:
    return await has_finished(lambda: app.query(job_of, id), kind)


# In a mutation: the same transaction.


async def test_a_nested_mutation_is_part_of_the_transaction(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> list[str]:
            await ctx.db.insert(items, {"name": "outer"})
            id = await ctx.run_mutation(add, "inner", job=True)
            assert id is not None
            assert await ctx.run_query(names) == ["outer", "inner"]
            assert await ctx.run_query(count) == 2
            return await ctx.run_query(names)

        assert await app.mutation(perform, outer) == ["outer", "inner"]
        assert await app.query(names) == ["outer", "inner"]
        await stage.has_seen(1)
    assert stage.seen == ["inner"]


async def test_what_a_nested_mutation_did_is_rolled_back_with_the_outer_one(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(add, "inner", job=True)
            raise AppError("no")

        with pytest.raises(AppError):
            await app.mutation(perform, outer)
        assert await app.query(names) == []
        assert await app.query(all_jobs) == []
        await finished(app, await app.scheduler.run_after(0, note, "next"), "success")
    assert stage.seen == ["next"]


async def test_a_nested_mutation_is_all_or_nothing(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(add, "before", job=True)
            kept = await ctx.db.insert(items, {"name": "patched"})

            with pytest.raises(AppError) as raised:
                await ctx.run_mutation(add, "never", fail=True, job=True)
            assert raised.value.data == "never failed"
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, changes_and_fails)

            assert await ctx.run_query(names) == ["before", "patched"]
            assert await ctx.db.get(kept) is not None
            await ctx.run_mutation(add, "after", job=True)

        @stage.body
        async def changes_and_fails(ctx: duly.MutationCtx) -> None:
            for item in await ctx.db.query(items).collect():
                await ctx.db.delete(duly.id_of(item))
            raise AppError("no")

        await app.mutation(perform, outer)
        assert await app.query(names) == ["before", "patched", "after"]
        assert len(await app.query(all_jobs)) == 2
        await stage.has_seen(2)
    assert stage.seen == ["before", "after"]


async def test_a_failure_takes_what_was_nested_in_it_and_nothing_else(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def middle(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(add, "deep", job=True)
            with pytest.raises(AppError):
                await ctx.run_mutation(add, "deep and failed", fail=True, job=True)
            await ctx.db.insert(items, {"name": "middle"})
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(add, "first", job=True)
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, middle)
            await ctx.run_mutation(add, "last", job=True)

        await app.mutation(perform, outer)
        assert await app.query(names) == ["first", "last"]
        assert [job["args"][0]["what"] for job in await app.query(all_jobs)] == ["first", "last"]


async def test_mutations_nest_deeply(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def nests(ctx: duly.MutationCtx) -> int:
            stage.seen.append(None)
            depth = len(stage.seen)
            await ctx.db.insert(items, {"name": str(depth)})
            if depth == 30:
                return depth
            result: int = await ctx.run_mutation(perform, "nests")
            return result

        assert await app.mutation(perform, nests) == 30
        assert await app.query(count) == 30


async def test_endless_nesting_is_an_error_and_leaves_nothing(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def nests(ctx: duly.MutationCtx) -> None:
            await ctx.db.insert(items, {"name": "never"})
            await ctx.run_mutation(perform, "nests")

        with pytest.raises(RecursionError):
            await app.mutation(perform, nests)
        failed = await finished(app, await app.scheduler.run_after(0, perform, nests), "failed")
        assert "RecursionError" in failed["state"]["error"]
        assert await app.query(names) == []
        await finished(app, await app.scheduler.run_after(0, note, "goes on"), "success")


async def test_a_nested_run_is_checked_before_it_begins(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def outer(ctx: Any) -> None:
            await ctx.run_mutation(add, "before")
            with pytest.raises(ArgumentError, match="name: is missing"):
                await ctx.run_mutation(add)
            with pytest.raises(ArgumentError, match="name: input should be a valid string"):
                await ctx.run_mutation(add, name=5)
            with pytest.raises(ArgumentError, match="not expected"):
                await ctx.run_query(names, colour=1)
            with pytest.raises(FunctionNotFoundError, match="test_nested:add"):
                await ctx.run_mutation("test_nested:ad")
            with pytest.raises(FunctionKindError, match="is a query, not a mutation"):
                await ctx.run_mutation(names)
            with pytest.raises(FunctionKindError, match="is a mutation, not a query"):
                await ctx.run_query(add, "x")
            with pytest.raises(FunctionKindError, match=r"is an? action, not a mutation"):
                await ctx.run_mutation(act, "x")
            with pytest.raises(TypeError):
                await ctx.run_mutation(None)
            assert not hasattr(ctx, "run_action")

        await app.mutation(perform, outer)
        assert await app.query(names) == ["before"]


async def test_a_nested_mutation_that_returns_the_wrong_type_leaves_nothing(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> int:
            with pytest.raises(ReturnValueError):
                await ctx.run_mutation(add_and_return, "no int")
            return await ctx.run_mutation(add_and_return, 7)

        assert await app.mutation(perform, outer) == 7
        assert await app.query(names) == ["7"]
        assert [job["args"] for job in await app.query(all_jobs)] == [[{"what": 7}]]


async def test_functions_are_called_by_every_kind_of_reference(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def outer(ctx: Any) -> None:
            for mutation in (add, "test_nested:add", duly.internal.test_nested.add):
                await ctx.run_mutation(mutation, "x")
            for query in (names, "test_nested:names", duly.internal.test_nested.names):
                assert "x" in await ctx.run_query(query)

        await app.mutation(perform, outer)
        await app.action(act, outer)
        assert await app.query(names) == ["x"] * 6


async def test_what_a_function_runs_runs_for_the_same_caller(database: str) -> None:
    ann = duly.Identity(issuer="https://id.example.com", subject="ann")
    async with app_on(database) as app:

        @stage.body
        async def who(ctx: Any) -> None:
            stage.seen.append(await ctx.auth.identity())

        @stage.thread_body
        def in_thread(ctx: duly.SyncActionCtx) -> None:
            stage.seen.append(ctx.auth.identity())
            ctx.run_query(look, who)

        @stage.body
        async def nested(ctx: duly.MutationCtx) -> None:
            await ctx.run_query(look, who)
            await ctx.run_mutation(perform, who)

        @stage.body
        async def outer(ctx: duly.ActionCtx) -> None:
            await ctx.run_query(look, who)
            await ctx.run_mutation(perform, nested)
            await ctx.run_action(act, who)
            await ctx.run_action(act_in_thread, in_thread)

        for identity in (ann, None):
            stage.seen.clear()
            await app._running().action(CallChain(identity=identity), act, (outer,), {})
            assert stage.seen == [identity] * 6
        stage.seen.clear()
        await finished(app, await app.scheduler.run_after(0, act, outer), "success")
        assert stage.seen == [None] * 6


async def test_a_nested_run_has_the_time_and_the_root_of_the_outer_one(database: str) -> None:
    clock = ManualClock()
    async with app_with(app_on(database), clock) as app:

        @stage.body
        async def inner(ctx: duly.QueryCtx) -> Any:
            return [ctx.now, ctx.scheduled_function_id, await ctx.auth.identity()]

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            own = await stage.bodies[inner](ctx)
            await clock.advance(1)
            stage.seen.append([own, await ctx.run_mutation(perform, inner), await ctx.run_query(look, inner)])

        await app.mutation(perform, outer)
        id = await app.scheduler.run_after(0, perform, outer)
        await finished(app, id, "success")
    called, scheduled = stage.seen
    assert called[0] == called[1] == called[2]
    assert called[0][1] is None
    assert scheduled[0] == scheduled[1] == scheduled[2]
    assert scheduled[0][1] == id


async def test_a_nested_query_only_reads(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def inner(ctx: Any) -> None:
            assert not hasattr(ctx.db, "insert")
            assert not hasattr(ctx, "scheduler")
            assert not hasattr(ctx, "run_mutation")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.run_query(look, inner)

        await app.mutation(perform, outer)


async def test_gathered_nested_mutations_take_turns_and_fail_apart(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            results = await asyncio.gather(
                *(ctx.run_mutation(add, str(number), fail=number % 3 == 0, job=True) for number in range(12)),
                ctx.db.insert(items, {"name": "beside"}),
                return_exceptions=True,
            )
            assert [isinstance(result, AppError) for result in results] == [n % 3 == 0 for n in range(12)] + [False]

        await app.mutation(perform, outer)
        expected = [str(number) for number in range(12) if number % 3]
        assert sorted(await app.query(names)) == sorted([*expected, "beside"])
        assert sorted(job["args"][0]["what"] for job in await app.query(all_jobs)) == sorted(expected)


async def test_the_ctx_of_a_nested_run_ends_with_it(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def inner(ctx: duly.MutationCtx) -> None:
            stage.seen.append(ctx)

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(perform, inner)
            leaked: duly.MutationCtx = stage.seen[0]
            with pytest.raises(duly.DulyError, match="after the function had returned"):
                await leaked.db.insert(items, {"name": "never"})
            with pytest.raises(duly.DulyError, match="after the function had returned"):
                await leaked.scheduler.run_after(0, note)
            with pytest.raises(duly.DulyError, match="after the function had returned"):
                await leaked.run_mutation(add, "never")
            with pytest.raises(duly.DulyError, match="after the function had returned"):
                await leaked.run_query(names)
            await ctx.db.insert(items, {"name": "kept"})

        await app.mutation(perform, outer)
        assert await app.query(names) == ["kept"]
        assert await app.query(all_jobs) == []


async def test_the_app_is_not_called_from_inside_a_mutation_or_query(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def calls(ctx: duly.QueryCtx) -> None:
            with pytest.raises(MutationWaitError, match=r"ctx\.run_mutation"):
                await app.mutation(add, "never")
            with pytest.raises(MutationWaitError, match=r"ctx\.run_query"):
                await app.query(names)
            with pytest.raises(MutationWaitError):
                await app.action(act, "never")

        @stage.body
        async def nests(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(perform, calls)
            await ctx.run_query(look, calls)

        await app.mutation(perform, calls)
        await app.mutation(perform, nests)
        assert await app.query(names) == []


# Limits are shared, and a failed nested mutation gives its share back.


async def test_S9_a_nested_mutation_that_fails_gives_back_its_share_of_the_jobs(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules_and_fails(ctx: duly.MutationCtx) -> None:
            for _ in range(900):
                await ctx.scheduler.run_after(1_000, note, "never")
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            for _ in range(3):
                with pytest.raises(AppError):
                    await ctx.run_mutation(perform, schedules_and_fails)
            for _ in range(1_000):
                await ctx.scheduler.run_after(1_000, note, "kept")
            with pytest.raises(LimitError) as raised:
                await ctx.run_mutation(add, "one too many", job=True)
            assert raised.value.actual == 1_001
            await ctx.run_mutation(add, "without a job")

        await app.mutation(perform, outer)
        assert [job["args"] for job in await app.query(all_jobs)] == [[{"what": "kept"}]] * 1_000
        assert await app.query(names) == ["without a job"]


async def test_S9_a_nested_mutation_that_fails_gives_back_its_share_of_the_bytes(database: str) -> None:
    large = "x" * (4 * 1024 * 1024 - 100)
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for _ in range(4):
                await ctx.scheduler.run_after(1_000, note, large)

        @stage.body
        async def schedules_and_fails(ctx: duly.MutationCtx) -> None:
            await ctx.run_mutation(perform, schedules)
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            for _ in range(2):
                with pytest.raises(AppError):
                    await ctx.run_mutation(perform, schedules_and_fails)
            await ctx.run_mutation(perform, schedules)
            with pytest.raises(LimitError) as raised:
                await ctx.scheduler.run_after(1_000, note, large)
            assert raised.value.maximum == 16 * 1024 * 1024

        await app.mutation(perform, outer)
        assert len(await app.query(all_jobs)) == 4


async def test_S9_a_limit_reached_inside_a_nested_mutation_rolls_back_that_one(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules_too_many(ctx: duly.MutationCtx) -> None:
            for _ in range(1_000):
                await ctx.scheduler.run_after(1_000, note, "never")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> None:
            await ctx.scheduler.run_after(1_000, note, "before")
            with pytest.raises(LimitError):
                await ctx.run_mutation(perform, schedules_too_many)
            await ctx.scheduler.run_after(1_000, note, "after")

        await app.mutation(perform, outer)
        assert [job["args"][0]["what"] for job in await app.query(all_jobs)] == ["before", "after"]


async def test_T4_the_writes_of_nested_mutations_share_the_limit_and_are_given_back(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def writes(ctx: duly.MutationCtx) -> None:
            for _ in range(9_000):
                await ctx.db.insert("scratch", {})

        @stage.body
        async def writes_and_fails(ctx: duly.MutationCtx) -> None:
            await stage.bodies[writes](ctx)
            raise AppError("no")

        @stage.body
        async def outer(ctx: duly.MutationCtx) -> int:
            with pytest.raises(AppError):
                await ctx.run_mutation(perform, writes_and_fails)
            await ctx.run_mutation(perform, writes)
            with pytest.raises(LimitError, match="writes"):
                await ctx.run_mutation(perform, writes)
            return await ctx.db.query("scratch").count()

        assert await app.mutation(perform, outer) == 9_000


# In a query: the same snapshot.


async def test_a_nested_query_reads_the_same_snapshot(file_database: str) -> None:
    """Seen on a file, where a query waits while others write."""
    async with app_on(file_database).client() as app:
        await app.mutation(add, "old")

        @stage.body
        async def reads(ctx: duly.QueryCtx) -> Any:
            first = await ctx.run_query(names)
            stage.seen.append("read")
            await stage.gate("written").wait()
            return [first, await ctx.run_query(names), await ctx.run_query(count)]

        reading = asyncio.create_task(app.query(look, reads))
        await stage.has_seen(1)
        await app.mutation(add, "new")
        stage.gate("written").set()
        assert await reading == [["old"], ["old"], 1]
        assert await app.query(names) == ["old", "new"]


# In an action: each its own transaction.


async def test_in_an_action_each_run_commits_by_itself(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            assert await ctx.run_query(names) == []
            await ctx.run_mutation(add, "first", job=True)
            assert await ctx.run_query(names) == ["first"]
            with pytest.raises(AppError) as raised:
                await ctx.run_mutation(add, "never", fail=True, job=True)
            assert raised.value.data == "never failed"
            await ctx.run_mutation(add, "second")
            raise AppError("no")

        with pytest.raises(AppError):
            await app.action(act, runs)
        assert await app.query(names) == ["first", "second"]
        await stage.has_seen(1)
    assert stage.seen == ["first"]


async def test_in_an_action_each_mutation_has_limits_of_its_own(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def schedules(ctx: duly.MutationCtx) -> None:
            for _ in range(700):
                await ctx.scheduler.run_after(1_000, note)

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            await ctx.run_mutation(perform, schedules)
            await ctx.run_mutation(perform, schedules)

        await app.action(act, runs)
        assert len(await app.query(all_jobs)) == 1_400


async def test_in_an_action_runs_may_be_gathered(database: str) -> None:
    async with app_on(database).client() as app:

        @stage.body
        async def runs(ctx: duly.ActionCtx) -> None:
            results = await asyncio.gather(
                *(ctx.run_mutation(add, str(number), fail=number == 5) for number in range(10)),
                return_exceptions=True,
            )
            assert [n for n, result in enumerate(results) if isinstance(result, AppError)] == [5]

        await app.action(act, runs)
        assert sorted(await app.query(names)) == [str(n) for n in range(10) if n != 5]


async def test_an_action_runs_an_action_as_part_of_itself(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def inner(ctx: duly.ActionCtx) -> Any:
            await ctx.run_mutation(add, "from inside")
            return [ctx.scheduled_function_id]

        @stage.thread_body
        def inner_in_thread(ctx: duly.SyncActionCtx) -> Any:
            ctx.run_mutation(add, "from a thread")
            return [ctx.scheduled_function_id]

        @stage.body
        async def fails(ctx: duly.ActionCtx) -> None:
            raise AppError("inner failed")

        @stage.body
        async def outer(ctx: duly.ActionCtx) -> None:
            stage.seen += await ctx.run_action(act, inner)
            stage.seen += await ctx.run_action(act_in_thread, inner_in_thread)
            with pytest.raises(AppError, match="inner failed"):
                await ctx.run_action(act, fails)
            with pytest.raises(FunctionKindError):
                await ctx.run_action(names)
            with pytest.raises(ArgumentError):
                await ctx.run_action("test_nested:act")

        id = await app.scheduler.run_after(0, act, outer)
        await finished(app, id, "success")
        assert stage.seen == [id, id]
        assert len(await app.query(all_jobs)) == 1
        assert await app.query(names) == ["from inside", "from a thread"]


async def test_a_plain_action_has_the_same_methods_and_they_block(database: str) -> None:
    async with app_on(database) as app:

        @stage.body
        async def inner(ctx: duly.ActionCtx) -> str:
            return "from an action"

        @stage.thread_body
        def runs(ctx: duly.SyncActionCtx) -> Any:
            id = ctx.run_mutation(add, "written", job=True)
            with pytest.raises(AppError):
                ctx.run_mutation(add, "never", fail=True)
            with pytest.raises(ArgumentError):
                ctx.run_mutation("test_nested:add")
            return [id, ctx.run_query(names), ctx.run_query(count), ctx.run_action(act, inner), ctx.auth.identity()]

        id, *rest = await app.action(act_in_thread, runs)
        assert rest == [["written"], 1, "from an action", None]
        await finished(app, id, "success")

        async def scheduled() -> bool:
            return stage.seen == ["written"]

        await eventually(scheduled)
