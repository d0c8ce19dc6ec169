"""Testing an app on a virtual clock: a year of schedules in a second, on the real engine, in memory.

    async with duly.testing.run(app) as t:
        order_id = await t.mutation(create_order, items=["tea"])
        await t.run_due()
        await t.advance(timedelta(days=7))
        assert (await t.query(get_order, order_id=order_id))["status"] == "archived"

See `docs/testing.md`.
"""

from duly.testing.calls import Calls
from duly.testing.errors import FunctionFailedError, NotIdleError, StillRunningError
from duly.testing.fixture import RunApp
from duly.testing.run import Run, run

__all__ = ["Calls", "FunctionFailedError", "NotIdleError", "Run", "RunApp", "StillRunningError", "run"]
