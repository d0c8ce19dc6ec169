"""Finding scheduled functions in the store: newest first, by state and name, by id or the end of one."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from duly._app import App
from duly._call.registry import SYSTEM_TAG
from duly._ground.ids import ID_HIGHEST, check_id
from duly._model.job import Job, JobState
from duly._store.port import Transaction
from duly.cli._problem import USAGE, CommandError
from duly.errors import InvalidIdError

__all__ = ["SHORT", "find_job", "find_jobs", "must_exist"]

SHORT = 8
"""So many characters at the end of an id are shown where there is no room for all 32."""

_SHORT_MIN = 4
_SHORT_MAX = 20
_PAGE = 500


def must_exist(app: App) -> None:
    """Who only looks must not make a database: an empty one in the wrong folder would say that all is done.

    Raises:
        CommandError: There is no such file yet.
    """
    path = app.database.removeprefix("sqlite:///")
    if path != app.database and path != ":memory:" and not Path(path).exists():
        raise CommandError(
            f"there is no database {Path(path).absolute()}",
            hint="it is looked for from the current folder: change to the app's, or name it with --database or "
            "$DULY_DATABASE_URL; it is made by the first duly dev, worker or run",
        )


async def find_jobs(app: App, state: JobState | None, name: str, limit: int) -> list[Job]:
    """The jobs of a state (None: any) whose path begins with a name, last scheduled first. The app is open."""
    return await _matching(app, state, lambda job: job.name.startswith(name), limit, everything=not name)


async def find_job(app: App, id: str) -> Job:
    """The job with this id, or with an id that ends so. The app is open.

    Raises:
        CommandError: There is none, there are several, or it is no id of a scheduled function.
    """
    assert app._store is not None
    if _SHORT_MIN <= len(id) <= _SHORT_MAX and id.isascii() and id.isalnum():
        found = await _matching(app, None, lambda job: job.id.endswith(id), 3)
    else:
        _check(id)
        job = await app._store.read(lambda tx: tx.get_job(id))
        found = [job] if job else []
    if not found:
        raise CommandError(
            f"there is no scheduled function {id}",
            notes=["It never existed, or it finished long enough ago to have been deleted."],
            is_missing=True,
        )
    if len(found) > 1:
        raise CommandError(
            f"more than one scheduled function has an id that ends in {id}",
            notes=[f"{job.id}  {job.name}" for job in found],
            hint="give more of the id",
            exit_code=USAGE,
        )
    return found[0]


def _check(id: str) -> None:
    try:
        if check_id(id) != SYSTEM_TAG:
            raise InvalidIdError(id, "is the id of a document, not of a scheduled function")
    except InvalidIdError as error:
        raise CommandError(str(error), hint="'duly jobs' lists the ids", exit_code=USAGE) from None


async def _matching(
    app: App, state: JobState | None, matches: Callable[[Job], bool], limit: int, *, everything: bool = False
) -> list[Job]:
    """Pages through the jobs, newest first, until there are enough."""
    assert app._store is not None
    found: list[Job] = []
    before = ID_HIGHEST
    size = min(limit, _PAGE) if everything else _PAGE
    while len(found) < limit:
        page = await app._store.read(_page(state, before, size))
        found += filter(matches, page)
        if len(page) < size:
            break
        before = page[-1].id
    return found[:limit]


def _page(state: JobState | None, before: str, size: int) -> Callable[[Transaction], Awaitable[list[Job]]]:
    if state is None:
        return lambda tx: tx.scan_jobs("", before, True, size)
    return lambda tx: tx.list_jobs(state, before, size)
