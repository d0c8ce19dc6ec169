"""Processes on one file when their wake-ups get lost."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from duly._ground.clock import SystemClock
from duly._model.job import Job
from duly._store.port import Topic
from duly._store.sqlite.peers import Mailbox
from duly._store.sqlite.store import SQLiteStore
from tests.store.rows import add_jobs, new_job
from tests.support import eventually


def lose(folder: Path, addresses: Iterable[str], topics: Iterable[Topic]) -> None: ...


async def test_S8_a_worker_whose_wake_ups_are_lost_notices_every_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (SQLiteStore(tmp_path / "test.db", SystemClock()) for _ in range(2))
    await here.open([])
    await there.open([])
    leases = [await here.register_worker("a", 10, {}), await there.register_worker("b", 10, {})]

    async def acquainted() -> bool:
        return here.shared and there.shared

    await eventually(acquainted)
    monkeypatch.setattr(Mailbox, "send", staticmethod(lose))
    for _ in range(12):
        before = here.version("mutation")

        async def noticed(before: int = before) -> bool:
            return here.version("mutation") > before

        job: Job = new_job()
        await add_jobs(there, job)
        await eventually(noticed, deadline_s=2)
    for lease in leases:
        lease.release()
    await here.close()
    await there.close()
