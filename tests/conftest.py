"""What every test may use."""

from pathlib import Path

import pytest


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: every rule holds on a file and in memory."""
    return f"sqlite:///{tmp_path / 'test.db'}" if request.param == "file" else "sqlite:///:memory:"


@pytest.fixture
def file_database(tmp_path: Path) -> str:
    """The URL of an empty database in a file: for what outlives a process, or has several."""
    return f"sqlite:///{tmp_path / 'test.db'}"
