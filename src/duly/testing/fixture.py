"""The type of the fixture `duly_run`, apart from the plugin, so that nobody needs pytest to import `duly.testing`."""

from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from duly._app import App
from duly.testing.run import Run

__all__ = ["RunApp"]


class RunApp(Protocol):
    """What the fixture `duly_run` is; for its arguments see `duly.testing.run`.

    Example:
        async def test_orders(duly_run: duly.testing.RunApp) -> None:
            async with duly_run(app) as t:
                await t.mutation(create_order, items=["tea"])
    """

    def __call__(
        self, app: App, *, start: datetime | None = None, seed: int | None = None, patience: timedelta = ...
    ) -> AbstractAsyncContextManager[Run]: ...
