"""The shop in which every example of a docstring runs: `test_docstrings` copies it and puts the example below."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NotRequired, TypedDict

import psycopg

import duly

__all__ = ["UTC", "asyncio", "datetime", "timedelta"]

app = duly.App(__name__, database="sqlite:///:memory:")


class Order(TypedDict):
    items: list[str]
    status: Literal["open", "waiting", "paid", "archived"]
    total: NotRequired[float]
    due: NotRequired[float]
    coupon: NotRequired[str]
    card: NotRequired[str]
    email: NotRequired[str]
    reminder_id: NotRequired[str]


class User(TypedDict):
    email: str


orders = duly.Table(
    "orders",
    Order,
    indexes={"by_status": ["status"], "by_total": ["total"], "by_status_and_due": ["status", "due"]},
)
users = duly.Table("users", User, indexes={"by_email": ["email"]})


class OutOfStock(Exception):  # noqa: N818 (as an example names it)
    pass


class Staged(TypedDict):
    order_id: duly.Id[Order]
    deleted_order_id: duly.Id[Order]
    job_id: duly.Id[duly.ScheduledFunction]


@duly.mutation
async def stage(ctx: duly.MutationCtx) -> Staged:
    """Makes what examples name."""
    job_id = await ctx.scheduler.run_after(timedelta(days=1), nothing)
    order_id = await ctx.db.insert(
        orders,
        {
            "items": ["tea"],
            "status": "open",
            "total": 12.5,
            "due": 1.0,
            "coupon": "spring",
            "card": "4111",
            "email": "ann@example.com",
            "reminder_id": job_id,
        },
    )
    await ctx.db.insert(orders, {"items": ["jam"], "status": "paid", "total": 3.0})
    deleted_order_id = await ctx.db.insert(orders, {"items": [], "status": "open"})
    await ctx.db.delete(deleted_order_id)
    await ctx.db.insert(users, {"email": "ann@example.com"})
    return {"order_id": order_id, "deleted_order_id": deleted_order_id, "job_id": job_id}


@duly.internal_mutation
async def nothing(ctx: duly.MutationCtx) -> None: ...


@duly.internal_mutation
async def schedule_and_fail(ctx: duly.MutationCtx) -> None:
    raise duly.AppError(str(await ctx.scheduler.run_after(0, nothing)))


@duly.internal_query
async def state_of(ctx: duly.QueryCtx, job_id: duly.Id[duly.ScheduledFunction]) -> str:
    job = await ctx.db.system.get(job_id)
    return job["state"]["kind"] if job else "gone"


@duly.query
async def broken_count(ctx: duly.QueryCtx) -> int:
    return "many"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@duly.mutation
async def create_order(ctx: duly.MutationCtx, items: list[str]) -> duly.Id[Order]:
    return await ctx.db.insert(orders, {"items": items, "status": "open"})


@duly.query
async def get_order(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> Order | None:
    order: Order | None = await ctx.db.get(order_id)
    return order


@duly.internal_mutation
async def archive_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    await ctx.db.patch(order_id, {"status": "archived"})


@duly.internal_mutation
async def reserve_stock(ctx: duly.MutationCtx, item: str) -> None:
    raise OutOfStock(item)


@duly.internal_mutation
async def record_payment(ctx: duly.MutationCtx, order_id: duly.Id[Order], receipt: str) -> None:
    await ctx.db.patch(order_id, {"status": "paid"})


@duly.internal_mutation
async def remind(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None: ...


@duly.internal_mutation
async def close_books(ctx: duly.MutationCtx, year: int) -> None: ...


@duly.internal_action
async def send_confirmation(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None: ...


@duly.internal_action
async def send_receipt(ctx: duly.ActionCtx, order_id: duly.Id[Order]) -> None: ...


@duly.internal_action
async def resize(ctx: duly.ActionCtx, image_id: str) -> None: ...


# The outside world.


class Bank:
    async def charge(self, card: str, total: float) -> str:
        return f"{card} paid {total}"


class Smtp:
    async def send(self, to: str, text: str) -> None: ...


class Programs:
    def run(self, command: list[str], *, check: bool) -> None: ...


connection: psycopg.AsyncConnection
bank, smtp, subprocess = Bank(), Smtp(), Programs()
cursor: str | None = None
email, item, image_id, receipt = "ann@example.com", "tea", "1.png", "r-1"
order: Order
order_id: duly.Id[Order]
deleted_order_id: duly.Id[Order]
job_id: duly.Id[duly.ScheduledFunction]
finished_id: duly.Id[duly.ScheduledFunction]
deleted_id: duly.Id[duly.ScheduledFunction]
ARGUMENTS: dict[str, Any] = {"items": ["tea"], "image_id": "1.png"}
