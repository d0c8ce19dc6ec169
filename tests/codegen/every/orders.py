"""Tables, documents, ids and pages."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

import duly

Status = Literal["open", "paid"]


@dataclass
class Line:
    """What is ordered, and how often."""

    item: str
    count: int = 1


class Address(TypedDict):
    street: str
    city: str


class Order(TypedDict):
    """What a customer has ordered."""

    lines: list[Line]
    status: Status
    address: Address
    due: NotRequired[datetime]


class Event(TypedDict):
    order_id: duly.Id[Order]
    job_id: duly.Id[duly.ScheduledFunction] | None


orders = duly.Table("orders", Order, indexes={"by_status": ["status"]})
events = duly.Table("events", Event)
archived_events = duly.Table("archived_events", Event)
notes = duly.Table("notes")


@duly.mutation
async def create(ctx: duly.MutationCtx, lines: list[Line], address: Address) -> duly.Id[Order]:
    """Places an order."""
    return await ctx.db.insert(orders, {"lines": lines, "status": "open", "address": address})


@duly.mutation
async def copy(ctx: duly.MutationCtx, order: Order) -> duly.Id[Order]:
    return await ctx.db.insert(orders, order)


@duly.query
async def get(ctx: duly.QueryCtx, order_id: duly.Id[Order]) -> Order | None:
    return await ctx.db.get(order_id)


@duly.query
async def page(ctx: duly.QueryCtx, paginationOpts: dict[str, Any], status: Status = "open") -> duly.Page[Order]:  # noqa: N803
    return await ctx.db.query(orders).with_index("by_status", status=status).paginate(None, 10)


@duly.query
async def log(ctx: duly.QueryCtx, event_id: duly.Id[Event]) -> list[Event]:
    return await ctx.db.query(events).collect()


@duly.query
async def jobs(ctx: duly.QueryCtx) -> list[duly.ScheduledFunction]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@duly.query
async def note(ctx: duly.QueryCtx, note_id: duly.Id[Any]) -> dict[str, Any] | None:
    return await ctx.db.get(note_id)
