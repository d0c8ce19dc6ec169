"""What runs in a simulation: functions that do what a generated plan says, and note it where the checkers look.

A plan is a list of steps, itself an argument, so that what runs is stored with the job:

    ["bump", key]                    read a counter, write it one higher
    ["later", delay_ms, kind, plan]  schedule a mutation or an action that does a plan
    ["again", delay_ms, n]           (mutations) schedule itself, n times in a row
    ["cancel", n]                    cancel one of the jobs there are
    ["nested", plan]                 (mutations) the plan in a nested mutation, whose failure is caught
    ["mutate", plan]                 (actions) the plan in a mutation of its own
    ["sleep", seconds]               (actions)
    ["fail"]                         raise

What a mutation notes is in the same transaction as what it did: rows of the table `ledger`. What an action did outside
is in the `Outside`, which no rollback reaches.
"""

import contextlib
import random
from datetime import timedelta
from typing import Any

import duly
from duly.testing.simulation import World

__all__ = ["KEYS", "OnPurposeError", "Outside", "app", "make_plan", "outside"]

app = duly.App(__name__, action_timeout=timedelta(seconds=60))

ledger = duly.Table("ledger")
counters = duly.Table("counters", indexes={"by_key": ["key"]})

KEYS = 3

Plan = list[Any]


class OnPurposeError(Exception):
    """What a plan raises when it says so."""


