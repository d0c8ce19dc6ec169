"""Starting victims, and making sure that none outlives its test."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Victim:
    """One process of `tests.kill.victim`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kill.victim", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> "Victim":
        line = self.read_line()
        assert line == "ready", f"{line!r}\n{self.process.stderr.read() if self.process.stderr else ''}"
        return self

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> str:
        """SIGKILL; returns what it had still printed."""
        self.process.kill()
        return self.process.communicate()[0]

    def stop(self) -> tuple[str, str]:
        """SIGTERM, and its end; returns what it printed, and its complaints."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        return out, err


@contextmanager
def victims() -> Iterator[list[Victim]]:
    """A list to put victims in; all that still live are killed at the end, also those that were stopped."""
    started: list[Victim] = []
    try:
        yield started
    finally:
        for victim in started:
            if victim.process.poll() is None:
                victim.kill()
            for stream in (victim.process.stdout, victim.process.stderr):
                if stream is not None:
                    stream.close()
