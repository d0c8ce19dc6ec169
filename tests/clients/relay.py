"""A network between WebSocket clients and the server that is watched, and fails on request.

async with Relay(server.url) as relay:
    client = await driver.open(relay.url)
    lost = relay.cut_at("MutationResponse", "server", passed_on=False)
    await client.mutation("chat:send", {…})     # done, and answered to nobody: the client comes back and asks again
    assert lost.is_set()

`tests.proxy` knows bytes. Here what counts is messages, and clients mask theirs, so that no bytes can be looked for.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event

__all__ = ["Message", "Relay", "Sender"]

Sender = Literal["client", "server"]


@dataclass(frozen=True)
class Message:
    """What has passed."""

    connection: int
    """Which connection it passed on; 0 for the first."""
    sender: Sender
    content: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.content["type"])


@dataclass
class _Cut:
    type: str
    sender: Sender
    passed_on: bool
    left: int
    happened: asyncio.Event = field(default_factory=asyncio.Event)


class Relay:
    """Listens on loopback as long as its `async with` block lasts, and passes every connection on to a server.

    Args:
        url: The server's.
    """

    def __init__(self, url: str) -> None:
        self.url = ""
        self.messages: list[Message] = []
        """All that arrived here, also what was not passed on."""
        self.connections = 0
        self.pings = 0
        """How many pings of the WebSocket's own the server has sent."""
        self._target = url
        self._open: set[ServerConnection] = set()
        self._cuts: list[_Cut] = []
        self._passing = asyncio.Event()
        self._passing.set()

    async def __aenter__(self) -> Self:
        self._server = await serve(self._relay, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None)
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note("\n".join(["The last that passed:", *map(str, self.messages[-12:])]))
        self.heal()
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def of(self, sender: Sender, *types: str, connection: int | None = None) -> list[dict[str, Any]]:
        """The messages of these types that one side has sent, first first."""
        return [
            message.content
            for message in self.messages
            if message.sender == sender
            and message.type in types
            and (connection is None or message.connection == connection)
        ]

    def cut(self) -> None:
        """Cuts all connections; new ones are welcome."""
        for connection in self._open:
            connection.transport.abort()

    def cut_at(self, type: str, sender: Sender, *, passed_on: bool, nth: int = 1) -> asyncio.Event:
        """Cuts a connection when a message of this type arrives here.

        Args:
            type, sender: Which message.
            passed_on: Whether it is the last that passes, or the first that doesn't.
            nth: Which of those that arrive from now on; the first by default.

        Returns:
            Set once it has happened.
        """
        cut = _Cut(type, sender, passed_on, nth)
        self._cuts.append(cut)
        return cut.happened

    def stall(self) -> None:
        """Passes nothing on until `heal`; what is sent meanwhile arrives then."""
        self._passing.clear()

    def heal(self) -> None:
        """Passes on again."""
        self._passing.set()

    def count_ping(self) -> None:
        self.pings += 1

    async def _relay(self, client: ServerConnection) -> None:
        assert client.request is not None
        number = self.connections
        self.connections += 1
        self._open.add(client)
        headers = {name: client.request.headers[name] for name in ("Convex-Client",) if name in client.request.headers}
        url = f"{self._target.replace('http', 'ws', 1)}{client.request.path}"
        try:
            async with (
                connect(
                    url,
                    additional_headers=headers,
                    compression=None,
                    max_size=None,
                    max_queue=1,  # while nothing is passed on, nothing is read
                    ping_interval=None,
                    create_connection=_counting(self.count_ping),
                ) as server,
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(self._pass(number, "client", client, server))
                tasks.create_task(self._pass(number, "server", server, client))
        except* (OSError, ConnectionClosed):
            client.transport.abort()
        finally:
            self._open.discard(client)

    async def _pass(self, number: int, sender: Sender, source: Connection, destination: Connection) -> None:
        """Passes on what one side sends, and that it ends."""
        try:
            while True:
                text = await source.recv(decode=True)
                message = Message(number, sender, json.loads(text))
                self.messages.append(message)
                await self._passing.wait()
                cut = self._cut_by(message)
                if cut is None or cut.passed_on:
                    await destination.send(text)
                if cut is not None:
                    cut.happened.set()
                    source.transport.abort()
                    destination.transport.abort()
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise
            # 1005 says that there was no code, and can't be sent.
            code = CloseCode.NORMAL_CLOSURE if closed.rcvd.code == CloseCode.NO_STATUS_RCVD else closed.rcvd.code
            await destination.close(code, closed.rcvd.reason)

    def _cut_by(self, message: Message) -> _Cut | None:
        due = None
        for cut in self._cuts:
            if (cut.type, cut.sender) == (message.type, message.sender):
                cut.left -= 1
                due = cut if cut.left == 0 else due
        return due


def _counting(count: Callable[[], None]) -> type[ClientConnection]:
    """A kind of connection that tells of each ping it gets, beside answering it."""

    class CountingConnection(ClientConnection):
        def process_event(self, event: Event) -> None:
            if isinstance(event, Frame) and event.opcode is Opcode.PING:
                count()
            super().process_event(event)

    return CountingConnection
