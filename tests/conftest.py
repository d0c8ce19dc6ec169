"""What every test may use."""

import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: the processes that tests start, and send Ctrl-C to, would ignore it as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: every rule holds on a file and in memory."""
    return f"sqlite:///{tmp_path / 'test.db'}" if request.param == "file" else "sqlite:///:memory:"


@pytest.fixture
def file_database(tmp_path: Path) -> str:
    """The URL of an empty database in a file: for what outlives a process, or has several."""
    return f"sqlite:///{tmp_path / 'test.db'}"
