"""A module in a module."""

import duly


@duly.mutation
async def remove(ctx: duly.MutationCtx, name: str) -> None:
    """Removes a user.

    Nothing is kept of them: */ ends no comment here.

    Example:
        await app.mutation(remove, name="ann")
    """


@duly.internal_mutation
async def forget(ctx: duly.MutationCtx, name: str) -> None:
    pass
