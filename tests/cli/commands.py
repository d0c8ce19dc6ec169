"""Runs the `duly` command in a folder of the user's, and reads what it prints."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

COMMAND = [sys.executable, "-m", "duly.cli"]
DEADLINE_S = 60.0


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that goes on. What it prints, on stdout and stderr, comes line by line."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, text: str) -> str:
        """The next line that holds a text; fails when the command ends without one, or takes too long."""
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                line = self._queue.get(timeout=max(end - time.monotonic(), 0.001))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line with {text!r}; there was:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if text in line:
                return line

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """What a terminal does: the command and all it has started get the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        """The exit code, once it has ended; the rest of its lines are in `lines`."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        assert not self._reader.is_alive(), "something that it started lives on"
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    def end(self) -> None:
        """Leaves nothing behind, of what it started either."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Duly:
    """The command, in one folder.

    Args:
        folder: The current folder of the command: the user's project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running] = []

    def __call__(self, *arguments: str, stdin: str = "", columns: int | None = None) -> Result:
        """Runs a command to its end."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self._environment(columns),
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=DEADLINE_S,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> Running:
        """Starts a command that goes on."""
        running = Running(arguments, self.folder, self._environment(None))
        self._running.append(running)
        return running

    def write(self, name: str, text: str) -> None:
        """A file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def end(self) -> None:
        for running in self._running:
            running.end()

    def _environment(self, columns: int | None) -> dict[str, str]:
        # A terminal's and a user's settings are theirs, not the test's.
        unwanted = {"COLUMNS", "LINES", "FORCE_COLOR", "DULY_DATABASE_URL", "PYTHONIOENCODING"}
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        environment |= {"TZ": "UTC", "PYTHONUTF8": "1"}
        # No byte code: a file that changes twice within a second must not be taken for what it was.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return environment if columns is None else environment | {"COLUMNS": str(columns)}
