"""`duly dev`: keeps a child process that runs the app, and starts it anew when a file changes.

A process of its own, so that every start finds fresh modules. A pipe is all that ties the two: a byte in it asks the
child to make way for the next, its end asks it to stop, and it ends with this process, however that ends.
"""

import asyncio
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from rich.text import Text
from watchfiles import Change, DefaultFilter, PythonFilter, awatch

from duly._ground.clock import SystemClock
from duly.cli._child import RELOAD
from duly.cli._console import make_console, reveal
from duly.cli._load import locate
from duly.cli._problem import USAGE, relative
from duly.cli._server import PORT, can_serve, listen
from duly.cli._signals import stop_requested

__all__ = ["dev"]

_RELOAD_S = 8.0
_SHOWN_MAX = 3

# Deaf to Ctrl-C from its first line: the terminal sends it to both, and the parent passes on what it means.
_CHILD = "import signal; signal.signal(signal.SIGINT, lambda *_: None); import duly.cli._child as child; child.main()"

_Changes = set[tuple[Change, str]]


class _UsersCode(PythonFilter):
    ignore_dirs = (*DefaultFilter.ignore_dirs, "venv", "site-packages")


async def dev(reference: str, database: str | None, host: str, port: int | None) -> int:
    """Runs until SIGTERM or Ctrl-C. Returns the exit code."""
    name, _ = locate(reference)
    # Folders that this user may not read are nobody's business here.
    os.environ.setdefault("WATCHFILES_IGNORE_PERMISSION_DENIED", "1")
    # Opened here, once: requests that come during a reload wait, and find the app at the same port.
    listening = listen(host, port) if os.name == "posix" and can_serve() else None
    if listening is not None and port is None and (found := listening.getsockname()[1]) != PORT:
        make_console().print(Text(f"port {PORT} is taken, so the server listens on port {found}", "yellow"))
    child = _Child(reference, database, listening)
    with stop_requested(child.kill) as stop:
        changes = awatch(*_folders(name), watch_filter=_UsersCode())
        try:
            return await _keep_running(child, changes, stop)
        finally:
            child.kill()
            await changes.aclose()


async def _keep_running(child: "_Child", changes: AsyncGenerator[_Changes, None], stop: asyncio.Event) -> int:
    console = make_console()
    changed = asyncio.ensure_future(_next(changes))
    stopped = asyncio.ensure_future(stop.wait())
    # The watch begins before the child reads its files, so that no change falls between the two.
    await SystemClock().sleep(0)
    first = True
    try:
        while True:
            await child.start()
            ended = asyncio.ensure_future(child.wait())
            await asyncio.wait({changed, stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not stopped.done():
                if first and ended.result() == USAGE:
                    return USAGE
                console.print(Text(f"{_how_it_ended(ended.result())}waiting for a change …", "yellow"))
                await asyncio.wait({changed, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                console.print(Text(f"\nreloading: {_names(changed.result())}", "bold yellow"))
                changed = asyncio.ensure_future(_next(changes))
                await child.stop(RELOAD, within_s=_RELOAD_S)
            if stopped.done():
                await child.stop()
                console.print(Text("stopped", "dim"))
                return 0
            first = False
    finally:
        for task in (changed, stopped):
            task.cancel()
        await asyncio.wait({changed, stopped})


async def _next(changes: AsyncGenerator[_Changes, None]) -> _Changes:
    return await anext(changes)


class _Child:
    """The process that runs the app, over and over."""

    def __init__(self, reference: str, database: str | None, listening: socket.socket | None) -> None:
        self._arguments = [reference, database or ""]
        self._passed = () if listening is None else (listening.fileno(),)
        self._process: asyncio.subprocess.Process | None = None
        self._pipe: int | None = None

    async def start(self) -> None:
        theirs, self._pipe = os.pipe()
        posix = os.name == "posix"
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", _CHILD, *self._arguments, str(theirs if posix else 0), *map(str, self._passed)),
                stdin=None if posix else theirs,
                pass_fds=(theirs, *self._passed) if posix else (),
            )
        finally:
            os.close(theirs)

    async def wait(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, word: bytes = b"", *, within_s: float | None = None) -> None:
        """Asks it to end, and waits until it has; when the time is up it has to."""
        assert self._process is not None
        if self._pipe is not None:
            with suppress(BrokenPipeError):
                os.write(self._pipe, word)
            os.close(self._pipe)
            self._pipe = None
        timer = SystemClock().call_later(within_s, self.kill) if within_s is not None else None
        await self._process.wait()
        if timer is not None:
            timer.cancel()

    def kill(self) -> None:
        """Ends it at once. May be called from a signal handler."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()


def _folders(name: str) -> list[Path]:
    """What to watch: the current folder, and the app's own where that is elsewhere."""
    here = Path.cwd()
    folders = [here]
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).resolve().parent
        if home.is_dir() and not home.is_relative_to(here):
            folders.append(home)
    return folders


def _names(changes: _Changes) -> str:
    names = sorted({relative(path) for _, path in changes})
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    return reveal(f"{', '.join(names[:_SHOWN_MAX])}{more} changed")


def _how_it_ended(code: int) -> str:
    """For an end that has not explained itself."""
    if code < 0:
        return f"the app was ended by {signal.Signals(-code).name}; "
    return f"the app ended by itself with exit code {code}; " if code not in (1, USAGE) else ""
