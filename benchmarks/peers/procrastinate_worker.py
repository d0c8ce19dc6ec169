"""The work that all systems are given, in Procrastinate.

procrastinate_worker.py prepare URL ACCOUNTS
procrastinate_worker.py enqueue URL COUNT ACCOUNTS SEED
procrastinate_worker.py work URL CONCURRENCY
"""

import asyncio
import contextlib
import logging
import random
import sys
from typing import Any

import procrastinate
import psycopg_pool
from procrastinate import schema

BATCH = 1_000

logging.getLogger("procrastinate").setLevel(logging.ERROR)
_verb, _url, *_numbers = sys.argv[1:]
_size = int(_numbers[0]) if _verb == "work" else 1


async def commit_each(connection: Any) -> None:
    """Each statement by itself: one round trip where BEGIN, the statement and COMMIT are three."""
    await connection.set_autocommit(True)


connector = procrastinate.PsycopgConnector(conninfo=_url, min_size=_size + 2, max_size=_size + 2, configure=commit_each)
app = procrastinate.App(connector=connector)
pool = psycopg_pool.AsyncConnectionPool(_url, min_size=_size, max_size=_size, configure=commit_each, open=False)


@app.task(name="add")  # type: ignore[untyped-decorator]
async def add(account: int, amount: int) -> None:
    async with pool.connection() as connection:
        await connection.execute("UPDATE accounts SET count = count + %s WHERE id = %s", (amount, account))


async def prepare(accounts: int) -> None:
    await schema.SchemaManager(connector).apply_schema_async()
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE accounts (id integer PRIMARY KEY, count integer NOT NULL)")
        await connection.execute(
            "INSERT INTO accounts SELECT number, 0 FROM generate_series(0, %s) number", (accounts,)
        )


async def enqueue(count: int, accounts: int, seed: int) -> None:
    dice = random.Random(seed)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        chosen = [dice.randrange(accounts) if seed else number % accounts for number in numbers]
        await add.batch_defer_async(*[{"account": account, "amount": 1} for account in chosen])


async def work(concurrency: int) -> None:
    """Ready; released by a line; stopped by the end of the input."""
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    # The notification of each job that is scheduled wakes it; it runs all there are without waiting for more.
    worker = asyncio.create_task(app.run_worker_async(concurrency=concurrency, install_signal_handlers=False))
    await loop.run_in_executor(None, sys.stdin.read)
    worker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await worker


async def main() -> None:
    async with pool, app.open_async():
        numbers = [int(number) for number in _numbers]
        if _verb == "prepare":
            await prepare(*numbers)
        elif _verb == "enqueue":
            await enqueue(*numbers)
        else:
            await work(*numbers)


if __name__ == "__main__":
    asyncio.run(main())
