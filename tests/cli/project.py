"""The project that the commands are tried on."""

SHOP = {
    "shop/__init__.py": """\
import duly

app = duly.App(__name__, database="sqlite:///shop.db")
""",
    "shop/orders.py": """\
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duly
from shop import emails

orders = duly.Table("orders")


@dataclass
class Line:
    item: str
    count: int


@duly.mutation
async def create_order(ctx: duly.MutationCtx, items: list[str], note: str = "") -> str:
    if not items:
        raise ValueError("an order needs items")
    order_id = await ctx.db.insert(orders, {"items": items, "note": note})
    await ctx.scheduler.run_after(0, emails.send_confirmation, order_id=order_id)
    await ctx.scheduler.run_after(timedelta(days=7), archive_order, order_id=order_id)
    return order_id


@duly.internal_mutation
async def archive_order(ctx: duly.MutationCtx, order_id: str) -> None:
    pass


@duly.query
async def get_order(ctx: duly.QueryCtx, order_id: str) -> Any:
    return await ctx.db.get(order_id)


@duly.query
async def count_lines(ctx: duly.QueryCtx, lines: list[Line], at: datetime) -> dict[str, Any]:
    return {"count": sum(line.count for line in lines), "at": at, "lines": lines}


@duly.query
async def odd_values(ctx: duly.QueryCtx) -> Any:
    return {"bytes": b"hi", "nan": float("nan"), "tuple": (1, 2), "big": 2**70, "text": "tea \\u2615"}


@duly.query
async def no_json(ctx: duly.QueryCtx) -> Any:
    return object()


@duly.query
async def echo(ctx: duly.QueryCtx, value: Any) -> Any:
    return value


@duly.action
async def fail(ctx: duly.ActionCtx, why: str) -> None:
    raise LookupError(why)
""",
    "shop/emails.py": """\
import duly


@duly.internal_action
async def send_confirmation(ctx: duly.ActionCtx, order_id: str) -> None:
    pass
""",
    "jobs.py": """\
import asyncio
import time
from pathlib import Path

import duly

app = duly.App(__name__, database="sqlite:///jobs.db")


@duly.mutation
async def schedule(ctx: duly.MutationCtx, path: str, count: int = 1, delay_ms: float = 0) -> list[str]:
    return [await ctx.scheduler.run_after(delay_ms, path) for _ in range(count)]


@duly.mutation
async def works(ctx: duly.MutationCtx) -> None:
    pass


@duly.mutation
async def breaks(ctx: duly.MutationCtx) -> None:
    raise ValueError("this one always breaks\\nfor a reason of two lines")


@duly.mutation
async def waits_for_the_world(ctx: duly.MutationCtx) -> None:
    await asyncio.sleep(0.001)


@duly.action
async def waits(ctx: duly.ActionCtx) -> None:
    Path("started").touch()
    print("waiting", flush=True)
    while not Path("go").exists():
        await asyncio.sleep(0.01)


@duly.mutation
async def holds_the_loop(ctx: duly.MutationCtx) -> None:
    print("holding", flush=True)
    time.sleep(60)
""",
}
