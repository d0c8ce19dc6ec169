"""The app that clients call in these tests."""

import asyncio
import sys
from typing import Any, TypedDict

import duly
from duly.errors import ConflictError

app = duly.App(__name__)


class Note(TypedDict):
    text: str


notes = duly.Table("notes", Note)


@duly.query
async def echo(ctx: duly.QueryCtx, value: Any = None) -> Any:
    return value


@duly.query
async def add(ctx: duly.QueryCtx, a: int, b: int = 1) -> int:
    return a + b


@duly.query
async def texts(ctx: duly.QueryCtx) -> list[str]:
    return [note["text"] async for note in ctx.db.query(notes)]


@duly.query
async def how_many(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query(notes).count()


@duly.query
async def pages(ctx: duly.QueryCtx, paginationOpts: duly.PaginationOptions) -> duly.Page[Note]:  # noqa: N803 (clients call it so)
    return await ctx.db.query(notes).order("desc").paginate(paginationOpts)


@duly.query
async def whoami(ctx: duly.QueryCtx) -> str | None:
    identity = await ctx.auth.identity()
    return None if identity is None else identity.subject


@duly.mutation
async def write(ctx: duly.MutationCtx, text: str) -> duly.Id[Note]:
    return await ctx.db.insert(notes, {"text": text})


@duly.mutation
async def write_all(ctx: duly.MutationCtx, texts: Any) -> int:
    written = 0
    while texts:  # uses up what it was given
        await ctx.db.insert(notes, {"text": texts.pop(0)})
        written += 1
    return written


@duly.mutation
async def write_and_return(ctx: duly.MutationCtx, text: str) -> Any:
    await ctx.db.insert(notes, {"text": text})
    return 2**60  # no number of JavaScript's


@duly.mutation
async def write_and_refuse(ctx: duly.MutationCtx, data: Any) -> None:
    await ctx.db.insert(notes, {"text": "refused"})
    raise duly.AppError(data)


@duly.mutation
async def schedule(ctx: duly.MutationCtx, text: str) -> None:
    await ctx.scheduler.run_after(0, write, text=text)


@duly.action
async def write_twice(ctx: duly.ActionCtx, text: str) -> str:
    for _ in range(2):
        await ctx.run_mutation(write, text=text)
    return text


@duly.action
def plain(ctx: duly.SyncActionCtx) -> list[str]:
    return ctx.run_query(texts)


@duly.query
async def secretive(ctx: duly.QueryCtx) -> None:
    raise ValueError("the password is swordfish")


@duly.query
async def refusing(ctx: duly.QueryCtx, data: Any) -> None:
    raise duly.AppError(data)


@duly.query
async def refusing_oddly(ctx: duly.QueryCtx) -> None:
    raise duly.AppError(object())


@duly.action
async def exits(ctx: duly.ActionCtx, how: str) -> None:
    match how:
        case "exit":
            sys.exit("no")
        case "cancel":
            raise asyncio.CancelledError
        case _:
            raise ConflictError("of its own making")


@duly.mutation
async def exits_in_transaction(ctx: duly.MutationCtx) -> None:
    sys.exit("no")


@duly.internal_query
async def hidden(ctx: duly.QueryCtx) -> str:
    return "hidden"


@duly.internal_mutation
async def hidden_write(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert(notes, {"text": "hidden"})


@duly.internal_action
async def hidden_work(ctx: duly.ActionCtx) -> None:
    await ctx.run_mutation(hidden_write)


@duly.query
async def default(ctx: duly.QueryCtx) -> str:
    return "by default"
