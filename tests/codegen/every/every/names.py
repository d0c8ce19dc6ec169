"""A module of the same place as a function: `every:names` beside `every/names:count`."""

import duly


@duly.query
async def count(ctx: duly.QueryCtx) -> int:
    return 0
