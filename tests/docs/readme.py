"""README.md as the tests take it apart: the files it shows, and the commands it gives."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

DULY = [sys.executable, "-m", "duly.cli"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The Python blocks, by the name in their first line."""
    named: dict[str, str] = {}
    for block in blocks("python"):
        first, _, _ = block.partition("\n")
        assert re.fullmatch(r"# \w+\.py", first), f"a block of README.md does not begin with its file's name: {first}"
        named[first.removeprefix("# ")] = block
    return named


def commands() -> list[list[str]]:
    """The commands of the console blocks, in order, without their comments."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]


def write_files(folder: Path) -> None:
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


def environment() -> dict[str, str]:
    """As in a terminal of somebody who has just installed duly, but that output arrives at once."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("DULY_", "PYTEST_"))}
    return theirs | {"PYTHONUNBUFFERED": "1"}


def run(folder: Path, *command: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Background:
    """A command that runs until the block ends; its output goes to a file that can be read meanwhile."""

    def __init__(self, folder: Path, *command: str) -> None:
        self._log = folder / "output.txt"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(signal.SIGTERM)

    async def has_printed(self, text: str) -> bool:
        assert self._process.poll() is None, f"it has ended:\n{self.output}"
        return text in self.output

    @property
    def output(self) -> str:
        return self._log.read_text()

    def end(self, how: signal.Signals) -> None:
        """Sends a signal, and waits for the end of it and of all it has started."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(timeout=20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
