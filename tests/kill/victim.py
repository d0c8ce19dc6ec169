"""An app whose workers are processes to kill: `python -m tests.kill.victim worker URL`.

It says `ready` when it runs due functions. `client` calls a mutation again and again, and prints what was
acknowledged; `mixed` is a worker that also makes work of every kind for a number of seconds.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypedDict

import duly


class Counter(TypedDict):
    value: int


class Entry(TypedDict):
    number: int


counters = duly.Table("counters", Counter)
ledger = duly.Table("ledger", Entry, indexes={"by_number": ["number"]})

_PAGE = 10_000


def make_app(url: str, lease_s: float = 1) -> duly.App:
    return duly.App(
        __name__,
        database=url,
        lease=timedelta(seconds=lease_s),
        drain=timedelta(seconds=1),
        concurrent_actions=8,
    )


@duly.mutation
async def bump(ctx: duly.MutationCtx, number: int, work_s: float = 0, file: str | None = None) -> None:
    """Counts, and enters its number in the ledger: two effects that must agree."""
    counter = await ctx.db.query(counters).unique()
    if counter is None:
        await ctx.db.insert(counters, {"value": 1})
    else:
        await ctx.db.patch(duly.id_of(counter), {"value": counter["value"] + 1})
    if file is not None:
        note(Path(file), "begun")
    time.sleep(work_s)  # noqa: ASYNC251 (the kill is to come in the middle)
    await ctx.db.insert(ledger, {"number": number})


@duly.mutation
async def enter(ctx: duly.MutationCtx, number: int, links: int) -> None:
    """Enters a number, and has the next link of the chain enter its own."""
    await ctx.db.insert(ledger, {"number": number})
    if links:
        await ctx.scheduler.run_after(0, enter, number=number + 1, links=links - 1)


@duly.mutation
async def schedule_chains(ctx: duly.MutationCtx, first: int, chains: int, links: int) -> None:
    """Chains of `links` numbers, one after the other from `first` on."""
    for start in range(first, first + chains * links, links):
        await ctx.scheduler.run_after(0, enter, number=start, links=links - 1)


@duly.mutation
async def schedule_bumps(ctx: duly.MutationCtx, first: int, last: int, work_s: float = 0, spread_ms: float = 0) -> None:
    for number in range(first, last):
        await ctx.scheduler.run_after(spread_ms * ctx.random.random(), bump, number=number, work_s=work_s)


@duly.action
async def append(ctx: duly.ActionCtx, file: str, number: int, work_s: float) -> None:
    """Leaves one line in a file each time its first line runs."""
    note(Path(file), str(number))
    await asyncio.sleep(work_s)


@duly.mutation
async def schedule_appends(ctx: duly.MutationCtx, file: str, count: int, work_s: float, first: int = 0) -> None:
    for number in range(first, first + count):
        await ctx.scheduler.run_after(0, append, file=file, number=number, work_s=work_s)


@duly.action
async def block(ctx: duly.ActionCtx, file: str, seconds: float) -> None:
    """Blocks the event loop of its worker, as careless code does."""
    note(Path(file), "begun")
    time.sleep(seconds)  # noqa: ASYNC251 (that is what it is for)
    note(Path(file), "ended")


@duly.action
async def fork(ctx: duly.ActionCtx, file: str) -> None:
    """Leaves a child process behind, as a pool of processes does when its owner is killed."""
    child = os.fork()
    if child == 0:
        time.sleep(60)  # noqa: ASYNC251 (it has no event loop any more)
        os._exit(0)
    note(Path(file), str(child))
    await asyncio.sleep(60)


@duly.query
async def counter_value(ctx: duly.QueryCtx) -> int:
    counter = await ctx.db.query(counters).unique()
    return counter["value"] if counter else 0


@duly.query
async def ledger_page(ctx: duly.QueryCtx, cursor: str | None = None) -> duly.Page[Any]:
    return await ctx.db.query(ledger).paginate(cursor, _PAGE)


async def totals(app: duly.App) -> tuple[int, list[int]]:
    """The counter, and every number in the ledger: more than one transaction may read."""
    return await app.query(counter_value), [entry["number"] for entry in await all_of(app, ledger_page)]


async def all_of(app: duly.App, query: Any) -> list[Any]:
    page = await app.query(query)
    found = list(page.page)
    while not page.is_done:
        page = await app.query(query, cursor=page.continue_cursor)
        found += page.page
    return found


@duly.query
async def job(ctx: duly.QueryCtx, id: duly.Id[duly.ScheduledFunction]) -> duly.ScheduledFunction | None:
    return await ctx.db.system.get(id)


@duly.query
async def jobs_page(ctx: duly.QueryCtx, cursor: str | None = None) -> duly.Page[Any]:
    return await ctx.db.system.query("_scheduled_functions").paginate(cursor, _PAGE)


async def jobs(app: duly.App) -> list[duly.ScheduledFunction]:
    return await all_of(app, jobs_page)


def note(path: Path, line: str) -> None:
    """One durable line, written by one call."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.fsync(file)
    os.close(file)


async def work(url: str, lease_s: str = "1") -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with make_app(url, float(lease_s)):
        print("ready", flush=True)
        await stop.wait()


async def call(url: str) -> None:
    app = make_app(url)
    async with app.client():
        number = 0
        while True:
            await app.mutation(bump, number=number)
            print(number, flush=True)
            number += 1


async def mix(url: str, seconds: str, offset: str, file: str) -> None:
    """Every kind of work at once; prints how many mutations and actions were acknowledged."""
    app = make_app(url)
    chance = random.Random(int(offset))
    end = time.monotonic() + float(seconds)
    number = int(offset)
    acknowledged = actions = 0
    async with app:
        print("ready", flush=True)
        while time.monotonic() < end:
            number += 1
            dice = chance.random()
            if dice < 0.3:
                await app.mutation(bump, number=number)
                acknowledged += 1
            elif dice < 0.7:
                await app.mutation(schedule_bumps, first=number, last=number + 5, spread_ms=50)
                number += 5
                acknowledged += 5
            elif dice < 0.75:
                await app.mutation(schedule_appends, file=file, first=number, count=2, work_s=0.01)
                number += 2
                actions += 2
            elif dice < 0.9:
                await totals(app) if number % 50 == 0 else await asyncio.sleep(0)
            else:
                doomed = await app.scheduler.run_after(60_000, bump, number=-number)
                await app.scheduler.cancel(doomed)
    print(f"acknowledged {acknowledged} {actions}", flush=True)


if __name__ == "__main__":
    roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"worker": work, "client": call, "mixed": mix}
    asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))
