"""The work that all systems are given, in duly: a job adds to a counter, one of many.

python -m benchmarks.counters prepare URL ACCOUNTS
python -m benchmarks.counters enqueue URL COUNT ACCOUNTS SEED
python -m benchmarks.counters work URL
"""

import asyncio
import random
import sys
import time
from datetime import timedelta
from typing import TypedDict

import duly

BATCH = 1_000


class Account(TypedDict):
    number: int
    count: int


accounts = duly.Table("accounts", Account)


@duly.internal_mutation
async def add(ctx: duly.MutationCtx, account: duly.Id[Account], amount: int) -> None:
    found = await ctx.db.get(account)
    assert found is not None
    await ctx.db.patch(account, {"count": found["count"] + amount})


@duly.internal_mutation
async def make_accounts(ctx: duly.MutationCtx, count: int) -> None:
    for number in range(count):
        await ctx.db.insert(accounts, {"number": number, "count": 0})


@duly.internal_query
async def list_accounts(ctx: duly.QueryCtx) -> list[duly.Id[Account]]:
    return [duly.id_of(account) async for account in ctx.db.query(accounts)]


@duly.internal_mutation
async def schedule(ctx: duly.MutationCtx, chosen: list[duly.Id[Account]]) -> None:
    for account in chosen:
        await ctx.scheduler.run_after(0, add, account, 1)


@duly.internal_mutation
async def first_line_of_mutation(ctx: duly.MutationCtx) -> None:
    print(time.time_ns(), flush=True)


@duly.internal_action
async def first_line_of_action(ctx: duly.ActionCtx) -> None:
    print(time.time_ns(), flush=True)


@duly.internal_query
async def state_of(ctx: duly.QueryCtx, job_id: duly.Id[duly.ScheduledFunction]) -> str:
    job = await ctx.db.system.get(job_id)
    assert job is not None
    return job["state"]["kind"]


def app_on(url: str, retention: timedelta = timedelta(days=7)) -> duly.App:
    return duly.App(__name__, database=url, retention=retention)


async def prepare(url: str, count: int) -> None:
    app = app_on(url)
    await app._migrate()
    async with app.client():
        await app.mutation(make_accounts, count)


async def enqueue(url: str, count: int, used: int, seed: int) -> None:
    """The accounts by turns; or, with a seed, as the dice fall."""
    dice = random.Random(seed)
    async with app_on(url).client() as app:
        ids = (await app.query(list_accounts))[:used]
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            await app.mutation(schedule, [ids[dice.randrange(used) if seed else number % used] for number in numbers])


async def work(url: str) -> None:
    """Ready; released by a line; stopped by the end of the input."""
    loop = asyncio.get_running_loop()
    app = app_on(url)
    async with app.client():
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        await app._start()
        await loop.run_in_executor(None, sys.stdin.read)
        await app._stop(timedelta(seconds=5))


async def main(verb: str, url: str, *numbers: int) -> None:
    if verb == "prepare":
        await prepare(url, *numbers)
    elif verb == "enqueue":
        await enqueue(url, *numbers)
    else:
        await work(url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
