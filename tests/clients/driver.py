"""Published clients for tests: each driver is a process that holds some, and is told what they are to do.

async with npm_driver() as driver:
    client = await driver.open(server.url)
    messages = await client.subscribe("chat:history", {"channel": "a"})
    assert await anext(messages) == []
    await client.mutation("chat:send", {"channel": "a", "body": "hello"})
    assert [message["body"] for message in await anext(messages)] == ["hello"]
"""

import asyncio
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.clients.packages import NODE, chromium, packages
from tests.clients.values import decode, dumps, encode, loads

__all__ = [
    "Client",
    "ClientError",
    "Driver",
    "RefusedError",
    "Subscription",
    "browser_driver",
    "npm_driver",
    "python_driver",
]

HERE = Path(__file__).parent
PATIENCE_S = 90.0
LINE_BYTES_MAX = 64 * 2**20


class ClientError(Exception):
    """What a client raised.

    Args:
        message: Its words.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RefusedError(ClientError):
    """A ConvexError: the function itself refused, and says why.

    Args:
        data: What it handed to its caller.
    """

    def __init__(self, message: str, data: Any) -> None:
        super().__init__(message)
        self.data = data


class Driver:
    """A process with any number of one library's clients.

    Args:
        command: What starts it.
    """

    def __init__(self, *command: str | Path) -> None:
        self.log: list[str] = []
        """What its clients would have written to the console."""
        self.uncaught: list[str] = []
        """What they threw where nobody can catch it: npm's way to say that the server broke the protocol."""
        self._command = command
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._subscriptions: dict[int, Subscription] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading
        if error is not None and self.log:
            error.add_note("\n".join(["The clients wrote:", *self.log[-20:]]))
        if error is None:
            assert not self.uncaught, "\n".join(self.uncaught)

    async def open(self, url: str, **options: Any) -> "Client":
        """A client over WebSocket, with options as the library names them."""
        client = Client(self, next(self._numbers))
        await client.ask("open", url=url, options=options)
        return client

    async def open_http(self, url: str) -> "Client":
        """A client over HTTP."""
        client = Client(self, next(self._numbers))
        await client.ask("openHttp", url=url)
        return client

    async def ask(self, command: str, **parameters: Any) -> Any:
        """Has one of its commands carried out, and returns the answer.

        Raises:
            ClientError: What the client raised.
        """
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(f"{dumps({'id': number, 'command': command, **parameters})}\n".encode())
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except TimeoutError as error:
            error.add_note(f"no answer to {command} {parameters}")
            raise

    def subscription(self, client: "Client") -> "Subscription":
        subscription = Subscription(client, next(self._numbers))
        self._subscriptions[subscription.number] = subscription
        return subscription

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            match loads(line):
                case {"log": str(words)}:
                    self.log.append(words)
                case {"uncaught": str(words)}:
                    self.uncaught.append(words)
                case {"event": number, **outcome}:
                    self._subscriptions[int(number)].tell(_result_of(outcome))
                case {"id": number, **outcome}:
                    _settle(self._answers.pop(int(number)), _result_of(outcome))
                case message:
                    raise AssertionError(f"a driver said {message!r}")
        for answer in self._answers.values():
            _settle(answer, ClientError("the driver has ended"))


