"""Functions and tables for `good.py` and `bad.py`: one of each kind and shape."""

from datetime import datetime, timedelta
from typing import Any, Literal, NotRequired, TypedDict

import duly


class Order(TypedDict):
    items: list[str]
    status: Literal["open", "archived"]
    note: NotRequired[str]


class User(TypedDict):
    name: str


class Job(TypedDict):
    """With an `Any` in it, which must not make an `Any` of what it is in."""

    job_id: duly.Id[duly.ScheduledFunction] | None
    payload: dict[str, Any]


orders = duly.Table("orders", Order, indexes={"by_status": ["status"]})
users = duly.Table("users", User)
jobs = duly.Table("jobs", Job)
loose = duly.Table("loose")


@duly.query
async def get_order(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> Order | None:
    return await ctx.db.get(order_id)


@duly.internal_query
async def count_orders(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query(orders).count()


@duly.mutation
async def create_order(
    ctx: duly.MutationCtx, items: list[str], note: str = "", *, at: datetime | None = None
) -> duly.Id[Order]:
    return await ctx.db.insert(orders, {"items": items, "status": "open"})


@duly.internal_mutation
async def archive_order(ctx: duly.MutationCtx, order_id: duly.Id[Order]) -> None:
    await ctx.db.patch(order_id, {"status": "archived"})


@duly.action
async def send(ctx: duly.ActionCtx, to: str, count: int = 1) -> bool:
    return bool(to) and count > 0


@duly.action(timeout=timedelta(minutes=5))
async def send_slowly(ctx: duly.ActionCtx, to: str) -> float:
    return float(len(to))


@duly.action()
async def send_plainly(ctx: duly.ActionCtx, to: str) -> str:
    return to


@duly.internal_action
def resize(ctx: duly.SyncActionCtx, image: bytes, width: int) -> bytes:
    return image[:width]


@duly.internal_action(timeout=timedelta(seconds=5))
def resize_slowly(ctx: duly.SyncActionCtx, image: bytes) -> list[bytes]:
    return [image]
