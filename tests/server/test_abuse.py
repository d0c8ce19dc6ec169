"""Clients that begin things and do not end them, at a real server: each is cut off, and others are served meanwhile."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest

import duly
from duly.cli._server import listen
from duly.server import listener
from duly.server.listener import Listener
from tests.support import eventually

REQUEST_S = 0.5
PATIENCE_S = 60.0
ASK = {"path": "app:add", "args": {"a": 1}}
UPGRADE = (
    b"GET /api/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def post(length: int, media_type: str = "application/json", path: str = "/api/query") -> bytes:
    """The head of a request that is to be followed by so many bytes."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n".encode()


class Server:
    """A server, as `duly serve` runs it."""

    def __init__(self, listener: Listener, port: int) -> None:
        self.listener = listener
        self.port = port

    @property
    def connections(self) -> list[Any]:
        return list(self.listener.server_state.connections)

    async def connect(self, *, reads: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection; of a client that does not read, the buffers are small."""
        made = socket.socket()
        if not reads:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=made, limit=1_024)

    async def serves_others(self) -> None:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            answer = await client.post(f"http://127.0.0.1:{self.port}/api/query", json=ASK)
        assert answer.json() == {"status": "success", "value": 2}


Serving = Callable[..., Any]


@pytest.fixture
def serving(app: duly.App) -> Serving:
    @asynccontextmanager
    async def serving(request_s: float = REQUEST_S, **options: Any) -> AsyncIterator[Server]:
        asgi = app.asgi(request_timeout=timedelta(seconds=request_s), **options)
        with listen("127.0.0.1", 0) as listening:
            async with app.client():
                server = Server(Listener(asgi, request_s=request_s), listening.getsockname()[1])
                running = asyncio.ensure_future(server.listener.serve(sockets=[listening]))
                try:
                    yield server
                finally:
                    server.listener.stop(0)
                    await running

    return serving


@asynccontextmanager
async def trickling(writer: asyncio.StreamWriter, byte: bytes) -> AsyncIterator[None]:
    """Sends a byte now and then, as long as it can."""

    async def trickle() -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(byte)
                await writer.drain()
                await asyncio.sleep(0.02)

    task = asyncio.ensure_future(trickle())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        writer.transport.abort()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection."""
    got = b""

    async def read() -> None:
        nonlocal got
        with suppress(ConnectionError):
            while more := await reader.read(65_536):
                got += more

    await asyncio.wait_for(read(), PATIENCE_S)
    return got


async def until_ended(server: Server) -> None:
    async def ended() -> bool:
        return not server.connections

    await eventually(ended, deadline_s=PATIENCE_S)


async def test_answers_are_sent_without_waiting_for_acknowledgements(serving: Serving) -> None:
    async with serving() as server:
        reader, writer = await server.connect()
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        (connection,) = server.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()


@pytest.mark.parametrize(
    ("sent", "byte"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", b"x", id="head"),
        pytest.param(UPGRADE + b"X: ", b"x", id="handshake"),
    ],
)
async def test_a_head_that_does_not_arrive_is_not_waited_for(serving: Serving, sent: bytes, byte: bytes) -> None:
    async with serving() as server:
        reader, writer = await server.connect()
        writer.write(sent)
        async with trickling(writer, byte):
            await server.serves_others()
            assert await rest(reader) == b""
        await until_ended(server)


async def test_a_second_head_that_does_not_arrive_is_not_waited_for(serving: Serving) -> None:
    async with serving() as server:
        reader, writer = await server.connect()
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX: ")
        async with trickling(writer, b"x"):
            assert (await rest(reader)).count(b'{"status":"ok"}') == 1
        await until_ended(server)


async def test_a_body_that_does_not_arrive_is_answered_and_gives_its_place_back(serving: Serving) -> None:
    async with serving(max_requests=1) as server:
        reader, writer = await server.connect()
        writer.write(post(10_000))
        async with trickling(writer, b" "):
            answer = await rest(reader)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head.lower()
        assert json.loads(body) == {"code": "RequestTimeout", "message": "the request was not here after 0.5 s"}
        await server.serves_others()
        await until_ended(server)


async def test_a_body_that_arrives_slowly_but_in_time_is_read(serving: Serving) -> None:
    async with serving(PATIENCE_S) as server:
        reader, writer = await server.connect()
        body = json.dumps(ASK).encode()
        writer.write(post(len(body)))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("media_type", ["text/plain", "application/json"])
async def test_the_rest_of_a_body_that_is_refused_is_not_waited_for(serving: Serving, media_type: str) -> None:
    """The first is refused by its head, the second for its size."""
    async with serving(max_body=100) as server:
        reader, writer = await server.connect()
        writer.write(post(10_000, media_type))
        async with trickling(writer, b" "):
            assert (await rest(reader)).startswith(b"HTTP/1.1 4")
        await until_ended(server)


async def test_an_answer_that_is_not_taken_is_dropped(serving: Serving) -> None:
    async with serving() as server:
        _, writer = await server.connect(reads=False)
        body = json.dumps({"path": "app:echo", "args": {"value": "x" * (8 << 20)}}).encode()
        writer.write(post(len(body)) + body)
        await writer.drain()

        async def unsent() -> int:
            return sum(connection.transport.get_write_buffer_size() for connection in server.connections)

        assert await eventually(unsent, deadline_s=PATIENCE_S) > 1 << 20
        await server.serves_others()
        await until_ended(server)
        writer.transport.abort()


# --- WebSockets -----------------------------------------------------------------------------------------------------


def frame(content: bytes, promised: int = 0) -> bytes:
    """A frame of text, masked with zeros; or the beginning of one that is to be longer."""
    return b"\x81\xff" + max(len(content), promised).to_bytes(8, "big") + bytes(4) + content


async def upgraded(server: Server, *, reads: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await server.connect(reads=reads)
    writer.write(UPGRADE + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    session = {"sessionId": "6c1b2f3e-6b0a-4a53-9d0c-7f6f0b1a2c3d", "connectionCount": 0, "lastCloseReason": None}
    writer.write(frame(json.dumps({"type": "Connect", **session}).encode()))
    return reader, writer


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PING_S", 0.2)
    monkeypatch.setattr(listener, "_PONG_S", 0.5)


@pytest.mark.usefixtures("_impatient")
async def test_a_frame_that_does_not_end_ends_the_connection(serving: Serving) -> None:
    async with serving() as server:
        reader, writer = await upgraded(server)
        writer.write(frame(b"{", promised=1 << 20))
        async with trickling(writer, b" "):
            await server.serves_others()
            assert b"keepalive ping timeout" in await rest(reader)
        await until_ended(server)


async def test_a_frame_that_is_too_long_is_refused_by_its_head(serving: Serving) -> None:
    async with serving() as server:
        reader, writer = await upgraded(server)
        writer.write(frame(b"{", promised=1 << 30))
        assert (1009).to_bytes(2, "big") in await rest(reader)
        writer.close()


@pytest.mark.usefixtures("_impatient")
async def test_who_does_not_read_a_websocket_is_cut_off_with_all_that_is_unsent(serving: Serving) -> None:
    async with serving() as server:
        _, writer = await upgraded(server, reads=False)
        add = {"type": "Add", "queryId": 0, "udfPath": "app:echo", "args": [{"value": "x" * (8 << 20)}]}
        asked = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add]}
        writer.write(frame(json.dumps(asked).encode()))
        await server.serves_others()
        await until_ended(server)
        writer.transport.abort()


def test_a_deadline_is_positive() -> None:
    with pytest.raises(ValueError, match="request_timeout is longer than nothing"):
        duly.App(__name__).asgi(request_timeout=timedelta(0))
