"""The child process of `duly dev`: runs the app until its parent says so, and prints what happens."""

import asyncio
import os
import signal
import socket
import sys
import threading
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from duly.cli._console import line_by_line, make_console, reveal
from duly.cli._elsewhere import Elsewhere
from duly.cli._events import EventLines
from duly.cli._functions import function_lines
from duly.cli._load import Loaded, load_app
from duly.cli._logs import log_to_stderr
from duly.cli._problem import perform, problems_shown
from duly.cli._serve import database_shown, say_stopping, until_stopped
from duly.cli._server import served, url_of
from duly.cli._version import duly_version

__all__ = ["RELOAD", "main"]

RELOAD = b"r"
"""What the parent writes when a file has changed."""

_RELOAD_DRAIN = timedelta(seconds=5)
_LABEL = 11


def main() -> None:
    """Arguments: the app, a database URL or nothing, the number of the pipe's end, that of a socket if it serves."""
    reference, database, pipe, *sockets = sys.argv[1:]
    line_by_line()
    with problems_shown(reference, database):
        listening = socket.socket(fileno=int(sockets[0])) if sockets else None
        perform(_run(load_app(reference, database or None), listening, int(pipe)))


async def _run(loaded: Loaded, listening: socket.socket | None, pipe: int) -> None:
    app = loaded.app
    console = make_console()
    log_to_stderr()
    app._parts.strict = True
    elsewhere = Elsewhere(EventLines(console))
    app._observe(elsewhere)
    stop = asyncio.Event()
    words: list[bytes] = []
    _listen(pipe, words, stop)
    _print_header(loaded, console, listening)
    await app._migrate()
    serves = nullcontext(()) if listening is None else served(app, app.asgi(dev=True), listening)
    async with app, serves as serving:
        watching = asyncio.ensure_future(elsewhere.watch(app))
        try:
            await until_stopped(app, stop, *serving)
        finally:
            watching.cancel()
        if words == [RELOAD]:
            # Whoever saves a file does not want to wait for long.
            app._drain = min(app._drain, _RELOAD_DRAIN)
            say_stopping(app, "reloading", "")
        else:
            say_stopping(app, "stopping", "; Ctrl-C stops at once")


def _listen(pipe: int, words: list[bytes], stop: asyncio.Event) -> None:
    """Sets the event at the parent's word, at its end, and at SIGTERM. Ctrl-C is the parent's to hear."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        words.append(os.read(pipe, 1))
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=hear, name="duly dev", daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop.set))
    signal.signal(signal.SIGINT, lambda *_: None)


def _print_header(loaded: Loaded, console: Console, listening: socket.socket | None) -> None:
    app = loaded.app
    facts = [("app", loaded.name), ("database", database_shown(app))]
    if app.database.endswith(":memory:"):
        facts.append(("", "in memory: it is gone after each reload"))
    missing = "no clients; that takes pip install 'duly[server]'"
    facts.append(("serves", missing if listening is None else url_of(listening)))
    facts.append(("functions", str(len(app._registry.functions))))
    console.print(Text.assemble(("duly ", "bold"), (duly_version(), "bold")))
    for label, value in facts:
        console.print(Text.assemble((f"  {label:<{_LABEL}}", "dim"), reveal(value)))
    for line in function_lines(app):
        console.print(Text(" " * (_LABEL + 2)).append_text(line))
    console.print(Text(f"  watching {Path.cwd()}; Ctrl-C stops\n", "dim"))
