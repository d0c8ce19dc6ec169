"""Code deployed by a test: modules made from text, in this process or in one of their own."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "src"


def deploy(monkeypatch: pytest.MonkeyPatch, name: str, source: str, **known: Any) -> str:
    """A module of the given name; returns the name, for `duly.App`.

    The path of a function holds the last part of the name only: `v1.jobs` and `v2.jobs` are two versions of one module.
    """
    module = types.ModuleType(name)
    vars(module).update(known)
    exec(compile(textwrap.dedent(source), f"{name}.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    return name


class Process:
    """A Python process of a test, which prints lines and may be killed at any moment."""

    def __init__(self, folder: Path, source: str) -> None:
        program = folder / "jobs.py"
        program.write_text(textwrap.dedent(source))
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SOURCE}"}
        self._process = subprocess.Popen(
            [sys.executable, program.name], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )

    async def says(self) -> str:
        """The next line that it prints."""
        output = self._process.stdout
        assert output is not None
        line = await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, output.readline), 60)
        assert line, f"the process ended with {self._process.wait(10)}"
        return line.strip()

    def kill(self) -> None:
        """SIGKILL: no handler, no clean-up."""
        self._process.kill()
        assert self._process.wait(10) == -signal.SIGKILL

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    async def ended(self) -> int:
        """Waits for its end; returns the exit code, negative for a signal."""
        return await asyncio.get_running_loop().run_in_executor(None, self._process.wait, 60)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def running(folder: Path, source: str) -> Iterator[Process]:
    """A process that does not outlive the block."""
    process = Process(folder, source)
    try:
        yield process
    finally:
        process.close()
