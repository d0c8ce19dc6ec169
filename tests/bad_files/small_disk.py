"""A worker on a disk with little room: `python -m tests.bad_files.small_disk URL BYTES [TMPFS]`.

No file may grow past the limit, which is much like a full disk; or the database is on a file system in memory of this
size, which is one. Then there is room again. Prints a line for each step; ends with `done` when everything acknowledged
is there and everything scheduled has happened.
"""

import asyncio
import logging
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


@duly.action
async def wait_for_gate(ctx: duly.ActionCtx) -> None:
    await gate.wait()


@duly.query
async def job(ctx: duly.QueryCtx, id: duly.Id[duly.ScheduledFunction]) -> duly.ScheduledFunction | None:
    return await ctx.db.system.get(id)


@duly.query
async def numbers(ctx: duly.QueryCtx, table: str) -> list[int]:
    return [document["number"] async for document in ctx.db.query(table)]


class Warnings(logging.Handler):
    """What the worker says while there is no room."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


gate = asyncio.Event()
warnings = Warnings()
logging.getLogger("duly").addHandler(warnings)


def limit_files(size: int) -> Callable[[], None]:
    """Returns what lifts the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(folder: Path) -> Callable[[], None]:
    """Leaves half a megabyte; returns what makes room again."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while True:
            try:
                file.write(b"x" * 65_536)
                file.flush()
            except OSError:
                break
        file.truncate(file.tell() - 500_000)
    return ballast.unlink


async def main(url: str, limit: int, tmpfs: str | None = None) -> None:
    app._database = url
    async with app:
        action = await app.scheduler.run_after(0, wait_for_gate)

        async def begun() -> bool:
            found = await app.query(job, id=action)
            return found is not None and found["state"]["kind"] == "inProgress"

        await eventually(begun)
        acknowledged: list[int] = []
        scheduled: list[int] = []
        make_room = limit_files(limit) if tmpfs is None else fill(Path(tmpfs))
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
        gate.set()

        async def complained() -> bool:
            return any(f"the outcome of {action} is not recorded yet" in line for line in warnings.lines)

        await eventually(complained)
        assert await begun()
        make_room()
        await app.mutation(store, number=10_000)
        assert await app.query(numbers, table="blobs") == [*acknowledged, 10_000]

        async def remembered() -> bool:
            return set(await app.query(numbers, table="notes")) == set(scheduled)

        await eventually(remembered)

        async def recorded() -> bool:
            found = await app.query(job, id=action)
            return found is not None and found["state"]["kind"] == "success"

        await eventually(recorded)
        assert len(await app.query(numbers, table="notes")) == len(scheduled)
    print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[3:]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[2]}", "tmpfs", sys.argv[3]], check=True)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:4]))
