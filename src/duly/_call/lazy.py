"""`duly.internal` and `duly.api`: references looked up when they are used."""

from duly._model.function import LazyReference

__all__ = ["api", "internal"]

internal = LazyReference("internal")
"""Names functions by path, lazily: `duly.internal.emails.send_confirmation` is `emails:send_confirmation`.

Example:
    await ctx.scheduler.run_after(0, duly.internal.emails.send_confirmation, order_id=order_id)
"""

api = LazyReference("api")
"""As `internal`, for functions that are public.

Example:
    await ctx.run_query(duly.api.reports.open_orders)
"""
