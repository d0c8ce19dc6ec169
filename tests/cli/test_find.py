"""Finding jobs among more than a page holds."""

import pytest

import duly
from duly.cli._find import find_job, find_jobs
from duly.cli._problem import CommandError


@duly.mutation
async def rare(ctx: duly.MutationCtx) -> None: ...


@duly.mutation
async def common(ctx: duly.MutationCtx) -> None: ...


@duly.mutation
async def schedule(ctx: duly.MutationCtx, path: str, count: int) -> list[str]:
    return [await ctx.scheduler.run_after(60_000, path) for _ in range(count)]


async def test_a_job_is_found_by_name_and_by_the_end_of_its_id_behind_many_others(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        (wanted,) = await app.mutation(schedule, path="test_find:rare", count=1)
        others = [*await app.mutation(schedule, path="test_find:common", count=600)]
        others += await app.mutation(schedule, path="test_find:common", count=600)
        for state in (None, "pending"):
            assert [job.id for job in await find_jobs(app, state, "test_find:rare", 5)] == [wanted]
            assert [job.id for job in await find_jobs(app, state, "", 1_150)] == others[:-1_151:-1]
        assert len(await find_jobs(app, None, "test_find:", 10_000)) == 1_201
        assert await find_jobs(app, "failed", "", 5) == []
        assert (await find_job(app, wanted[-8:])).id == wanted
        assert (await find_job(app, wanted)).id == wanted


async def test_the_end_of_an_id_that_several_jobs_share_is_refused(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        # By chance two of so many end in the same four characters.
        ids = [id for _ in range(4) for id in await app.mutation(schedule, path="test_find:common", count=1_000)]
        ends = [id[-4:] for id in ids]
        shared = next(end for end in ends if ends.count(end) > 1)
        with pytest.raises(CommandError, match=f"ends in {shared}") as refused:
            await find_job(app, shared)
        assert refused.value.exit_code == 2
