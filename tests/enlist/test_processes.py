"""A process that sells is killed between scheduling and its commit; a real worker runs what was committed."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.enlist.conftest import Ask
from tests.enlist.test_enlist import INVOICES
from tests.support import DEADLINE_S

ROOT = Path(__file__).resolve().parent.parent.parent
STATES = "SELECT state FROM duly.scheduled_functions"


@asynccontextmanager
async def started(url: str, *arguments: str) -> AsyncIterator[Process]:
    environment = os.environ | {"DULY_DATABASE_URL": url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def says(process: Process, text: str) -> None:
    """Reads its output up to there."""
    assert process.stdout is not None
    while text not in (line := (await asyncio.wait_for(process.stdout.readline(), DEADLINE_S)).decode()):
        assert line, f"it has ended without saying {text!r}"


async def test_killed_before_the_commit_it_leaves_neither_row_nor_job(postgresql_url: str, ask: Ask) -> None:
    async with started(postgresql_url, "-m", "tests.enlist.seller", postgresql_url, "tea") as seller:
        await says(seller, "scheduled")
        seller.kill()
    assert ask(INVOICES) == ask(STATES) == []


async def test_a_worker_elsewhere_runs_what_was_committed(postgresql_url: str, ask: Ask) -> None:
    async with started(postgresql_url, "-m", "duly.cli", "worker", "tests.enlist.seller:app") as worker:
        await says(worker, "runs tests.enlist.seller:app")
        async with started(postgresql_url, "-m", "tests.enlist.seller", postgresql_url, "tea") as seller:
            await says(seller, "scheduled")
            assert ask(INVOICES) == ask(STATES) == []
            assert seller.stdin is not None
            seller.stdin.write(b"\n")
            await says(seller, "committed")
            assert await seller.wait() == 0
        await says(worker, "posted tea")
    assert ask(INVOICES) == ["tea"]
