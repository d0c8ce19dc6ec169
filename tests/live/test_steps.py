"""What a step of live queries takes on, so that nobody waits for all that others ask."""

import asyncio

import duly
from duly._app import Parts
from tests.support import ManualClock, eventually


@duly.mutation
async def add(ctx: duly.MutationCtx) -> None:
    await ctx.db.insert("notes", {})


@duly.query
async def how_many(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query("notes").count()


class Gate:
    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()


gates: list[Gate] = []


@duly.query
async def waits(ctx: duly.QueryCtx, number: int) -> int:
    gates[number].reached.set()
    await gates[number].open.wait()
    return number


async def test_many_that_are_new_do_not_keep_others_from_what_is_committed(lasting_database: str) -> None:
    app = duly.App(__name__, database=lasting_database)
    clock = ManualClock()
    app._parts = Parts(clock=clock)
    gates[:] = [Gate() for _ in range(3)]
    async with app.client():
        results = app.subscribe(how_many)
        assert await asyncio.wait_for(anext(results), 30) == 0
        new = [asyncio.ensure_future(anext(app.subscribe(waits, number))) for number in range(3)]
        for number, gate in enumerate(gates):

            async def is_reached(gate: Gate = gate) -> bool:
                await clock.advance(0)
                return gate.reached.is_set()

            await eventually(is_reached)
            if number == 0:
                await app.mutation(add)
            if number == 2:
                assert await asyncio.wait_for(anext(results), 30) == 1
            await clock.advance(1)
            gate.open.set()

        async def all_have_something() -> bool:
            await clock.advance(0)
            return all(task.done() for task in new)

        await eventually(all_have_something)
        assert [await task for task in new] == [0, 1, 2]
