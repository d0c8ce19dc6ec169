"""The app that the clients of these tests talk to: a chat, and functions that do one thing each.

Tests share a server; each keeps to a channel of its own.
"""

import asyncio
import os
from datetime import timedelta
from typing import Any, TypedDict

import duly


class Message(TypedDict):
    channel: str
    author: str | None
    body: str


# Whose word is taken for who calls; the tests have the other half of the key.
KEY = os.environ.get("CHAT_KEY")
PROVIDERS = [duly.JWTProvider(issuer="https://id.example.com", audience="chat", key=KEY, leeway=timedelta(0))]

app = duly.App(__name__, identity_providers=PROVIDERS if KEY else [])
messages = duly.Table("messages", Message, indexes={"by_channel": ["channel"]})


@duly.query
async def history(ctx: duly.QueryCtx, channel: str) -> list[Any]:
    """The messages of a channel, oldest first."""
    return await ctx.db.query(messages).with_index("by_channel", channel=channel).collect()


@duly.query
async def size(ctx: duly.QueryCtx, channel: str) -> int:
    """How many messages a channel has: what `history` must always agree with."""
    return await ctx.db.query(messages).with_index("by_channel", channel=channel).count()


@duly.mutation
async def send(ctx: duly.MutationCtx, channel: str, body: str) -> duly.Id[Message]:
    who = await ctx.auth.identity()
    author = None if who is None else who.subject
    return await ctx.db.insert(messages, {"channel": channel, "author": author, "body": body})


@duly.mutation
async def send_all(ctx: duly.MutationCtx, channel: str, bodies: list[str]) -> None:
    for body in bodies:
        await ctx.db.insert(messages, {"channel": channel, "author": None, "body": body})


@duly.mutation
async def remove(ctx: duly.MutationCtx, id: duly.Id[Message]) -> None:
    await ctx.db.delete(id)


@duly.mutation
async def send_later(
    ctx: duly.MutationCtx, channel: str, body: str, delay_ms: float
) -> duly.Id[duly.ScheduledFunction]:
    return await ctx.scheduler.run_after(delay_ms, send, channel=channel, body=body)


@duly.mutation
async def cancel(ctx: duly.MutationCtx, id: duly.Id[duly.ScheduledFunction]) -> None:
    await ctx.scheduler.cancel(id)


@duly.query
async def job(ctx: duly.QueryCtx, id: duly.Id[duly.ScheduledFunction]) -> duly.ScheduledFunction | None:
    return await ctx.db.system.get(id)


# --- values ---------------------------------------------------------------------------------------------------------


@duly.query
async def echo_query(ctx: duly.QueryCtx, value: Any) -> Any:
    return value


@duly.mutation
async def echo_mutation(ctx: duly.MutationCtx, value: Any) -> Any:
    return value


@duly.action
async def echo_action(ctx: duly.ActionCtx, value: Any) -> Any:
    return value


@duly.query
async def nothing(ctx: duly.QueryCtx) -> None:
    """Returns nothing, which is null."""


# --- failures -------------------------------------------------------------------------------------------------------


@duly.query
async def refuse_query(ctx: duly.QueryCtx, data: Any) -> None:
    raise duly.AppError(data)


@duly.mutation
async def refuse_mutation(ctx: duly.MutationCtx, data: Any, channel: str = "refused") -> None:
    """Refuses, after it has written."""
    await ctx.db.insert(messages, {"channel": channel, "author": None, "body": "never seen"})
    raise duly.AppError(data)


@duly.action
async def refuse_action(ctx: duly.ActionCtx, data: Any) -> None:
    raise duly.AppError(data)


@duly.query
async def break_query(ctx: duly.QueryCtx) -> None:
    raise ValueError("the password is swordfish")


@duly.mutation
async def break_mutation(ctx: duly.MutationCtx) -> None:
    raise ValueError("the password is swordfish")


@duly.action
async def break_action(ctx: duly.ActionCtx) -> None:
    raise ValueError("the password is swordfish")


@duly.query
async def quiet(ctx: duly.QueryCtx, channel: str) -> str:
    """Refuses while there are messages in the channel."""
    if await ctx.db.query(messages).with_index("by_channel", channel=channel).first():
        raise duly.AppError({"channel": channel})
    return "quiet"


@duly.internal_query
async def secret_query(ctx: duly.QueryCtx) -> str:
    return "swordfish"


@duly.internal_mutation
async def secret_mutation(ctx: duly.MutationCtx) -> str:
    return "swordfish"


@duly.internal_action
async def secret_action(ctx: duly.ActionCtx) -> str:
    return "swordfish"


# --- the rest -------------------------------------------------------------------------------------------------------


@duly.query
async def pages(ctx: duly.QueryCtx, channel: str, paginationOpts: duly.PaginationOptions) -> duly.Page[Any]:  # noqa: N803
    """The messages of a channel, newest first."""
    return await ctx.db.query(messages).with_index("by_channel", channel=channel).order("desc").paginate(paginationOpts)


@duly.query
async def whoami(ctx: duly.QueryCtx) -> str | None:
    who = await ctx.auth.identity()
    return None if who is None else who.subject


@duly.action
async def whoami_action(ctx: duly.ActionCtx) -> str | None:
    who = await ctx.auth.identity()
    return None if who is None else who.subject


@duly.mutation
async def ask_later(ctx: duly.MutationCtx, channel: str) -> None:
    """Has a scheduled function send a message, which it does as nobody."""
    await ctx.scheduler.run_after(0, send, channel=channel, body="from a scheduled function")


@duly.action
async def take_time(ctx: duly.ActionCtx, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"