class Client:
    """One client. What it returns is decoded: a number is a float, a bigint an int."""

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self._number = number

    async def ask(self, command: str, **parameters: Any) -> Any:
        return await self.driver.ask(command, client=self._number, **parameters)

    async def query(self, path: str, args: dict[str, Any] | None = None) -> Any:
        return await self.ask("query", path=path, args=encode(args or {}))

    async def consistent_query(self, path: str, args: dict[str, Any] | None = None) -> Any:
        return await self.ask("consistentQuery", path=path, args=encode(args or {}))

    async def action(self, path: str, args: dict[str, Any] | None = None) -> Any:
        return await self.ask("action", path=path, args=encode(args or {}))

    async def mutation(
        self,
        path: str,
        args: dict[str, Any] | None = None,
        *,
        appends: tuple[str, dict[str, Any], Any] | None = None,
    ) -> Any:
        """Calls a mutation.

        Args:
            path, args: Which, and with what.
            appends: An optimistic update: a query's path and arguments, and what to append to its result meanwhile.
        """
        if appends is None:
            return await self.ask("mutation", path=path, args=encode(args or {}))
        query, query_args, value = appends
        update = {"path": query, "args": encode(query_args), "value": encode(value)}
        return await self.ask("mutation", path=path, args=encode(args or {}), appends=update)

    async def subscribe(self, path: str, args: dict[str, Any] | None = None) -> "Subscription":
        subscription = self.driver.subscription(self)
        await self.ask("subscribe", subscription=subscription.number, path=path, args=encode(args or {}))
        return subscription

    async def paginate(self, path: str, args: dict[str, Any], page_size: int) -> "Subscription":
        """Subscribes page by page; each value is `{"results": […], "status": "CanLoadMore"}` or the like."""
        subscription = self.driver.subscription(self)
        await self.ask("paginate", subscription=subscription.number, path=path, args=encode(args), pageSize=page_size)
        return subscription

    async def set_auth(self, *tokens: str) -> "Subscription":
        """Signs in, and is asked again before each token ends.

        Args:
            tokens: What the client is given when it asks for a token, in turn; after the last it gets none.

        Returns:
            The story of it: "asked for a token", "authenticated" and so on.
        """
        story = self.driver.subscription(self)
        await self.ask("setAuth", subscription=story.number, tokens=list(tokens))
        return story

    async def sign_in(self, token: str) -> None:
        """Has one token, and no other when that ends."""
        await self.ask("signIn", token=token)

    async def sign_out(self) -> None:
        await self.ask("signOut")

    async def set_admin_key(self, key: str, identity: dict[str, Any] | None = None) -> None:
        """Is an admin; with an identity, one who acts as that user."""
        await self.ask("setAdminKey", key=key, identity=identity)

    async def state(self) -> dict[str, Any]:
        """The state of its connection."""
        state: dict[str, Any] = await self.ask("state")
        return state

    async def close(self) -> None:
        await self.ask("close")


class Subscription:
    """What a client is told, one thing after the other: `await anext(subscription)`."""

    def __init__(self, client: Client, number: int) -> None:
        self.seen: list[Any] = []
        """Everything so far; an error it was told of is one of the values."""
        self.number = number
        self._client = client
        self._untaken: asyncio.Queue[Any] = asyncio.Queue()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            value = await self._untaken.get()
        if isinstance(value, ClientError):
            raise value
        return value

    async def until(self, look: Callable[[Any], bool]) -> Any:
        """The first of the next values that `look` is true of."""
        async for value in self:
            if look(value):
                return value
        raise AssertionError("a subscription does not end")

    def tell(self, value: Any) -> None:
        self.seen.append(value)
        self._untaken.put_nowait(value)

    async def load_more(self, count: int) -> None:
        await self._client.driver.ask("loadMore", subscription=self.number, count=count)

    async def stop(self) -> None:
        await self._client.ask("unsubscribe", subscription=self.number)


def npm_driver(*flags: str) -> Driver:
    """The clients of the npm package, in Node."""
    return Driver(NODE, *flags, HERE / "driver.mjs", packages())


def browser_driver(*site: Path) -> Driver:
    """A browser with `page.jsx`, or with the files of a folder. It has commands of its own: see `browser.mjs`."""
    return Driver(NODE, HERE / "browser.mjs", packages(), chromium(), *site)


def python_driver() -> Driver:
    """The clients of the PyPI package; over WebSocket it is the Rust client."""
    return Driver(sys.executable, "-m", "tests.clients.python_driver")


def _result_of(outcome: dict[str, Any]) -> Any:
    error = outcome.get("error")
    if error is None:
        return decode(outcome["value"])
    if "data" in error:
        return RefusedError(error["message"], decode(error["data"]))
    return ClientError(error["message"])


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return  # the test has given up waiting
    if isinstance(result, ClientError):
        answer.set_exception(result)
    else:
        answer.set_result(result)
