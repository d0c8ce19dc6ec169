"""A call that a function does not await does nothing: the function fails, and does not go without."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

import duly
from duly.errors import DulyError

RUN_QUERY, RUN_MUTATION = "test_forgotten:nothing", "test_forgotten:put"

FORGOTTEN: dict[str, Callable[[Any, str], Any]] = {
    "Scheduler.run_after": lambda ctx, _: ctx.scheduler.run_after(0, RUN_MUTATION),
    "Scheduler.run_at": lambda ctx, _: ctx.scheduler.run_at(0, RUN_MUTATION),
    "Scheduler.cancel": lambda ctx, id: ctx.scheduler.cancel(id),
    "DatabaseWriter.insert": lambda ctx, _: ctx.db.insert("notes", {}),
    "DatabaseReader.get": lambda ctx, id: ctx.db.get(id),
    "SystemReader.get": lambda ctx, id: ctx.db.system.get(id),
    "MutationCtx.sql": lambda ctx, _: ctx.sql("SELECT 1"),
    "MutationCtx.run_mutation": lambda ctx, _: ctx.run_mutation(RUN_MUTATION),
    "QueryCtx.run_query": lambda ctx, _: ctx.run_query(RUN_QUERY),
}


@duly.query
async def nothing(ctx: duly.QueryCtx) -> None: ...


@duly.mutation
async def put(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert("notes", {})


@duly.mutation
async def put_and_tell(ctx: duly.MutationCtx) -> str:
    return await ctx.db.insert("notes", {})


@duly.mutation
async def forgets(ctx: duly.MutationCtx, what: str, id: str) -> None:
    await ctx.db.insert("notes", {})
    FORGOTTEN[what](ctx, id)


@duly.mutation
async def calls_who_forgets(ctx: duly.MutationCtx, what: str, id: str) -> str:
    with pytest.raises(DulyError, match="put 'await' before the call"):
        await ctx.run_mutation(forgets, what, id)
    return "went on"


@duly.query
async def forgets_to_look(ctx: duly.QueryCtx, id: str) -> None:
    ctx.db.system.get(id)


@duly.query
async def counts(ctx: duly.QueryCtx) -> tuple[int, int]:
    return await ctx.db.query("notes").count(), len(await ctx.db.system.query("_scheduled_functions").take(99))


@duly.mutation
async def awaits_late(ctx: duly.MutationCtx, many: int) -> None:
    """Together, in tasks, in another order: as long as it is before the end."""
    first = ctx.db.insert("notes", {})
    await asyncio.gather(*[ctx.db.insert("notes", {}) for _ in range(many)])
    second = ctx.scheduler.run_after(timedelta(days=1), nothing_much)
    await second
    await first


@duly.internal_mutation
async def nothing_much(ctx: duly.MutationCtx) -> None: ...


@duly.mutation
async def fails(ctx: duly.MutationCtx) -> None:
    coroutine = ctx.scheduler.run_after(0, nothing_much)
    try:
        raise ZeroDivisionError
    finally:
        coroutine.close()


@pytest.fixture
async def app(database: str) -> AsyncIterator[duly.App]:
    async with duly.App(__name__, database=database).client() as opened:
        yield opened


@pytest.mark.parametrize("what", FORGOTTEN)
async def test_a_call_that_is_not_awaited_fails_the_mutation(app: duly.App, what: str) -> None:
    id: str = await app.scheduler.run_after(timedelta(days=1), nothing_much)
    if what == "DatabaseReader.get":
        id = await app.mutation(put_and_tell)
    before = await app.query(counts)
    with pytest.raises(DulyError, match=rf"'test_forgotten:forgets' returned and had not awaited {what}\(…\)"):
        await app.mutation(forgets, what, id)
    assert await app.query(counts) == before
    assert await app.mutation(calls_who_forgets, what, id) == "went on"
    assert await app.query(counts) == before


async def test_nor_may_a_query_forget(app: duly.App) -> None:
    id = await app.scheduler.run_after(timedelta(days=1), nothing_much)
    with pytest.raises(DulyError, match=r"had not awaited SystemReader\.get"):
        await app.query(forgets_to_look, id)


async def test_what_is_awaited_late_is_awaited(app: duly.App) -> None:
    await app.mutation(awaits_late, 3_000)
    assert await app.query(counts) == (3_001, 1)


async def test_what_fails_fails_with_its_own_error(app: duly.App) -> None:
    with pytest.raises(ZeroDivisionError):
        await app.mutation(fails)
