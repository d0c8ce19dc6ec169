"""The verbs of the port that scheduling needs, in a transaction that somebody else began and will end.

Nothing is kept back: each verb is a statement of its own, which commits or is undone with all else in there.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors

from duly._model.changes import JOBS, Changes, jobs_of_state
from duly._model.job import Job, JobState, check_move
from duly._store.postgresql.clock import DatabaseClock
from duly._store.postgresql.drivers import Driver
from duly._store.postgresql.faults import translate
from duly._store.postgresql.waking import token
from duly.errors import DulyError, StoreError

__all__ = ["EnlistedTransaction"]

_WHERE = "of this connection"


class EnlistedTransaction:
    """A part of the port's Transaction.

    Args:
        driver: Whose transaction it is.
        sql: The statements.
        channel: Where workers listen.
        clock: The database's.
        follow: Whether to learn from the database what time it is.
    """

    def __init__(
        self, driver: Driver, sql: dict[str, str], channel: str, clock: DatabaseClock, *, follow: bool
    ) -> None:
        self._driver = driver
        self._sql = sql
        self._channel = channel
        self._clock = clock
        self._knows_time = not follow

    async def learn_time(self) -> None:
        """Once, before anything else: the clock of this machine may be off."""
        if not self._knows_time:
            asked = self._clock.own_ms()
            rows = await self._ask("clock")
            self._clock.learn(asked, rows[0][0], self._clock.own_ms())
            self._knows_time = True

    async def insert_job(self, job: Job) -> None:
        words = token("change", None)
        if job.due is not None:
            # Those that are due by now say the same: of equal notifications the server keeps one.
            words += " " + token(job.kind, job.due if job.due > self._clock.now_ms() else None)
        await self._ask(
            "enlisted_insert",
            *job,
            self._channel,
            words,
            self._clock.now_ms(),
            _written_to(job.id, job.state, new=True),
        )

    async def get_job(self, id: str) -> Job | None:
        """As it stays until the transaction ends. Its arguments are left out."""
        rows = await self._ask("enlisted_lock", id)
        return Job._make(rows[0]) if rows else None

    async def settle_job(self, id: str, before: JobState, attempts: int, after: JobState, now: float) -> bool:
        check_move("action" if before == "inProgress" else "mutation", before, after)
        assert after == "canceled", f"{after} is for workers to write"
        return bool(
            await self._ask("enlisted_cancel", id, before, attempts, now, _written_to(id, after), self._channel)
        )

    async def _ask(self, name: str, *parameters: Any) -> Sequence[Sequence[Any]]:
        driver = self._driver
        try:
            return await driver.execute(self._sql[name], parameters)
        except driver.errors() as error:
            raise _translated(error) from error


def _written_to(id: str, state: JobState, *, new: bool = False) -> str:
    """What is told to those who follow, of a job that changed."""
    changes = Changes()
    if new:
        changes.add_entry(JOBS, b"", id)
    changes.add_ids([id])
    changes.add_entry(jobs_of_state(state), b"", id)
    return changes.dump()


def _translated(error: Exception) -> DulyError:
    """Frameworks wrap the errors of their drivers; what the server said has a state by which it is known."""
    if isinstance(error, OSError):
        return translate(psycopg.OperationalError(str(error)), _WHERE)
    for cause in (error, error.__cause__):
        if isinstance(cause, psycopg.Error):
            return translate(cause, _WHERE)
        state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        if state is not None:
            return translate(_class_of(state)(str(cause)), _WHERE)
    first_line = next(iter(str(error).splitlines()), "")
    return StoreError(f"the database {_WHERE} can't be asked: {type(error).__name__}: {first_line}")


def _class_of(state: str) -> type[psycopg.Error]:
    try:
        return errors.lookup(state)
    except KeyError:
        return psycopg.DatabaseError
