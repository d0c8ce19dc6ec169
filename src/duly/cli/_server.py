"""`duly serve`: the app on the network; and what `duly dev` shares with it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec

from duly._app import App, ASGIApp
from duly.cli._load import Loaded
from duly.cli._problem import USAGE, CommandError
from duly.cli._serve import database_shown, log_to_stderr, say, say_stopping, until_stopped
from duly.cli._signals import stop_requested
from duly.cli._worker import log_failures

__all__ = ["HOST", "PORT", "can_serve", "free_port", "listen", "serve", "served", "url_of"]

HOST = "127.0.0.1"
PORT = 3210
"""Where Convex's own tools look for a server on this machine."""

_BACKLOG = 2_048


async def serve(loaded: Loaded, asgi: ASGIApp, host: str, port: int, root_path: str, *, worker: bool) -> None:
    """Serves the app, and runs due functions if `worker`, until SIGTERM or SIGINT (rule A4)."""
    app = loaded.app
    log_to_stderr()
    app._parts.observer = log_failures
    with stop_requested() as stop, listen(host, port) as listening:
        url = url_of(host, listening.getsockname()[1])
        async with app if worker else app.client(), served(app, asgi, listening, root_path) as serving:
            what = "runs due functions" if worker else "runs no due functions"
            say(f"serves {loaded.name} on {url}, {what}, on {database_shown(app)} (pid {os.getpid()})")
            await until_stopped(app, stop, *serving)
            say_stopping(app, "stopping", "; a second signal stops at once")
    say("stopped")


@asynccontextmanager
async def served(
    app: App, asgi: ASGIApp, listening: socket.socket, root_path: str = ""
) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Serves inside the block; gives the tasks that do.

    At its end neither the server nor the executor takes anything new, and what is underway gets the time to drain.
    """
    from duly.server.listener import Listener  # noqa: PLC0415 (installed only if wanted)

    listener = Listener(asgi, root_path)
    serving = asyncio.ensure_future(listener.serve(sockets=[listening]))
    try:
        yield [serving]
    finally:
        listener.stop(app._drain.total_seconds())
        await asyncio.gather(serving, app._stop(app._drain))


def can_serve() -> bool:
    """Whether what it takes is installed."""
    return all(find_spec(name) is not None for name in ("starlette", "uvicorn"))


def free_port(host: str) -> int:
    """The usual port, or another one where that is taken."""
    for port in (PORT, 0):
        try:
            with listen(host, port) as listening:
                return int(listening.getsockname()[1])
        except CommandError:
            if port == 0:
                raise
    raise AssertionError("the last one returns or raises")


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is one that is free.

    Raises:
        CommandError: It can't.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CommandError(
            f"can't listen on {url_of(host, port)}: {error.strerror or error}",
            hint="choose another one with --port",
            exit_code=USAGE,
        ) from None
