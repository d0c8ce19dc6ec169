"""What users get wrong, each line an error to both checkers: an ignore that is not needed is an error itself."""

from datetime import timedelta
from typing import Any

import psycopg

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
    await app.query(get_order, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.query(get_order, order_id=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.query(get_order, order_id="some text")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.query(get_order, user_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.query(get_order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.query(get_order, order_id, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.query(get_order, order=order_id)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.query(count_orders, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.mutation(create_order, "tea")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.mutation(create_order, items=[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.mutation(create_order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.mutation(create_order, ["tea"], 5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.mutation(create_order, ["tea"], at="now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.mutation(create_order, ["tea"], "note", None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.mutation(create_order, ["tea"], colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await app.mutation(archive_order, order_id=user_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(send, to=b"ann")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(send, "ann", "many")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(send_slowly, to=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(send_slowly)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.action(send_plainly, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(resize, "image", 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(resize, b"")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await app.action(resize_slowly, image="")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.action(resize_slowly, b"", 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def wrong_results(order_id: duly.Id[Order]) -> None:
    number: int = await app.query(get_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    user: duly.Id[User] = await app.mutation(create_order, [])  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    text: str = await app.action(resize, b"", 1)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    order: Order = await app.query(get_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    print(number, user, text, order)


async def no_function(order_id: duly.Id[Order]) -> None:
    await app.query(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.mutation(print)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await app.mutation(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    get_order(order_id)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    duly.internal.orders.get_order(order_id)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]


# --- schedules ------------------------------------------------------------------------------------------------------


async def wrong_schedules(scheduler: duly.Scheduler, order_id: duly.Id[Order], user_id: duly.Id[User]) -> None:
    await scheduler.run_after(0, archive_order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await scheduler.run_after(0, archive_order, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(0, archive_order, order_id=user_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(0, archive_order, order_id, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await scheduler.run_after(0, archive_order, order_id=order_id, force=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await scheduler.run_after("0", archive_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(None, archive_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(archive_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(0, print)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(0, send, to=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(timedelta(days=1), send_slowly, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_after(timedelta(days=1), resize, b"")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await scheduler.run_after(timedelta(days=1), resize_slowly, b"", 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await scheduler.run_at(0, archive_order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await scheduler.run_at(0, archive_order, order_id=7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_at(timedelta(days=1), archive_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_at("tomorrow", archive_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.run_at(0, resize, image="", width=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await scheduler.cancel(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await scheduler.cancel(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await scheduler.cancel("id", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await app.scheduler.run_after(0, send, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    job_id: duly.Id[Order] = await scheduler.run_after(0, send, "ann")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(job_id)


# --- calls from inside ----------------------------------------------------------------------------------------------


@duly.query
async def wrong_in_a_query(ctx: duly.QueryCtx, order_id: duly.Id[Order], user_id: duly.Id[User]) -> None:
    await ctx.run_query(get_order, user_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.run_query(get_order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await ctx.run_mutation(archive_order, order_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.scheduler.run_after(0, archive_order, order_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.db.insert(orders, {"items": [], "status": "open"})  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.db.delete(order_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.db.get(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    user: User | None = await ctx.db.get(order_id)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    every: list[User] = await ctx.db.query(orders).collect()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    ctx.db.query(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.db.query(orders).filter(lambda order: order["colour"])  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]
    ctx.db.query(orders).with_index(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.db.query(orders).take("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.db.query(orders).paginate(page_size="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(user, every)


@duly.mutation
async def wrong_in_a_mutation(ctx: duly.MutationCtx, order_id: duly.Id[Order], user: User) -> None:
    await ctx.run_query(get_order, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.run_mutation(create_order, [1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.run_mutation(archive_order)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await ctx.run_action(send, "ann")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.db.insert(orders, user)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.db.insert(orders, {"items": []})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.db.insert(orders, {"items": [], "status": "lost"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.db.insert(orders, {"items": [], "status": "open", "colour": "red"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.db.insert(users, {"name": 7})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.db.insert("loose", 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.db.insert(orders)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    # To pyright it is an Id[Order | User].
    await ctx.db.replace(order_id, user)  # type: ignore[arg-type]
    await ctx.db.patch(order_id, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ctx.db.patch(7, {})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrong: duly.Id[User] = await ctx.db.insert(orders, {"items": [], "status": "open"})  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    also_wrong: duly.Id[Order] = duly.id_of(user)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(wrong, also_wrong)


@duly.action
async def wrong_in_an_action(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None:
    await ctx.run_query(get_order, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.run_mutation(archive_order, order_id, 2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await ctx.run_action(send, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.run_action(resize, b"")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await ctx.db.get(order_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await ctx.scheduler.run_after(0, send, to=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    text: str = await ctx.run_query(count_orders)  # type: ignore[call-overload]  # pyright: ignore[reportAssignmentType]
    print(text)


@duly.action
def wrong_in_a_thread(ctx: duly.SyncActionCtx, order_id: duly.Id[Order]) -> None:
    ctx.run_query(get_order, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.run_mutation(archive_order, order_id, 2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ctx.run_action(send_slowly, to=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.run_action(resize, b"")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ctx.scheduler.run_after(0, archive_order, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.scheduler.run_at(timedelta(1), archive_order, order_id)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    text: str = ctx.run_query(count_orders)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)


# --- decorators -----------------------------------------------------------------------------------------------------


@duly.query  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def not_async(ctx: duly.QueryCtx) -> int:
    return 1


@duly.internal_mutation  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def not_async_either(ctx: duly.MutationCtx) -> int:
    return 1


@duly.query  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def no_ctx() -> None: ...


@duly.query  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def ctx_of_another_kind(ctx: duly.MutationCtx) -> None: ...


@duly.mutation  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def ctx_of_an_action(ctx: duly.ActionCtx) -> None: ...


@duly.action  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def ctx_of_a_mutation(ctx: duly.MutationCtx) -> None: ...


@duly.action  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def async_ctx_in_a_plain_function(ctx: duly.ActionCtx) -> int:
    return 1


@duly.action(timeout=timedelta(seconds=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def slow_ctx_of_a_mutation(ctx: duly.MutationCtx) -> None: ...


@duly.internal_action(timeout=5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
async def timeout_of_a_number(ctx: duly.ActionCtx) -> None: ...


@duly.query(timeout=timedelta(seconds=1))  # type: ignore[call-arg, operator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
async def timeout_of_a_query(ctx: duly.QueryCtx) -> None: ...


# --- tables and apps ------------------------------------------------------------------------------------------------

duly.Table(7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
duly.Table("orders", {"items": list})  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
duly.Table("orders", Order, ["by_status"])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
duly.Table("orders", Order, indexes={"by_status": 7})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
duly.Table[User]("orders", Order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
duly.App()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
duly.App(__name__, "sqlite:///:memory:")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
duly.App(__name__, database=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
duly.App(__name__, retention=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
duly.App(__name__, concurrent_actions="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
duly.App(__name__, colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
nothing: Any = duly.gt()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# --- in transactions of one's own -----------------------------------------------------------------------------------


async def wrong_connections(plain: psycopg.Connection, waiting: psycopg.AsyncConnection) -> None:
    duly.enlist(7, app)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    duly.enlist("postgresql://localhost/shop", app)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    duly.enlist(plain)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    duly.enlist(plain, "shop:app")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await duly.enlist(plain, app).run_after(0, send, "ann@example.com")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    duly.enlist(plain, app).run_after(0, send, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await duly.enlist(waiting, app).run_after(0, send, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
