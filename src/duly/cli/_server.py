"""`duly serve`: the app on the network; and what `duly dev` shares with it."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec

from duly._app import REQUEST_TIMEOUT, App, ASGIApp
from duly.cli._load import Loaded
from duly.cli._logs import LogFormat, log_failures, log_to_stderr
from duly.cli._problem import USAGE, CommandError
from duly.cli._serve import database_shown, say, say_stopping, until_stopped
from duly.cli._signals import stop_requested

__all__ = ["HOST", "PORT", "can_serve", "listen", "metrics_shown", "must_serve", "serve", "served", "url_of"]

HOST = "127.0.0.1"
PORT = 3210
"""Where Convex's own tools look for a server on this machine."""

_BACKLOG = 2_048
# It is taken, or only for root. All else that keeps a socket from listening is about the host.
_PORTS_FAULT = (errno.EADDRINUSE, errno.EACCES)
_HOST_HINT = f"--host is a name or an address of this machine: {HOST} for its own programs only, 0.0.0.0 for all"


async def serve(
    loaded: Loaded,
    asgi: ASGIApp,
    host: str,
    port: int,
    root_path: str,
    request_s: float,
    *,
    worker: bool,
    metrics_port: int | None,
    log_format: LogFormat,
) -> None:
    """Serves the app, and runs due functions if `worker`, until SIGTERM or SIGINT (rule A4)."""
    app = loaded.app
    log_to_stderr(log_format)
    app._observe(log_failures)
    with stop_requested() as stop, listen(host, port) as listening:
        async with (
            app if worker else app.client(),
            metrics_shown(app, metrics_port) as showing,
            served(app, asgi, listening, root_path, request_s) as serving,
        ):
            what = "runs due functions" if worker else "runs no due functions"
            say(f"serves {loaded.name} on {url_of(listening)}, {what}, on {database_shown(app)} (pid {os.getpid()})")
            await until_stopped(app, stop, *serving, *showing)
            say_stopping(app, "stopping", "; a second signal stops at once")
    say("stopped")


@asynccontextmanager
async def served(
    app: App,
    asgi: ASGIApp,
    listening: socket.socket,
    root_path: str = "",
    request_s: float = REQUEST_TIMEOUT.total_seconds(),
) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Serves inside the block; gives the tasks that do.

    At its end neither the server nor the executor takes anything new, and what is underway gets the time to drain.
    """
    from duly.server.listener import Listener  # noqa: PLC0415 (installed only if wanted)

    listener = Listener(asgi, root_path, request_s)
    serving = asyncio.ensure_future(listener.serve(sockets=[listening]))
    try:
        yield [serving]
    finally:
        listener.stop(app._drain.total_seconds())
        await asyncio.gather(serving, app._stop(app._drain))


@asynccontextmanager
async def metrics_shown(app: App, port: int | None) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Shows the app's metrics to whoever is on this machine, unless the port is None; gives the tasks that do.

    Raises:
        CommandError: It can't listen there, or what it takes is not installed.
    """
    if port is None:
        yield []
        return
    metrics = app._count()
    if metrics is None or not can_serve():
        raise CommandError("--metrics-port takes pip install 'duly[server,metrics]'", exit_code=USAGE)
    from duly.server.asgi import make_metrics_asgi  # noqa: PLC0415 (installed only if wanted)
    from duly.server.listener import Listener  # noqa: PLC0415

    with listen(HOST, port, option="--metrics-port") as listening:
        listener = Listener(make_metrics_asgi(metrics))
        serving = asyncio.ensure_future(listener.serve(sockets=[listening]))
        say(f"shows metrics on {url_of(listening)}/metrics")
        try:
            yield [serving]
        finally:
            listener.stop(0)
            await asyncio.gather(serving, return_exceptions=True)


def can_serve() -> bool:
    """Whether what it takes is installed."""
    return all(find_spec(name) is not None for name in ("jwt", "starlette", "uvicorn", "websockets"))


def must_serve() -> None:
    """Raises `CommandError` if what it takes is not installed."""
    if not can_serve():
        raise CommandError("duly serve takes pip install 'duly[server]'", exit_code=USAGE)


def listen(host: str, port: int | None, *, option: str = "--port") -> socket.socket:
    """A socket that listens.

    Args:
        host: A name or an address of this machine.
        port: 0 is one that is free; None is the usual one, or else one that is free.
        option: Which option gives the port.

    Raises:
        CommandError: It can't.
    """
    address = (host, PORT if port is None else port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server(address, family=family, backlog=_BACKLOG)
        # asyncio turns Nagle's algorithm off only on what calls itself TCP. With it, an answer's body waits until the
        # client has acknowledged the head, and clients take 40 ms for that.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that can't be asked for
        number = error.errno if isinstance(error, OSError) else None
        if port is None and number == errno.EADDRINUSE:
            return listen(host, 0)
        raise CommandError(
            f"can't listen on {host}, port {address[1]}: {getattr(error, 'strerror', None) or error}",
            hint=f"choose another port with {option}" if number in _PORTS_FAULT else _HOST_HINT,
            exit_code=USAGE,
        ) from None


def url_of(listening: socket.socket) -> str:
    """What to type in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
