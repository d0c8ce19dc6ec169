"""A client of the sync protocol in the server's own process: it sends and is sent messages as they are on the wire."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from duly._app import ASGIApp

__all__ = ["ClosedError", "Watching", "Wire", "wired"]

PATIENCE_S = 60.0


class ClosedError(Exception):
    """The server has closed the connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Wire:
    """One connection. `reads` is set; clear it for a client that reads nothing."""

    def __init__(
        self, asgi: ASGIApp, path: str = "/api/1.48.0/sync", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.unread: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_server.put_nowait({"type": "websocket.connect"})
        self.closed: ClosedError | None = None
        self.session = str(uuid4())
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "ws",
            "query_string": b"",
            "headers": [*headers],
            "subprotocols": [],
        }
        self.served = asyncio.ensure_future(asgi(scope, self._to_server.get, self._sent))

    async def _sent(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self.closed = ClosedError(message.get("code", 1000), message.get("reason") or "")
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": self.closed.code})
        if message["type"] == "websocket.send":
            await self.reads.wait()
        self.unread.put_nowait(message)

    # What a client does.

    def send(self, kind: str, **fields: Any) -> None:
        self.send_text(json.dumps({"type": kind, **fields}))

    def send_text(self, text: str) -> None:
        self._to_server.put_nowait({"type": "websocket.receive", "text": text})

    def send_bytes(self, content: bytes) -> None:
        self._to_server.put_nowait({"type": "websocket.receive", "bytes": content})

    def connect(self, **fields: Any) -> None:
        self.send("Connect", **{"sessionId": self.session, "connectionCount": 0, "lastCloseReason": None} | fields)

    def add(self, id: int, path: str, version: int = 1, **args: Any) -> None:
        """Adds a query, as the step of the query set to `version`."""
        add = {"type": "Add", "queryId": id, "udfPath": path, "args": [args]}
        self.send("ModifyQuerySet", baseVersion=version - 1, newVersion=version, modifications=[add])

    def authenticate(self, base: int, subject: str | None, key: str = "") -> None:
        """As an admin who acts as a user, or as nobody."""
        if subject is None:
            self.send("Authenticate", baseVersion=base, tokenType="None")
        else:
            user = {"issuer": "https://id.example.com", "subject": subject}
            self.send("Authenticate", baseVersion=base, tokenType="Admin", value=key, impersonating=user)

    def mutate(self, request: int, path: str, **args: Any) -> None:
        self.send("Mutation", requestId=request, udfPath=path, args=[args])

    async def message(self) -> dict[str, Any]:
        """The next one that is no ping. Raises `ClosedError`."""
        while True:
            message = await asyncio.wait_for(self.unread.get(), PATIENCE_S)
            if message["type"] == "websocket.close":
                assert self.closed is not None, "it was noted"
                raise self.closed
            if message["type"] == "websocket.send":
                told: dict[str, Any] = json.loads(message["text"])
                if told["type"] != "Ping":
                    return told

    async def message_of(self, kind: str) -> dict[str, Any]:
        while (message := await self.message())["type"] != kind:
            pass
        return message

    async def until_closed(self) -> ClosedError:
        try:
            while True:
                await self.message()
        except ClosedError as closed:
            return closed

    async def leave(self) -> None:
        """Goes away; returns when the server is done with it."""
        if self.closed is None:
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.reads.set()
        await asyncio.wait_for(self.served, PATIENCE_S)


@asynccontextmanager
async def wired(asgi: ASGIApp, path: str = "/api/1.48.0/sync") -> AsyncIterator[Wire]:
    """A connection for as long."""
    wire = Wire(asgi, path)
    try:
        yield wire
    finally:
        with suppress(ClosedError):
            await wire.leave()


class Watching:
    """What a client believes, as its messages make it, and whether they may come as they do."""

    def __init__(self) -> None:
        self.version: dict[str, Any] = {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
        self.values: dict[int, Any] = {}
        self.awaited: list[int] = []
        self.transitions = 0

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "MutationResponse" and message["success"]:
            self.awaited.append(_moment(message["ts"]))
        if message["type"] == "Transition":
            assert message["startVersion"] == self.version
            before = _moment(self.version["ts"])
            assert _moment(message["endVersion"]["ts"]) >= max([before, *self.awaited])
            self.awaited.clear()
            self.version = message["endVersion"]
            for change in message["modifications"]:
                if change["type"] == "QueryRemoved":
                    self.values.pop(change["queryId"], None)
                else:
                    self.values[change["queryId"]] = change.get("value")
            self.transitions += 1


def _moment(ts: str) -> int:
    return int.from_bytes(base64.b64decode(ts), "little")
