"""A server, and clients of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

import duly
from tests.server import app as served

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def app(file_database: str) -> duly.App:
    """The app on an empty database, not open."""
    return duly.App(served.__name__, database=file_database)


@pytest.fixture
def serve(app: duly.App) -> Serve:
    """Makes a client of the app, which is open for as long; takes the options of `App.asgi`."""

    @asynccontextmanager
    async def serve(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app.asgi(**options))
        async with app.client(), httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            yield client

    return serve


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app with its default options."""
    async with serve() as client:
        yield client


@pytest.fixture
async def dev_client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is told errors."""
    async with serve(dev=True) as client:
        yield client
