"""What the tests with published clients share: one server for all of a worker's tests, and their clients."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from tests.clients.driver import Client, Driver, npm_driver, python_driver
from tests.clients.relay import Relay
from tests.clients.server import Server
from tests.server.issuer import RSA_KEY, pem

Connect = Callable[[str], Awaitable[Client]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is there for many tests: don't stop it, and keep to `channel`."""
    with Server(tmp_path_factory.mktemp("server"), environment={"CHAT_KEY": pem(RSA_KEY)}) as server:
        yield server


@pytest.fixture(scope="session")
def admin_key(server: Server) -> str:
    """A key that opens all of the server."""
    return server.duly("admin-key", "--label", "tests").strip()


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """A channel of the test's own."""
    return str(request.node.nodeid)


@pytest.fixture
async def npm() -> AsyncIterator[Driver]:
    """The clients of the npm package."""
    async with npm_driver() as driver:
        yield driver


@pytest.fixture
async def python() -> AsyncIterator[Driver]:
    """The clients of the PyPI package."""
    async with python_driver() as driver:
        yield driver


@pytest.fixture(params=["npm", "python"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each of them."""
    found: Driver = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["websocket", "http"])
def connect(request: pytest.FixtureRequest, driver: Driver) -> Connect:
    """Opens a client of each kind there is, to a URL."""
    return driver.open if request.param == "websocket" else driver.open_http


@pytest.fixture
async def relay(server: Server) -> AsyncIterator[Relay]:
    """The network to the server, to be watched and cut."""
    async with Relay(server.url) as relay:
        yield relay
