"""A server to talk to: `duly serve` in a process of its own, on a port that stays its own when it comes back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.postgres import free_port

__all__ = ["Server"]

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 30.0


class Server:
    """Serves `tests.clients.chat` as long as its `with` block lasts.

    Args:
        folder: Where its log goes, and its database if no URL is given.
        database: The URL of its database.
        app: Another app to serve; or a site that has it mounted, for uvicorn.
        mount: Where it has.
        environment: More variables for it.
    """

    def __init__(
        self,
        folder: Path,
        database: str | None = None,
        *,
        app: str = "tests.clients.chat:app",
        mount: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._app = app
        self._mount = mount
        self._log = folder / "server.log"
        self._environment = {
            **os.environ,
            "DULY_DATABASE_URL": database or f"sqlite:///{folder / 'server.db'}",
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers."""
        program = ["uvicorn"] if self._mount else ["duly.cli", "serve"]
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", *program, self._app, "--host", "127.0.0.1", "--port", str(self.port)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(f"{self.url}{self._mount}/version").raise_for_status()
                return
            except httpx.TransportError:
                assert process.poll() is None, f"the server has ended\n{self.told()}"
                assert time.monotonic() < deadline, f"the server does not answer\n{self.told()}"
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL. It may be started again, on the same port and database."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and its end."""
        self._end(signal.SIGTERM)

    def duly(self, command: str, *arguments: str) -> str:
        """Runs another command of the CLI on the same app and database; returns what it prints."""
        return subprocess.run(
            [sys.executable, "-m", "duly.cli", command, self._app, *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def told(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-5_000:]

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server does not stop\n{self.told()}") from None
