"""Orders: placing, paying, canceling and archiving them."""

import os
from datetime import timedelta
from typing import Literal, TypedDict

import duly

# Who wants to see a week go by sets it to a few seconds.
DAY = timedelta(seconds=float(os.environ.get("SHOP_DAY_S", "86400")))
REMINDER_AFTER = 3 * DAY
ARCHIVED_AFTER = 7 * DAY
PRICES_CENTS = {"tea": 450, "a cup": 800, "a pot": 2_300}

Status = Literal["open", "paid", "canceled", "archived"]


class Order(TypedDict):
    email: str
    items: list[str]
    total_cents: int
    status: Status
    reminder_id: duly.Id[duly.ScheduledFunction] | None
    job_ids: list[duly.Id[duly.ScheduledFunction]]


class Stamp(TypedDict):
    """Which scheduled function stamped which order: a ledger, to count effects by."""

    order_id: duly.Id[Order]
    stamped_by: duly.Id[duly.ScheduledFunction] | None


orders = duly.Table("orders", Order, indexes={"by_status": ["status"]})
stamps = duly.Table("stamps", Stamp, indexes={"by_order": ["order_id"]})


@duly.mutation
async def create_order(ctx: duly.MutationCtx, email: str, items: list[str]) -> duly.Id[Order]:
    """Stores the order; its mail, its reminder and its archiving are scheduled in the same transaction."""
    order: Order = {
        "email": email,
        "items": items,
        "total_cents": sum(PRICES_CENTS.get(item, 0) for item in items),
        "status": "open",
        "reminder_id": None,
        "job_ids": [],
    }
    order_id = await ctx.db.insert(orders, order)
    # By path, because emails imports this module.
    mail_id = await ctx.scheduler.run_after(0, duly.internal.emails.send_confirmation, order_id=order_id)
    reminder_id = await ctx.scheduler.run_after(REMINDER_AFTER, duly.internal.emails.send_reminder, order_id=order_id)
    archiving_id = await ctx.scheduler.run_after(ARCHIVED_AFTER, archive_order, order_id=order_id)
    await ctx.db.patch(order_id, {"reminder_id": reminder_id, "job_ids": [mail_id, reminder_id, archiving_id]})
    # Late on purpose: these undo everything above, the scheduled mail included.
    if not items:
        raise duly.AppError({"code": "nothing_ordered"})
    for item in items:
        if item not in PRICES_CENTS:
            raise duly.AppError({"code": "sold_out", "item": item})
    return order_id


@duly.mutation
async def pay_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    """Marks the order as paid; nobody is to be reminded any more."""
    order = await ctx.db.get(order_id)
    if order is None:
        raise duly.AppError({"code": "no_such_order"})
    if order["status"] == "canceled":
        raise duly.AppError({"code": "canceled"})
    if order["reminder_id"] is not None:
        await ctx.scheduler.cancel(order["reminder_id"], missing_ok=True)  # it may have been sent already
    await ctx.db.patch(order_id, {"status": "paid", "reminder_id": None})


@duly.mutation
async def cancel_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    """Cancels the order, and what is still to happen to it."""
    order = await ctx.db.get(order_id)
    if order is None:
        raise duly.AppError({"code": "no_such_order"})
    if order["status"] != "open":
        raise duly.AppError({"code": order["status"]})
    for job_id in order["job_ids"]:
        await ctx.scheduler.cancel(job_id, missing_ok=True)  # what has finished stays as it is
    await ctx.db.patch(order_id, {"status": "canceled"})


@duly.internal_mutation
async def archive_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    await ctx.db.patch(order_id, {"status": "archived"})


@duly.internal_mutation
async def stamp_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    """Leaves one more stamp each time it takes effect."""
    await ctx.db.insert(stamps, {"order_id": order_id, "stamped_by": ctx.scheduled_function_id})


@duly.query
async def get_order(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> Order | None:
    return await ctx.db.get(order_id)


@duly.query
async def list_orders(ctx: duly.QueryCtx, status: Status | None = None) -> list[Order]:
    found = ctx.db.query(orders)
    if status is not None:
        found = found.with_index("by_status", status=status)
    return await found.collect()


@duly.query
async def list_prices(ctx: duly.QueryCtx) -> dict[str, int]:
    """What there is to order, and its price in cents."""
    return PRICES_CENTS


@duly.query
async def list_stamps(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> list[Stamp]:
    return await ctx.db.query(stamps).with_index("by_order", order_id=order_id).collect()


@duly.query
async def list_jobs_of(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> list[duly.ScheduledFunction]:
    """The scheduled functions of an order: each for a week after it has finished."""
    order = await ctx.db.get(order_id)
    found = [await ctx.db.system.get(job_id) for job_id in order["job_ids"]] if order is not None else []
    return [job for job in found if job is not None]


@duly.query
async def list_jobs(ctx: duly.QueryCtx) -> list[duly.ScheduledFunction]:
    """The scheduled functions, in the order they were scheduled."""
    return await ctx.db.system.query("_scheduled_functions").collect()
