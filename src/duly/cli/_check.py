"""`duly check`: pending functions that this code can't run."""

from collections.abc import AsyncIterator
from functools import partial

from duly._app import App
from duly._call.registry import Registry
from duly._ground.clock import SystemClock
from duly._ground.ids import ID_HIGHEST
from duly._model.failure import describe_failure
from duly._model.job import Job
from duly._store.port import Store, Transaction
from duly.cli._console import make_console
from duly.cli._find import must_exist
from duly.cli._table import JobTable

__all__ = ["check"]

_SHOWN_MAX = 50
# Few at a time: their arguments may be long.
_PAGE = 64


async def check(app: App) -> bool:
    """Prints those whose function is gone, is a query, or takes other arguments. Returns whether there are none."""
    must_exist(app)
    clock = SystemClock()
    store: Store = app._parts.make_store(app.database, clock)
    # Not as the app does: the indexes that this code declares are for it to make once it is deployed.
    await store.open([])
    shown: list[Job] = []
    pending = misfits = 0
    try:
        async for job in _pending_jobs(store):
            pending += 1
            if reason := _why_not(app._registry, job):
                misfits += 1
                if len(shown) < _SHOWN_MAX:
                    shown.append(job._replace(pending_reason=reason, args=""))
    finally:
        await store.close()
    console = make_console()
    if not misfits:
        console.print(f"this code can run all {pending} pending functions" if pending else "nothing is pending")
        return True
    summary = f"{misfits} of {pending} pending functions can't be run by this code"
    if misfits > len(shown):
        summary += f"; the newest {len(shown)} are shown, {misfits - len(shown)} more are not"
    console.print(JobTable(shown, _SHOWN_MAX, clock.now_ms(), summary=summary))
    return False


async def _pending_jobs(store: Store) -> AsyncIterator[Job]:
    before = ID_HIGHEST
    while page := await store.read(partial(_page, before)):
        for job in page:
            yield job
        before = page[-1].id


async def _page(before: str, tx: Transaction) -> list[Job]:
    return await tx.list_jobs("pending", before, _PAGE)


def _why_not(registry: Registry, job: Job) -> str | None:
    """Why this code can't run a job; None if it can."""
    function = registry.functions.get(job.name)
    if function is None:
        return "this code has no such function"
    try:
        function.load(job.args, registry.tags)
    except Exception as error:  # noqa: BLE001 (a validator may raise anything)
        return describe_failure(error).partition("\n")[0]
    return None
