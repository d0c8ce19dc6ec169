"""What users get wrong, each line an error to both checkers: an ignore that is not needed is an error itself."""

# pyright: enableTypeIgnoreComments=false, reportUnnecessaryTypeIgnoreComment=true

from datetime import timedelta
from typing import Any

import duly
from tests.typing.functions import (
    Order,
    User,
    archive_order,
    count_orders,
    create_order,
    get_order,
    orders,
    resize,
    resize_slowly,
    send,
    send_plainly,
    send_slowly,
    users,
)

app = duly.App(__name__)


# --- calls from outside ---------------------------------------------------------------------------------------------


async def wrong_arguments(order_id: duly.Id[Order], user_id: duly.Id[User]) -> None:
    await app.query(get_order, 7)
    await app.query(get_order, order_id=None)
    await app.query(get_order, order_id="some text")
    await app.query(get_order, user_id)
    await app.query(get_order)
    await app.query(get_order, order_id, order_id)
    await app.query(get_order, order=order_id)
    await app.query(count_orders, 1)
    await app.mutation(create_order, "tea")
    await app.mutation(create_order, items=[1])
    await app.mutation(create_order)
    await app.mutation(create_order, ["tea"], 5)
    await app.mutation(create_order, ["tea"], at="now")
    await app.mutation(create_order, ["tea"], "note", None)
    await app.mutation(create_order, ["tea"], colour="red")
    await app.mutation(archive_order, order_id=user_id)
    await app.action(send, to=b"ann")
    await app.action(send, "ann", "many")
    await app.action(send_slowly, to=1)
    await app.action(send_slowly)
    await app.action(send_plainly, 1)
    await app.action(resize, "image", 1)
    await app.action(resize, b"")
    await app.action(resize_slowly, image="")
    await app.action(resize_slowly, b"", 3)


async def wrong_results(order_id: duly.Id[Order]) -> None:
    number: int = await app.query(get_order, order_id)
    user: duly.Id[User] = await app.mutation(create_order, [])
    text: str = await app.action(resize, b"", 1)
    order: Order = await app.query(get_order, order_id)
    print(number, user, text, order)


async def no_function(order_id: duly.Id[Order]) -> None:
    await app.query(7)
    await app.mutation(print)
    await app.mutation(None)
    get_order(order_id).upper()


# --- schedules ------------------------------------------------------------------------------------------------------


async def wrong_schedules(scheduler: duly.Scheduler, order_id: duly.Id[Order], user_id: duly.Id[User]) -> None:
    await scheduler.run_after(0, archive_order)
    await scheduler.run_after(0, archive_order, 7)
    await scheduler.run_after(0, archive_order, order_id=user_id)
    await scheduler.run_after(0, archive_order, order_id, order_id)
    await scheduler.run_after(0, archive_order, order_id=order_id, force=True)
    await scheduler.run_after("0", archive_order, order_id)
    await scheduler.run_after(None, archive_order, order_id)
    await scheduler.run_after(archive_order, order_id)
    await scheduler.run_after(0, print)
    await scheduler.run_after(0, send, to=None)
    await scheduler.run_after(timedelta(days=1), send_slowly, 1)
    await scheduler.run_after(timedelta(days=1), resize, b"")
    await scheduler.run_after(timedelta(days=1), resize_slowly, b"", 1)
    await scheduler.run_at(0, archive_order)
    await scheduler.run_at(0, archive_order, order_id=7)
    await scheduler.run_at(timedelta(days=1), archive_order, order_id)
    await scheduler.run_at("tomorrow", archive_order, order_id)
    await scheduler.run_at(0, resize, image="", width=1)
    await scheduler.cancel(7)
    await scheduler.cancel(None)
    await scheduler.cancel("id", True)
    await app.scheduler.run_after(0, send, 1)
    job_id: duly.Id[Order] = await scheduler.run_after(0, send, "ann")
    print(job_id)


# --- calls from inside ----------------------------------------------------------------------------------------------


