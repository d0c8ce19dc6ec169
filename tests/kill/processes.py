"""Starting victims, and making sure that none outlives its test."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Victim:
    """One process of `tests.kill.victim`."""

    def __init__(self, *arguments: str) -> None:
        # A file, not a pipe that nobody reads: one that is full stops whoever has something to complain of.
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the victim)
        self._is_ready = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kill.victim", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    def wait_ready(self) -> "Victim":
        if not self._is_ready:
            line = self.read_line()
            assert line == "ready", f"{line!r}\n{self.complaints()}"
            self._is_ready = True
        return self

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def complaints(self) -> str:
        """What it has written to stderr so far."""
        self._complaints.seek(0)
        return self._complaints.read()

    def kill(self) -> str:
        """SIGKILL; returns what it had still printed."""
        self.process.kill()
        return self.process.communicate()[0]

    def stop(self) -> tuple[str, str]:
        """SIGTERM, and its end; returns what it printed, and its complaints."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.complaints()
        return out, self.complaints()

    def close(self) -> None:
        """Its end, if that has not come yet."""
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._complaints.close()


@contextmanager
def victims() -> Iterator[list[Victim]]:
    """A list to put victims in; all that still live are killed at the end, also those that were stopped."""
    started: list[Victim] = []
    try:
        yield started
    finally:
        for victim in started:
            victim.close()