class Outside:
    """The world outside: it remembers whatever happened."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.began: list[str] = []
        self.returned: list[str] = []
        # Ids that a call gave back, in an action or from outside: those jobs must exist.
        self.acknowledged: list[str] = []
        # Tags of direct calls, by what became of them.
        self.done: list[str] = []
        self.undone: list[str] = []
        self.early: list[str] = []
        self.overtaken: list[str] = []


outside = Outside()


def make_plan(chance: random.Random, kind: str, depth: int = 3) -> Plan:
    steps: Plan = []
    for _ in range(chance.randrange(1, 4)):
        what = chance.choices(
            ["bump", "later", "cancel", "nested", "mutate", "sleep", "fail", "again"],
            [6, 5 if depth else 0, 3, 2, 4, 3, 1, 1],
        )[0]
        if what == "bump" or (what == "sleep" and kind == "mutation") or (what == "nested" and kind == "action"):
            steps.append(["bump", chance.randrange(KEYS)] if kind == "mutation" else ["mutate", [["bump", 0]]])
        elif what == "later":
            delay = chance.choice([0, 0, 1, 500, 5_000, 60_000])
            other = chance.choice(["mutation", "action"])
            steps.append(["later", delay, other, make_plan(chance, other, depth - 1)])
        elif what == "cancel":
            steps.append(["cancel", chance.randrange(1_000)])
        elif what == "nested":
            steps.append(["nested", make_plan(chance, "mutation", 0)])
        elif what == "mutate" and kind == "action":
            steps.append(["mutate", make_plan(chance, "mutation", min(depth, 1))])
        elif what == "sleep":
            steps.append(["sleep", chance.choice([0, 0.01, 1, 15, 90])])
        elif what == "again" and kind == "mutation":
            steps.append(["again", chance.choice([0, 1_000, 20_000]), chance.randrange(1, 5)])
        elif what == "fail":
            steps.append(["fail"])
    return steps


# --- mutations ------------------------------------------------------------------------------------------------------


@duly.mutation
async def do(ctx: duly.MutationCtx, plan: Plan, tag: str | None = None) -> None:
    """A mutation of a plan: called directly, scheduled, or run by an action."""
    if tag is not None:
        await ctx.db.insert(ledger, {"tag": tag})
    job_id = ctx.scheduled_function_id
    job = None if job_id is None else await ctx.db.system.get(job_id)
    if job is not None and job["name"].endswith(":do"):
        await ctx.db.insert(ledger, {"ran": job["_id"]})  # type: ignore[typeddict-item]
        await _look_at_the_order(ctx, job)
    await _steps(ctx, plan)


@duly.internal_mutation
async def nested(ctx: duly.MutationCtx, plan: Plan, tag: str) -> None:
    await ctx.db.insert(ledger, {"tag": tag})
    await _steps(ctx, plan)


async def _look_at_the_order(ctx: duly.MutationCtx, job: Any) -> None:
    """Rules S7 and S8: it is due, and no other mutation that is due earlier waits."""
    due = job["nextAttemptTime"]
    if due > ctx.now.timestamp() * 1_000 + 0.001:
        outside.early.append(job["_id"])
    async for other in ctx.db.system.query("_scheduled_functions"):
        waits = other["state"]["kind"] == "pending" and other["name"].endswith(":do")
        # Of those that are due at the same moment, the ids of two processes do not tell which was scheduled first.
        if waits and other.get("nextAttemptTime", due) < due:
            outside.overtaken.append(f"{duly.id_of(other)} by {job['_id']}")


async def _steps(ctx: duly.MutationCtx, plan: Plan) -> None:
    for what, *rest in plan:
        match what:
            case "bump":
                await _bump(ctx, rest[0])
            case "later":
                await _later(ctx, *rest)
            case "again":
                delay, n = rest
                await _later(ctx, delay, "mutation", [["bump", 0], *([["again", delay, n - 1]] if n > 1 else [])])
            case "cancel":
                await ctx.scheduler.cancel(await _pick(ctx, rest[0]), missing_ok=True)
            case "nested":
                tag = f"{ctx.random.getrandbits(64):x}"
                try:
                    await ctx.run_mutation(nested, rest[0], tag)
                except OnPurposeError:
                    await ctx.db.insert(ledger, {"undone": tag})
            case "fail":
                raise OnPurposeError
            case _:
                raise AssertionError(what)


async def _bump(ctx: duly.MutationCtx, key: int) -> None:
    found = await ctx.db.query(counters).with_index("by_key", key=key).unique()
    n = (found["n"] if found else 0) + 1
    if found:
        id = duly.id_of(found)
        await ctx.db.patch(id, {"n": n})
    else:
        id = await ctx.db.insert(counters, {"key": key, "n": n})
    written = await ctx.db.get(id)
    assert written is not None
    assert written["n"] == n, "a transaction sees what it has written"
    await ctx.db.insert(ledger, {"bumped": key, "n": n})


async def _later(ctx: duly.MutationCtx, delay: float, kind: str, plan: Plan) -> None:
    root = ctx.scheduled_function_id
    job = None if root is None else await ctx.db.system.get(root)
    cut_off = job is not None and job["name"].endswith(":act") and job["state"]["kind"] == "canceled"
    id = await ctx.scheduler.run_after(delay, do if kind == "mutation" else act, plan)
    await ctx.db.insert(ledger, {"child": id, "cut_off": cut_off})


async def _pick(ctx: duly.MutationCtx, n: int) -> str:
    jobs = await ctx.db.system.query("_scheduled_functions").collect()
    own = ctx.scheduled_function_id
    others = [job["_id"] for job in jobs if job["_id"] != own]  # type: ignore[typeddict-item]
    return str(others[n % len(others)]) if others else await _none_at_all(ctx)


async def _none_at_all(ctx: duly.MutationCtx) -> str:
    """The id of a job that is canceled already."""
    id = await ctx.scheduler.run_after(0, do, [])
    await ctx.db.insert(ledger, {"child": id, "cut_off": False})
    return id


# --- actions --------------------------------------------------------------------------------------------------------


@duly.action
async def act(ctx: duly.ActionCtx, plan: Plan) -> None:
    id = str(ctx.scheduled_function_id)
    outside.began.append(id)
    for what, *rest in plan:
        await _act_step(ctx, what, rest)
    outside.returned.append(id)


async def _act_step(ctx: duly.ActionCtx, what: str, rest: list[Any]) -> None:
    match what:
        case "later":
            delay, kind, plan = rest
            outside.acknowledged.append(await ctx.scheduler.run_after(delay, do if kind == "mutation" else act, plan))
        case "cancel":
            await ctx.run_mutation(do, [["cancel", rest[0]]])
        case "mutate":
            with contextlib.suppress(OnPurposeError):
                await ctx.run_mutation(do, rest[0])
        case "sleep":
            assert outside.world is not None
            await outside.world.clock.sleep(rest[0])
        case "fail":
            raise OnPurposeError
        case _:
            raise AssertionError(what)


@duly.query
async def ledger_rows(ctx: duly.QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.query(ledger).collect()


@duly.query
async def counter_values(ctx: duly.QueryCtx) -> dict[str, int]:
    return {str(found["key"]): found["n"] for found in await ctx.db.query(counters).collect()}


@duly.query
async def all_jobs(ctx: duly.QueryCtx) -> list[dict[str, Any]]:
    return [dict(job) async for job in ctx.db.system.query("_scheduled_functions")]
