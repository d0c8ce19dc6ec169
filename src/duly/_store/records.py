"""What is written beside documents and jobs: rarely, and the same for every engine."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from duly._model.changes import CREATED, JOBS, Changes, jobs_of_state
from duly._model.job import Job

__all__ = ["Records", "note"]


class Records(ABC):
    """Verbs that are one statement each."""

    @abstractmethod
    async def _look_up(self, name: str, *parameters: Any) -> list[Any]:
        """Rows as they are, with what this transaction has written."""

    @abstractmethod
    async def _write(self, name: str, *parameters: Any) -> list[Any]:
        """A statement of its own, for what is written too rarely to be kept back."""

    async def prune_client_requests(self, before: float, limit: int) -> int:
        return len(await self._write("client_requests_prune", before, limit))

    async def prune_changes(self, before: float, limit: int) -> int:
        return len(await self._write("changes_prune", before, limit))

    async def insert_admin_key(self, hash: str, label: str, now: float) -> None:
        await self._write("admin_key_insert", hash, label, now)

    async def list_admin_keys(self) -> list[tuple[str, str, float]]:
        return [tuple(row) for row in await self._look_up("admin_keys_list")]

    async def delete_admin_key(self, hash: str) -> bool:
        return bool(await self._write("admin_key_delete", hash))


def note(
    changes: Changes,
    documents: Mapping[str, str | None],
    jobs: Mapping[str, Job],
    entries: Iterable[tuple[int, bytes, str]],
    fresh: Collection[Any],
) -> None:
    """Adds to `changes` what is about to be written; `fresh` has the ids of what there was not before."""
    changes.add_ids(documents)
    changes.add_ids(jobs)
    for id, body in documents.items():
        if body is None or id in fresh:
            changes.add_entry(CREATED, b"", id)
    for id, job in jobs.items():
        if id in fresh:
            changes.add_entry(JOBS, b"", id)
        changes.add_entry(jobs_of_state(job.state), b"", id)
    for index, key, id in entries:
        changes.add_entry(index, key, id)
