"""An app with one of every kind of annotation."""

import duly

app = duly.App(__name__, database="sqlite:///:memory:")


@duly.query
async def names(ctx: duly.QueryCtx) -> list[str]:
    """Lists the names."""
    return []
