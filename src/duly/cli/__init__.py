"""The command line: `duly dev`, `worker`, `run`, `jobs`, `show`, `cancel`, `functions`."""

from duly.cli._commands import main

__all__ = ["main"]
