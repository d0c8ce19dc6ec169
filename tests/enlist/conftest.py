"""A table of the user's, and connections to the database of the test."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from tests.enlist.clients import CLIENTS, Client

Ask = Callable[[str], list[Any]]


@pytest.fixture
def ask(postgresql_url: str) -> Ask:
    """Asks on a connection of its own, outside of any transaction of the test."""

    def asked(statement: str) -> list[Any]:
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    asked("CREATE TABLE invoices (item text NOT NULL)")
    return asked


@pytest.fixture(params=CLIENTS)
async def client(
    request: pytest.FixtureRequest, postgresql_url: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """A connection of each driver."""
    # Tests run on an event loop, where Django refuses to block.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    async with CLIENTS[request.param](postgresql_url, False) as opened:
        yield opened


@pytest.fixture
async def psycopg_client(postgresql_url: str, ask: Ask) -> AsyncIterator[Client]:
    """One of the drivers, for what is the same with each."""
    async with CLIENTS["psycopg-async"](postgresql_url, False) as opened:
        yield opened
