"""A project, and the command in its folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import Duly
from tests.cli.project import SHOP


@pytest.fixture
def duly(tmp_path: Path) -> Iterator[Duly]:
    """The command in an empty folder."""
    command = Duly(tmp_path)
    yield command
    command.end()


@pytest.fixture
def shop(duly: Duly) -> Duly:
    """The command in the folder of a project: `shop` is a package, `jobs.py` an app of one file."""
    for name, text in SHOP.items():
        duly.write(name, text)
    return duly
