"""`App.asgi()`: alone, mounted in other apps, and without what it takes."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import duly


@asynccontextmanager
async def served(asgi: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client, while the lifespan lasts."""
    transport = httpx.ASGITransport(asgi)
    async with (
        asgi.router.lifespan_context(asgi),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        yield client


@pytest.mark.parametrize(("worker", "told"), [(True, "running"), (False, "none")])
async def test_its_lifespan_opens_the_app(app: duly.App, worker: bool, told: str) -> None:
    async with served(app.asgi(worker=worker)) as client:
        ready = await client.get("/ready")
        assert ready.json() == {"status": "ready", "store": "reachable", "worker": told}
    assert app._store is None


async def test_its_lifespan_leaves_an_app_alone_that_is_open(app: duly.App) -> None:
    async with app.client():
        async with served(app.asgi()) as client:
            assert (await client.get("/ready")).json()["worker"] == "none"
        assert app._store is not None


async def test_it_is_mounted_in_an_app_that_opens_it(app: duly.App) -> None:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app:
            yield

    async with served(Starlette(routes=[Mount("/duly", app.asgi())], lifespan=lifespan)) as client:
        for url in ("http://server/duly/api/query", "http://server/duly//api/query"):
            answer = await client.post(url, json={"path": "app:add", "args": {"a": 1}})
            assert answer.json() == {"status": "success", "value": 2}


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['starlette'] = None; import duly; duly.App('x').asgi()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DulyError: starlette is not installed; serving needs pip install 'duly[server]'" in done.stderr
