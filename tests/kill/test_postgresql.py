"""Four workers on PostgreSQL: killed, stopped and woken again, cut off, and with a server that is killed as well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.kill.trouble import (
    LEASE_S,
    TroubleReport,
    freeze_one,
    kill_one,
    network_trouble,
    restart,
    workers_in_trouble,
)
from tests.proxy import Proxy
from tests.support import LOADED_S

STRIKES = 6
"""Of each kind. `make soak` does fifty and more."""


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """One of its own, which keeps what it has acknowledged when it is killed."""
    with postgres.Server.start(durable=True) as started:
        yield started


@pytest.fixture
def url(server: postgres.Server) -> str:
    made = server.create_database("trouble")
    postgres.prepare(made)
    return made


def check_recovery(report: TroubleReport) -> None:
    assert max(report.recoveries) < LEASE_S + 2 + LOADED_S, report.recoveries


@pytest.mark.timeout(300)
async def test_four_workers_that_are_killed_lose_nothing_and_do_nothing_twice(url: str, tmp_path: Path) -> None:
    report = await workers_in_trouble(url, tmp_path, kill_one, strikes=STRIKES, seed=1)
    check_recovery(report)


@pytest.mark.timeout(300)
async def test_four_workers_that_stall_beyond_their_lease_record_nothing_for_what_was_rescued(
    url: str, tmp_path: Path
) -> None:
    report = await workers_in_trouble(url, tmp_path, freeze_one, strikes=STRIKES, seed=2)
    check_recovery(report)


@pytest.mark.timeout(300)
async def test_a_server_that_is_killed_in_mid_run_loses_nothing_and_does_nothing_twice(
    server: postgres.Server, url: str, tmp_path: Path
) -> None:
    report = await workers_in_trouble(url, tmp_path, restart(server), strikes=STRIKES, seed=3)
    check_recovery(report)


@pytest.mark.timeout(300)
async def test_a_network_that_fails_loses_nothing_and_does_nothing_twice(url: str, tmp_path: Path) -> None:
    with Proxy(url) as proxy:
        report = await workers_in_trouble(proxy.url(), tmp_path, network_trouble(proxy), strikes=STRIKES, seed=4)
    assert report.strikes == STRIKES
