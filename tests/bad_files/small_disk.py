"""A worker on a disk with little room: `python -m tests.bad_files.small_disk URL BYTES`.

No file may grow past the limit, which is what a full disk looks like to SQLite; then the limit is lifted. Prints a
line for each step; ends with `done` when everything acknowledged is there and everything scheduled has happened.
"""

import asyncio
import resource
import sys

import duly
from duly.errors import StoreUnavailableError
from tests.support import eventually

app = duly.App(__name__)


@duly.mutation
async def store(ctx: duly.MutationCtx, number: int) -> None:
    await ctx.db.insert("blobs", {"number": number, "data": "x" * 20_000})


@duly.mutation
async def remember(ctx: duly.MutationCtx, number: int) -> None:
    await ctx.db.insert("notes", {"number": number})


@duly.query
async def numbers(ctx: duly.QueryCtx, table: str) -> list[int]:
    return [document["number"] async for document in ctx.db.query(table)]


async def main(url: str, limit: int) -> None:
    app._database = url
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with app:
        acknowledged: list[int] = []
        scheduled: list[int] = []
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        for number in range(1_000):
            try:
                await app.mutation(store, number=number)
                acknowledged.append(number)
                await app.scheduler.run_after(0, remember, number=number)
                scheduled.append(number)
            except StoreUnavailableError as error:
                print(f"refused: {error}", flush=True)
                break
        assert acknowledged, "not even one was stored"
        assert await app.query(numbers, table="blobs") == acknowledged
        print("nothing lost while full", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        await app.mutation(store, number=10_000)
        assert await app.query(numbers, table="blobs") == [*acknowledged, 10_000]

        async def remembered() -> bool:
            return set(await app.query(numbers, table="notes")) == set(scheduled)

        await eventually(remembered)
        assert len(await app.query(numbers, table="notes")) == len(scheduled)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
