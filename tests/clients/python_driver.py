"""The Python clients as a process, which understands the commands of `driver.mjs`: see there.

A process of its own, because a call of the WebSocket client holds the interpreter's lock until it is answered; one
command is carried out after the other.
"""

import asyncio
import sys
from typing import Any

from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexHttpClient

from tests.clients.values import decode, dumps, encode, loads


class Commands:
    """What it can be told to do; each command is a method."""

    def __init__(self) -> None:
        self._clients: dict[int, Any] = {}
        self._following: dict[int, asyncio.Task[None]] = {}

    def open(self, client: int, url: str, options: dict[str, Any]) -> None:
        assert not options, options
        self._clients[client] = ConvexClient(url)

    def openHttp(self, client: int, url: str) -> None:
        self._clients[client] = ConvexHttpClient(url)

    def query(self, client: int, path: str, args: Any) -> Any:
        return from_convex(self._clients[client].query(path, to_convex(args)))

    def mutation(self, client: int, path: str, args: Any) -> Any:
        return from_convex(self._clients[client].mutation(path, to_convex(args)))

    def action(self, client: int, path: str, args: Any) -> Any:
        return from_convex(self._clients[client].action(path, to_convex(args)))

    def subscribe(self, client: int, subscription: int, path: str, args: Any) -> None:
        values = self._clients[client].subscribe(path, to_convex(args))
        self._following[subscription] = asyncio.create_task(follow(subscription, values))

    def unsubscribe(self, client: int, subscription: int) -> None:
        self._following.pop(subscription).cancel()

    def signIn(self, client: int, token: str) -> None:
        self._clients[client].set_auth(token)

    def signOut(self, client: int) -> None:
        self._clients[client].clear_auth()

    def setAdminKey(self, client: int, key: str, identity: None) -> None:
        self._clients[client].set_admin_auth(key)


async def follow(subscription: int, values: Any) -> None:
    while True:
        try:
            say({"event": subscription, "value": from_convex(await anext(values))})
        except Exception as error:  # noqa: BLE001 (whatever the client raises is what the test asks for)
            say({"event": subscription, "error": failure_of(error)})


async def serve() -> None:
    reader = asyncio.StreamReader(limit=64 * 2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    commands = Commands()
    async for line in reader:
        message = loads(line)
        number = message.pop("id")
        try:
            value = getattr(commands, message.pop("command"))(**message)
            say({"id": number, "value": value})
        except Exception as error:  # noqa: BLE001 (the same)
            say({"id": number, "error": failure_of(error)})
        await asyncio.sleep(0)  # to those who follow


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(f"{dumps(message)}\n")
    sys.stdout.flush()


def failure_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, ConvexError):
        return {"message": str(error), "data": from_convex(error.data)}
    return {"message": str(error)}


def to_convex(value: Any) -> Any:
    return _with_ints(decode(value))


def from_convex(value: Any) -> Any:
    return encode(_without_ints(value))


def _with_ints(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return ConvexInt64(value)
        case list():
            return [_with_ints(item) for item in value]
        case dict():
            return {name: _with_ints(field) for name, field in value.items()}
        case _:
            return value


def _without_ints(value: Any) -> Any:
    match value:
        case ConvexInt64():
            return value.value
        case list():
            return [_without_ints(item) for item in value]
        case dict():
            return {name: _without_ints(field) for name, field in value.items()}
        case _:
            return value


if __name__ == "__main__":
    asyncio.run(serve())