@duly.query
async def wrong_in_a_query(ctx: duly.QueryCtx, order_id: duly.Id[Order], user_id: duly.Id[User]) -> None:
    await ctx.run_query(get_order, user_id)
    await ctx.run_query(get_order)
    await ctx.run_mutation(archive_order, order_id)
    await ctx.scheduler.run_after(0, archive_order, order_id)
    await ctx.db.insert(orders, {"items": [], "status": "open"})
    await ctx.db.delete(order_id)
    await ctx.db.get(7)
    user: User | None = await ctx.db.get(order_id)
    every: list[User] = await ctx.db.query(orders).collect()
    ctx.db.query(7)
    ctx.db.query(orders).filter(lambda order: order["colour"])
    ctx.db.query(orders).with_index(5)
    await ctx.db.query(orders).take("3")
    await ctx.db.query(orders).paginate(page_size="3")
    print(user, every)


@duly.mutation
async def wrong_in_a_mutation(ctx: duly.MutationCtx, order_id: duly.Id[Order], user: User) -> None:
    await ctx.run_query(get_order, 1)
    await ctx.run_mutation(create_order, [1])
    await ctx.run_mutation(archive_order)
    await ctx.run_action(send, "ann")
    await ctx.db.insert(orders, user)
    await ctx.db.insert(orders, {"items": []})
    await ctx.db.insert(orders, {"items": [], "status": "lost"})
    await ctx.db.insert(orders, {"items": [], "status": "open", "colour": "red"})
    await ctx.db.insert(users, {"name": 7})
    await ctx.db.insert("loose", 7)
    await ctx.db.insert(orders)
    await ctx.db.replace(order_id, user)
    await ctx.db.patch(order_id, 7)
    await ctx.db.patch(7, {})
    wrong: duly.Id[User] = await ctx.db.insert(orders, {"items": [], "status": "open"})
    also_wrong: duly.Id[Order] = duly.id_of(user)
    print(wrong, also_wrong)


@duly.action
async def wrong_in_an_action(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
    await ctx.run_query(get_order, 1)
    await ctx.run_mutation(archive_order, order_id, 2)
    await ctx.run_action(send, 1)
    await ctx.run_action(resize, b"")
    await ctx.db.get(order_id)
    await ctx.scheduler.run_after(0, send, to=1)
    text: str = await ctx.run_query(count_orders)
    print(text)


@duly.action
def wrong_in_a_thread(ctx: duly.SyncActionCtx, order_id: duly.Id[Order]) -> None:
    ctx.run_query(get_order, 1)
    ctx.run_mutation(archive_order, order_id, 2)
    ctx.run_action(send_slowly, to=1)
    ctx.run_action(resize, b"")
    ctx.scheduler.run_after(0, archive_order, 1)
    ctx.scheduler.run_at(timedelta(1), archive_order, order_id)
    text: str = ctx.run_query(count_orders)
    print(text)


# --- decorators -----------------------------------------------------------------------------------------------------


@duly.query
def not_async(ctx: duly.QueryCtx) -> int:
    return 1


@duly.internal_mutation
def not_async_either(ctx: duly.MutationCtx) -> int:
    return 1


@duly.query
async def no_ctx() -> None: ...


@duly.query
async def ctx_of_another_kind(ctx: duly.MutationCtx) -> None: ...


@duly.mutation
async def ctx_of_an_action(ctx: duly.ActionCtx) -> None: ...


@duly.action
async def ctx_of_a_mutation(ctx: duly.MutationCtx) -> None: ...


@duly.action
def async_ctx_in_a_plain_function(ctx: duly.ActionCtx) -> int:
    return 1


@duly.action(timeout=timedelta(seconds=1))
async def slow_ctx_of_a_mutation(ctx: duly.MutationCtx) -> None: ...


@duly.internal_action(timeout=5)
async def timeout_of_a_number(ctx: duly.ActionCtx) -> None: ...


@duly.query(timeout=timedelta(seconds=1))
async def timeout_of_a_query(ctx: duly.QueryCtx) -> None: ...


# --- tables and apps ------------------------------------------------------------------------------------------------

duly.Table(7)
duly.Table("orders", {"items": list})
duly.Table("orders", Order, ["by_status"])
duly.Table("orders", Order, indexes={"by_status": 7})
duly.Table[User]("orders", Order)
duly.App()
duly.App(__name__, "sqlite:///:memory:")
duly.App(__name__, database=7)
duly.App(__name__, retention=7)
duly.App(__name__, concurrent_actions="many")
duly.App(__name__, colour="red")
nothing: Any = duly.gt()
