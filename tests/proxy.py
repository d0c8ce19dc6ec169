"""A network that fails on request: a TCP proxy between a test's clients and the PostgreSQL server.

with Proxy(postgresql_url) as proxy:
    with psycopg.connect(proxy.url()) as connection:
        connection.execute("INSERT …")
        lost = proxy.lose_answer_to(b"COMMIT")
        connection.commit()  # raises OperationalError, and the row is there
    assert lost.hits == 1

It runs in a thread of its own, so the clients may be in this process or in others. It reads what is sent, which must
not be encrypted; its URLs say so. Every control has taken effect when it returns.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from tests.postgres import free_port

__all__ = ["Fault", "Proxy"]

Sender = Literal["client", "server"]
T = TypeVar("T")

PATIENCE = 30.0
CHUNK_BYTES = 65_536
CHUNKS_MAX = 64
MARKER_BYTES_MAX = 256
# PostgreSQL's ReadyForQuery outside of a transaction: the end of the answer to whatever ended one. In a pipeline,
# answers to what was sent before may come first; they end otherwise, since the transaction goes on.
TRANSACTION_ENDED = b"Z\x00\x00\x00\x05I"


class _Then(Enum):
    """What happens to the bytes with the marker, before the connection is cut."""

    DROP = "they are not passed on"
    PASS = "they are passed on"
    ANSWER = "they are passed on, and answered; the answer is not passed on"


@dataclass(eq=False)
class Fault:
    """What is to go wrong when a marker passes; made by a `Proxy`."""

    marker: bytes
    sender: Sender
    then: _Then
    times_left: int | None
    hits: int = 0
    """How often it happened: connections cut by it."""
    happened: threading.Event = field(default_factory=threading.Event)
    """Set when it happened for the first time."""

    def hit(self) -> None:
        self.hits += 1
        self.happened.set()


class _CutError(Exception):
    """Ends both directions of a connection."""


class Proxy:
    """Listens on loopback as long as its `with` block lasts, and passes every connection on to a server.

    Args:
        url: Where to: the URL of a server or a database.
    """

    def __init__(self, url: str) -> None:
        self.port = 0
        self._url = urlsplit(url)
        self._target = (socket.gethostbyname(self._url.hostname or "127.0.0.1"), self._url.port or 5432)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        # All that follows belongs to the thread.
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._delay = 0.0
        self._faults: list[Fault] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._listen())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._run(self._close())
        finally:
            self._end()

    def url(self, database: str | None = None) -> str:
        """The URL it was given, by way of the proxy; or that of another database on the same server."""
        user = self._url.netloc.rpartition("@")[0] or "postgres"
        path = self._url.path if database is None else f"/{database}"
        return f"postgresql://{user}@127.0.0.1:{self.port}{path}?sslmode=disable"

    # --- controls ---------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Resets all connections, and refuses new ones until `heal`."""

        async def refuse() -> None:
            await self._close()
            # Bound and not listening: connections are refused, and no other process gets the port.
            self._listener = _bound(self.port)

        self._run(refuse())

    def reset(self) -> None:
        """Resets all connections; new ones are welcome."""
        self._run(self._end_connections())

    def stall(self) -> None:
        """Passes nothing on, the end of a connection neither, until `heal`; what is sent meanwhile arrives then."""
        self._call(self._passing.clear)

    def delay(self, seconds: float) -> None:
        """Everything that arrives from now on is passed on so much later, in both directions, until `heal`."""

        def set_delay() -> None:
            self._delay = seconds

        self._call(set_delay)

    def heal(self) -> None:
        """Takes back all that was asked for; connections that were cut stay cut."""

        async def heal() -> None:
            self._faults.clear()
            self._delay = 0.0
            self._passing.set()
            if self._accepting is None:
                await self._listen()

        self._run(heal())

    def cut_before(self, marker: bytes, *, sender: Sender = "client", times: int | None = 1) -> Fault:
        """Resets a connection instead of passing on what contains the marker: the server never gets to see it.

        Args:
            marker: What to look for, in what is sent once this has returned.
            sender: Who sends it.
            times: How many connections to reset; None for all until `heal`.
        """
        return self._add(Fault(marker, sender, _Then.DROP, times))

    def cut_after(self, marker: bytes, *, sender: Sender = "client", times: int | None = 1) -> Fault:
        """Resets a connection after passing on what contains the marker: nobody knows whether it has been read."""
        return self._add(Fault(marker, sender, _Then.PASS, times))

    def lose_answer_to(self, marker: bytes, *, times: int | None = 1) -> Fault:
        """Passes on what contains the marker, waits until the server has ended the transaction, and resets the
        connection instead of passing on the answer: what the client asked for is done, and it does not know.
        """
        return self._add(Fault(marker, "client", _Then.ANSWER, times))

    # --- in the thread ----------------------------------------------------------------------------------------------

    def take_fault(self, sender: Sender, before: bytes, chunk: bytes) -> Fault | None:
        """The fault whose marker ends in this chunk, one time less to go."""
        for fault in self._faults:
            if fault.sender != sender or fault.times_left == 0:
                continue
            if _arrives(fault.marker, before, chunk):
                if fault.times_left is not None:
                    fault.times_left -= 1
                return fault
        return None

    async def until(self, time: float) -> None:
        """Waits until what is due at this time may pass."""
        left = time - self._loop.time()
        if left > 0:
            await asyncio.sleep(left)
        await self._passing.wait()

    def due(self) -> float:
        """When to pass on what has arrived now."""
        return self._loop.time() + self._delay

    async def _listen(self) -> None:
        while self._listener is None:
            self.port = free_port()
            try:
                self._listener = _bound(self.port)
            except OSError:
                continue
        self._listener.listen(128)
        self._accepting = self._loop.create_task(self._accept(self._listener))

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            accepted = self._loop.create_task(self._loop.sock_accept(listener))
            try:
                client, _ = await asyncio.shield(accepted)
            except asyncio.CancelledError:
                accepted.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    client, _ = await accepted  # it came at the same moment
                    client.close()
                raise
            connection = _Connection(self, client)
            task = self._loop.create_task(connection.run(self._target))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            task.add_done_callback(connection.close)  # also if it is cancelled before it begins

    async def _close(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._end_connections()

    async def _end_connections(self) -> None:
        ended = list(self._connections)
        for task in ended:
            task.cancel()
        if ended:
            await asyncio.wait(ended)

    # --- between the threads ----------------------------------------------------------------------------------------

    def _add(self, fault: Fault) -> Fault:
        assert 0 < len(fault.marker) <= MARKER_BYTES_MAX
        self._call(lambda: self._faults.append(fault))
        return fault

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        self._run(call())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class _Connection:
    """A client's connection, and the one to the server that it is passed on to."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = socket.socket()
        # What was said before the cut is not answered any more.
        self._hit: Fault | None = None
        for end in (self._client, self._server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self, target: tuple[str, int]) -> None:
        """Until both have ended it. Whatever else ends it resets it, on both sides."""
        loop = asyncio.get_running_loop()
        whole = False
        try:
            await loop.sock_connect(self._server, target)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass("client", self._client, self._server))
                tasks.create_task(self._pass("server", self._server, self._client))
            whole = True
        except* (OSError, _CutError):
            pass
        finally:
            for end in (self._client, self._server):
                if not whole:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self, _: object = None) -> None:
        self._client.close()
        self._server.close()

    async def _pass(self, sender: Sender, source: socket.socket, destination: socket.socket) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(source, chunks))
            tasks.create_task(self._send(sender, chunks, destination))

    async def _receive(self, source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        chunk = b"-"
        while chunk:
            chunk = await loop.sock_recv(source, CHUNK_BYTES)
            await chunks.put((self._proxy.due(), chunk))

    async def _send(
        self, sender: Sender, chunks: asyncio.Queue[tuple[float, bytes]], destination: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        before = b""
        while True:
            due, chunk = await chunks.get()
            await self._proxy.until(due)
            if not chunk:
                destination.shutdown(socket.SHUT_WR)
                return
            if self._hit is not None and sender != self._hit.sender:
                if self._hit.then is _Then.ANSWER and _arrives(TRANSACTION_ENDED, before, chunk):
                    self._hit.hit()
                    raise _CutError
            else:
                fault = self._proxy.take_fault(sender, before, chunk)
                if fault is not None:
                    self._prepare(fault)
                await loop.sock_sendall(destination, chunk)
                if fault is not None and fault.then is _Then.PASS:
                    fault.hit()
                    raise _CutError
            before = (before + chunk)[-MARKER_BYTES_MAX:]

    def _prepare(self, fault: Fault) -> None:
        """What a fault does before the bytes with its marker are passed on."""
        if fault.then is _Then.DROP:
            fault.hit()
            raise _CutError
        self._hit = fault


def _arrives(marker: bytes, before: bytes, chunk: bytes) -> bool:
    """Whether the chunk has the end of a marker, which may have begun in what passed before it."""
    return marker in before[max(0, len(before) - len(marker) + 1) :] + chunk


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except BaseException:
        listener.close()
        raise
    return listener
