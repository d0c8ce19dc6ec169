"""What users write, and the types they get. Neither checker may find an error here."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import asyncpg
import django.db
import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

import duly
from tests.typing.functions import (
    Job,
    Order,
    User,
    archive_order,
    count_orders,
    create_order,
    get_order,
    jobs,
    loose,
    orders,
    resize,
    resize_slowly,
    send,
    send_plainly,
    send_slowly,
    users,
)

app = duly.App(__name__, database="sqlite:///:memory:", lease=timedelta(seconds=3))


async def calls_from_outside(order_id: duly.Id[Order]) -> None:
    async with app as opened:
        assert_type(opened, duly.App)
    async with app.client() as client:
        assert_type(client, duly.App)

    assert_type(await app.query(get_order, order_id), Order | None)
    assert_type(await app.query(get_order, order_id=order_id), Order | None)
    assert_type(await app.query(count_orders), int)
    assert_type(await app.mutation(create_order, ["tea"]), duly.Id[Order])
    assert_type(await app.mutation(create_order, items=["tea"], note="x", at=datetime.now(UTC)), duly.Id[Order])
    assert_type(await app.mutation(archive_order, order_id=order_id), None)
    assert_type(await app.action(send, "ann", count=2), bool)
    assert_type(await app.action(send_slowly, to="ann"), float)
    assert_type(await app.action(send_plainly, "ann"), str)
    assert_type(await app.action(resize, b"", width=3), bytes)
    assert_type(await app.action(resize_slowly, image=b""), list[bytes])
    assert_type(await app.query("orders:get_order", anything=1), Any)
    assert_type(await app.mutation(duly.api.orders.create_order, items=1, whatever=2), Any)

    assert_type(
        await app.scheduler.run_after(timedelta(days=7), archive_order, order_id=order_id),
        duly.Id[duly.ScheduledFunction],
    )
    await app.scheduler.cancel(await app.scheduler.run_after(0, send, "ann"), missing_ok=True)


@duly.query
async def reads(ctx: duly.QueryCtx, order_id: duly.Id[Order], text: str) -> None:
    assert_type(await ctx.db.get(order_id), Order | None)
    assert_type(await ctx.db.get(text), dict[str, Any] | None)
    assert_type(ctx.db.query(orders), duly.Query[Order])
    assert_type(ctx.db.query("orders"), duly.Query[dict[str, Any]])
    assert_type(ctx.db.query(loose), duly.Query[dict[str, Any]])

    q = ctx.db.query(orders).with_index("by_status", status="open", _creationTime=duly.gt(1) & duly.lte(2))
    assert_type(q.order("desc").filter(lambda order: order["status"] == "open"), duly.Query[Order])
    assert_type(await q.collect(), list[Order])
    assert_type(await q.take(3), list[Order])
    assert_type(await q.first(), Order | None)
    assert_type(await q.unique(), Order | None)
    assert_type(await q.count(), int)
    async for order in q:
        assert_type(order, Order)
        assert_type(order.get("note"), str | None)
    page = await q.paginate(cursor=None, page_size=10)
    assert_type(page, duly.Page[Order])
    assert_type(page.page, list[Order])
    assert_type(page.continue_cursor, str)
    assert_type(page.is_done, bool)

    first = await q.first()
    if first is not None:
        assert_type(duly.id_of(first), duly.Id[Order])
        assert_type(duly.created_at(first), datetime)
        assert_type(await ctx.db.get(duly.id_of(first)), Order | None)

    assert_type(await ctx.run_query(get_order, order_id=order_id), Order | None)
    assert_type(await ctx.run_query(count_orders), int)
    assert_type(await ctx.run_query("orders:count_orders"), Any)
    assert_type(ctx.now, datetime)
    assert_type(ctx.random.random(), float)
    assert_type(ctx.scheduled_function_id, duly.Id[duly.ScheduledFunction] | None)
    assert_type(await ctx.auth.identity(), duly.Identity | None)


@duly.mutation
async def writes(ctx: duly.MutationCtx, order_id: duly.Id[Order], fields: dict[str, Any]) -> None:
    order: Order = {"items": ["tea"], "status": "open"}
    assert_type(await ctx.db.insert(orders, order), duly.Id[Order])
    assert_type(await ctx.db.insert(orders, {"items": [], "status": "archived", "note": "x"}), duly.Id[Order])
    assert_type(await ctx.db.insert(users, {"name": "Ann"}), duly.Id[User])
    assert_type(await ctx.db.insert("anything", {"a": [1, None]}), duly.Id[dict[str, Any]])
    assert_type(await ctx.db.insert("anything", order), duly.Id[dict[str, Any]])
    assert_type(await ctx.db.insert(loose, fields), duly.Id[dict[str, Any]])
    await ctx.db.patch(order_id, {"note": duly.UNSET})
    await ctx.db.replace(order_id, order)
    await ctx.db.replace(order_id, {"items": [], "status": "open"})
    await ctx.db.delete(order_id)

    assert_type(await ctx.run_query(get_order, order_id), Order | None)
    assert_type(await ctx.run_mutation(create_order, ["tea"], "note", at=None), duly.Id[Order])
    assert_type(await ctx.run_mutation(archive_order, order_id), None)

    job_id = await ctx.scheduler.run_after(0, send, "ann")
    assert_type(job_id, duly.Id[duly.ScheduledFunction])
    assert_type(await ctx.scheduler.run_at(datetime.now(UTC), resize, b"", 3), duly.Id[duly.ScheduledFunction])
    assert_type(await ctx.scheduler.run_at(1.5e12, archive_order, order_id), duly.Id[duly.ScheduledFunction])
    await ctx.scheduler.run_after(0.5, "orders:archive_order", order_id=order_id)
    await ctx.scheduler.run_after(timedelta(days=1), duly.internal.orders.archive_order, order_id=order_id)
    await ctx.scheduler.cancel(job_id, missing_ok=True)

    job = await ctx.db.system.get(job_id)
    assert_type(job, duly.ScheduledFunction | None)
    if job is not None:
        assert_type(job["scheduledTime"], float)
        assert_type(job["state"].get("error"), str | None)
    assert_type(await ctx.db.system.query("_scheduled_functions").collect(), list[duly.ScheduledFunction])


@duly.action
async def acts(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
    assert_type(await ctx.run_query(get_order, order_id=order_id), Order | None)
    assert_type(await ctx.run_mutation(create_order, items=[]), duly.Id[Order])
    assert_type(await ctx.run_action(send, to="ann"), bool)
    assert_type(await ctx.run_action(resize, image=b"", width=1), bytes)
    assert_type(await ctx.run_action("images:resize"), Any)
    assert_type(await ctx.scheduler.run_after(0, send, "ann", 3), duly.Id[duly.ScheduledFunction])
    assert_type(await ctx.auth.identity(), duly.Identity | None)


@duly.action
def acts_in_a_thread(ctx: duly.SyncActionCtx, order_id: duly.Id[Order]) -> None:
    assert_type(ctx.run_query(get_order, order_id=order_id), Order | None)
    assert_type(ctx.run_mutation(create_order, items=[]), duly.Id[Order])
    assert_type(ctx.run_action(send, to="ann"), bool)
    job_id = ctx.scheduler.run_after(0, send, "ann", 3)
    assert_type(job_id, duly.Id[duly.ScheduledFunction])
    assert_type(ctx.scheduler.run_at(datetime.now(UTC), resize, b"", 3), duly.Id[duly.ScheduledFunction])
    assert_type(ctx.scheduler.cancel(job_id), None)
    assert_type(ctx.now, datetime)
    assert_type(ctx.auth.identity(), duly.Identity | None)


@duly.mutation
async def any_within(ctx: duly.MutationCtx, id: duly.Id[Job], either: duly.Id[Job] | duly.Id[Order]) -> Job | None:
    assert_type(await ctx.db.get(id), Job | None)
    assert_type(await ctx.db.insert(jobs, {"job_id": None, "payload": {}}), duly.Id[Job])
    assert_type(await ctx.db.query(jobs).first(), Job | None)
    assert_type(await ctx.run_mutation(any_within, id, id), Job | None)
    job = await ctx.db.get(id)
    if job is not None:
        assert_type(duly.id_of(job), duly.Id[Job])
        await ctx.db.replace(id, job)
        await ctx.db.replace(id, {"job_id": None, "payload": {"a": 1}})
    await ctx.db.delete(either)
    return await ctx.db.get(id)


def an_id_is_a_string(order_id: duly.Id[Order]) -> str:
    return order_id


def a_reference_says_what_it_takes_and_gives() -> None:
    reference: duly.FunctionReference[[duly.Id[Order]], None]
    reference = duly.internal_mutation(_archive)
    assert_type(duly.internal_mutation(_archive), duly.FunctionReference[[duly.Id[Order]], None])
    anything: list[duly.FunctionReference[..., Any]] = [reference, send, get_order]
    assert anything


async def _archive(ctx: duly.MutationCtx, order_id: duly.Id[Order], /) -> None: ...


async def in_transactions_of_ones_own(
    plain: psycopg.Connection,
    waiting: psycopg.AsyncConnection[dict[str, Any]],
    other: asyncpg.Connection,
    pool: asyncpg.Pool,
    session: Session | scoped_session[Session],
    connection: Connection,
    async_session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
    async_connection: AsyncConnection,
) -> None:
    assert_type(duly.enlist(plain, app), duly.SyncScheduler)
    assert_type(duly.enlist(session, app), duly.SyncScheduler)
    assert_type(duly.enlist(connection, app), duly.SyncScheduler)
    assert_type(duly.enlist(waiting, app), duly.Scheduler)
    assert_type(duly.enlist(async_session, app), duly.Scheduler)
    assert_type(duly.enlist(scoped, app), duly.Scheduler)
    assert_type(duly.enlist(async_connection, app), duly.Scheduler)
    # These tell type checkers little or nothing.
    await duly.enlist(other, app).run_after(0, send, "ann@example.com")
    async with pool.acquire() as of_pool:
        await duly.enlist(of_pool, app).run_after(0, send, "ann@example.com")
    duly.enlist(django.db.connection, app).run_after(0, send, "ann@example.com")
    duly.enlist(django.db.connections["other"], app).run_after(0, send, "ann@example.com")
