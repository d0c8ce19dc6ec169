"""A program that kills itself at a chosen point: `python -m tests.docs.mortal DATABASE FILE POINT`.

The points are those of the failure matrix in `docs/guarantees.md`; `test_failure_matrix` looks at what is left.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NoReturn, TypedDict

import duly
from duly._store.sqlite.store import SQLiteStore
from duly._store.sqlite.transaction import SQLiteTransaction
from duly._work.actions import Actions
from duly.errors import StoreUnavailableError


class Note(TypedDict):
    text: str


notes = duly.Table("notes", Note)

# What this process is to die of; nothing in the process of the tests, which imports this module too.
point = ""
# What holds of the next commit: the process dies before it, or after.
armed: set[Literal["before", "after"]] = set()


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("dead")


def append(file: str, text: str) -> None:
    with Path(file).open("a") as output:
        output.write(text)


@duly.mutation
async def note(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.db.insert(notes, {"text": text})
    if point == "in a mutation":
        die()


@duly.mutation
async def note_and_fail(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.db.insert(notes, {"text": text})
    raise ValueError(text)


@duly.action
async def write(ctx: duly.ActionCtx, file: str) -> None:
    append(file, "written\n")
    await ctx.scheduler.run_after(0, note, text="by the action")
    if point == "in an action":
        die()
    if point == "while draining":
        stop.set()
        await asyncio.Event().wait()


@duly.mutation
async def schedule(ctx: duly.MutationCtx, path: str, value: str, delay_ms: float) -> duly.Id[duly.ScheduledFunction]:
    await ctx.db.insert(notes, {"text": "scheduled"})
    name = "file" if path == "mortal:write" else "text"
    return await ctx.scheduler.run_after(delay_ms, path, **{name: value})


@duly.mutation
async def cancel(ctx: duly.MutationCtx, job_id: duly.Id[duly.ScheduledFunction]) -> None:
    await ctx.db.insert(notes, {"text": "canceled"})
    await ctx.scheduler.cancel(job_id)


@duly.query
async def all_notes(ctx: duly.QueryCtx) -> list[str]:
    return [document["text"] for document in await ctx.db.query(notes).collect()]


@duly.query
async def all_jobs(ctx: duly.QueryCtx) -> list[duly.ScheduledFunction]:
    return await ctx.db.system.query("_scheduled_functions").collect()


# The points. Each is a verb of the store on which the process is armed, and the side of the commit on which it dies.

VERBS: dict[str, tuple[str, Literal["before", "after"], Callable[..., bool]]] = {
    "before the commit that schedules": ("insert_job", "before", lambda *_: True),
    "after the commit that schedules": ("insert_job", "after", lambda *_: True),
    "after a mutation": ("settle_job", "after", lambda *given: given[3] == "success"),
    "before a failure is recorded": ("settle_job", "before", lambda *given: given[3] == "failed"),
    "before an action is claimed": ("start_job", "before", lambda *_: True),
    "after an action is claimed": ("start_job", "after", lambda *_: True),
    "before an outcome is recorded": ("settle_job", "before", lambda *given: given[1] == "inProgress"),
    "before a cancel": ("settle_job", "before", lambda *given: given[3] == "canceled"),
    "after a cancel": ("settle_job", "after", lambda *given: given[3] == "canceled"),
    "while waiting": ("postpone_job", "after", lambda *_: True),
    "before rows are deleted": ("prune_jobs", "before", lambda *_: True),
    "after rows are deleted": ("prune_jobs", "after", lambda *_: True),
    "while an index is built": ("create_index", "before", lambda *_: True),
}

stop = asyncio.Event()


def prepare() -> None:
    """Puts the point in place."""
    original_commit = SQLiteStore._commit

    async def commit(store: SQLiteStore) -> None:
        if "before" in armed:
            die()
        await original_commit(store)
        if "after" in armed:
            die()

    replace(SQLiteStore, "_commit", commit)
    if point in VERBS:
        verb, side, matches = VERBS[point]
        original: Callable[..., Any] = getattr(SQLiteTransaction, verb)

        async def watched(tx: SQLiteTransaction, *args: Any, **kwargs: Any) -> Any:
            result = await original(tx, *args, **kwargs)
            if matches(*args) and (verb != "prune_jobs" or result):
                armed.add(side)
            return result

        replace(SQLiteTransaction, verb, watched)
    if point == "while waiting":

        async def no_room(*_: Any) -> None:
            raise StoreUnavailableError("the disk is full")

        replace(SQLiteTransaction, "insert_document", no_room)
    if point == "while draining":

        async def drain(*_: Any) -> None:
            die()

        replace(Actions, "drain", drain)


def replace(owner: type, name: str, value: object) -> None:
    setattr(owner, name, value)


async def main(database: str, file: str) -> None:
    retention = timedelta(milliseconds=1) if "rows are deleted" in point else timedelta(days=7)
    app = duly.App("__main__", database=database, retention=retention)
    if point == "while waiting":
        async with app:
            await app.scheduler.run_after(0, note, text="ran")
            await asyncio.Event().wait()
    if "cancel" in point:
        async with app.client():
            job_id = await app.mutation(schedule, path="mortal:note", value="ran", delay_ms=200)
            await app.mutation(cancel, job_id=job_id)
    if "that schedules" in point:
        async with app.client():
            await app.mutation(schedule, path="mortal:note", value="ran", delay_ms=0)
    path, value = "mortal:note", "ran"
    if "action" in point or "outcome" in point or "draining" in point:
        path, value = "mortal:write", file
    if "failure" in point:
        path = "mortal:note_and_fail"
    async with app:
        # Not at once: else it may run in the very commit that schedules it.
        await app.mutation(schedule, path=path, value=value, delay_ms=50)
        await stop.wait()


if __name__ == "__main__":
    _, url, output_file, point = sys.argv
    prepare()
    asyncio.run(main(url, output_file))
