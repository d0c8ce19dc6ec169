"""The work that all systems are given, in PgQueuer.

pgqueuer_worker.py prepare URL ACCOUNTS
pgqueuer_worker.py enqueue URL COUNT ACCOUNTS SEED
pgqueuer_worker.py work URL BATCH_SIZE CONNECTIONS
"""

import asyncio
import json
import random
import sys

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

BATCH = 1_000


async def prepare(pool: asyncpg.Pool, accounts: int) -> None:
    await Queries(AsyncpgPoolDriver(pool)).install()
    await pool.execute("CREATE TABLE accounts (id integer PRIMARY KEY, count integer NOT NULL)")
    await pool.execute("INSERT INTO accounts SELECT number, 0 FROM generate_series(0, $1) number", accounts)


async def enqueue(pool: asyncpg.Pool, count: int, accounts: int, seed: int) -> None:
    queries = Queries(AsyncpgPoolDriver(pool))
    dice = random.Random(seed)
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        chosen = [dice.randrange(accounts) if seed else number % accounts for number in numbers]
        payloads: list[bytes | None] = [json.dumps({"account": account, "amount": 1}).encode() for account in chosen]
        await queries.enqueue(["add"] * len(chosen), payloads, [0] * len(chosen))


async def work(pool: asyncpg.Pool, batch_size: int) -> None:
    """Ready; released by a line; stopped by the end of the input."""
    queuer = PgQueuer(AsyncpgPoolDriver(pool))

    @queuer.entrypoint("add")  # type: ignore[untyped-decorator]
    async def add(job: Job) -> None:
        assert job.payload is not None
        arguments = json.loads(job.payload)
        await pool.execute(
            "UPDATE accounts SET count = count + $1 WHERE id = $2", arguments["amount"], arguments["account"]
        )

    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    worker = asyncio.create_task(queuer.run(batch_size=batch_size))
    await loop.run_in_executor(None, sys.stdin.read)
    queuer.shutdown.set()
    await worker


async def main(verb: str, url: str, *numbers: int) -> None:
    size = numbers[1] if verb == "work" else 2
    async with asyncpg.create_pool(url, min_size=size, max_size=size) as pool:
        if verb == "prepare":
            await prepare(pool, *numbers)
        elif verb == "enqueue":
            await enqueue(pool, *numbers)
        else:
            await work(pool, numbers[0])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
