"""Metrics: what Prometheus is told, over HTTP, by a server that listens."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

import duly
from duly._ground.entropy import SystemEntropy
from duly._model.admin_key import hash_admin_key, make_admin_key
from duly._store.port import Store
from duly.errors import StoreUnavailableError
from duly.server.listener import Listener
from tests.store.rows import add_jobs, new_job
from tests.support import eventually

ADMIN = make_admin_key(SystemEntropy())
HEADERS = {"Authorization": f"Convex {ADMIN}"}
LATER_MS = 3_600_000

items = duly.Table("items")


@duly.mutation
async def order(ctx: duly.MutationCtx, item: str, delay_ms: float = 0) -> None:
    if not item:
        raise duly.AppError("nothing was ordered")
    await ctx.db.insert(items, {"item": item})
    await ctx.scheduler.run_after(delay_ms, pack, item=item)


@duly.internal_mutation
async def pack(ctx: duly.MutationCtx, item: str) -> None:
    if item == "glass":
        raise ValueError("it broke")


@duly.action
async def wait_for(ctx: duly.ActionCtx, item: str) -> None:
    await ctx.scheduler.run_after(0, send, item=item)
    await ctx.run_query("test_metrics:count")


@duly.internal_action
async def send(ctx: duly.ActionCtx, item: str) -> None:
    pass


@duly.query
async def count(ctx: duly.QueryCtx) -> int:
    return await ctx.db.query(items).count()


class Page:
    """What was scraped."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def calls(self, function: str, caller: str, outcome: str) -> float:
        path = function and f"test_metrics:{function}"
        return self.value("duly_calls_total", function=path, caller=caller, outcome=outcome)


Scrape = Callable[[], Awaitable[Page]]


@asynccontextmanager
async def listening(asgi: Any) -> AsyncIterator[str]:
    """The address at which an ASGI app is served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listener = Listener(asgi)
        serving = asyncio.ensure_future(listener.serve(sockets=[listening]))
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listener.stop(0)
            await serving


@pytest.fixture
async def app(database: str) -> AsyncIterator[duly.App]:
    app = duly.App(__name__, database=database)
    async with app:
        await store_of(app).transact(lambda tx: tx.insert_admin_key(hash_admin_key(ADMIN), "", 0))
        yield app


@pytest.fixture
async def address(app: duly.App) -> AsyncIterator[str]:
    async with listening(app.asgi()) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        yield client


@pytest.fixture
def scrape(client: httpx.AsyncClient) -> Scrape:
    async def scrape() -> Page:
        response = await client.get("/metrics", headers=HEADERS)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        return Page(response.text)

    return scrape


def store_of(app: duly.App) -> Store:
    assert app._store is not None
    return app._store


async def scraped_until(scrape: Scrape, holds: Callable[[Page], bool]) -> Page:
    """The first page of which it holds."""

    async def look() -> list[Page]:
        page = await scrape()
        return [page] if holds(page) else []

    (page,) = await eventually(look)
    return page


async def call(client: httpx.AsyncClient, kind: str, function: str, **args: Any) -> None:
    response = await client.post(f"/api/{kind}", json={"path": f"test_metrics:{function}", "args": args})
    assert response.status_code == 200, response.text


async def test_calls_of_clients_and_scheduled_ones_are_counted(client: httpx.AsyncClient, scrape: Scrape) -> None:
    await call(client, "mutation", "order", item="tea")
    await call(client, "mutation", "order", item="glass")
    await call(client, "mutation", "order", item="")
    await call(client, "query", "count")
    await call(client, "action", "wait_for", item="tea")

    page = await scraped_until(scrape, lambda page: page.value("duly_calls_total", caller="scheduled") == 3)
    assert page.calls("order", "client", "success") == 2
    assert page.calls("order", "client", "app_error") == 1
    assert page.calls("count", "client", "success") == 1  # that in the action is part of the action
    assert page.calls("wait_for", "client", "success") == 1
    assert page.calls("pack", "scheduled", "success") == 1
    assert page.calls("pack", "scheduled", "failed") == 1
    assert page.calls("send", "scheduled", "success") == 1
    assert page.value("duly_call_duration_seconds_count", function="test_metrics:order", kind="mutation") == 3
    assert page.value("duly_call_duration_seconds_count", caller="scheduled") == 3
    assert page.value("duly_scheduled_total") == 3
    assert page.value("duly_queue_wait_seconds_count", kind="mutation") == 2
    assert page.value("duly_queue_wait_seconds_count", kind="action") == 1
    assert page.value("duly_calls_in_flight") == 0


async def test_what_a_client_makes_up_is_counted_under_no_name(client: httpx.AsyncClient, scrape: Scrape) -> None:
    await call(client, "query", "nothing_of_the_sort")
    await call(client, "query", "pack")
    await call(client, "query", "count", wrong=1)
    page = await scrape()
    assert page.calls("", "client", "refused") == 3
    assert page.value("duly_calls_total") == 3


async def test_jobs_are_counted_by_state(app: duly.App, client: httpx.AsyncClient, scrape: Scrape) -> None:
    assert (await scrape()).value("duly_worker_running") == 1
    await call(client, "mutation", "order", item="tea", delay_ms=LATER_MS)
    await call(client, "mutation", "order", item="glass")

    page = await scraped_until(scrape, lambda page: page.value("duly_jobs", state="failed") == 1)
    states = {sample.labels["state"]: sample.value for sample in page.samples if sample.name == "duly_jobs"}
    assert states == {"due": 0, "later": 1, "parked": 0, "inProgress": 0, "failed": 1, "canceled": 0}
    assert page.value("duly_oldest_due_seconds") == 0


async def test_the_age_of_what_is_due_and_not_run_is_told(database: str) -> None:
    app = duly.App(__name__, database=database)
    async with app.client():
        await add_jobs(store_of(app), new_job(kind="action", due=store_of(app).clock.now_ms() - 90_000))
        metrics = app._count()
        assert metrics is not None
        page = Page((await metrics.text()).decode())
    assert page.value("duly_jobs", state="due") == 1
    assert page.value("duly_oldest_due_seconds", kind="action") >= 90
    assert page.value("duly_oldest_due_seconds", kind="mutation") == 0
    assert page.value("duly_worker_running") == 0


async def test_connections_and_live_queries_are_counted(
    address: str, client: httpx.AsyncClient, scrape: Scrape
) -> None:
    async with connect(f"ws://{address}/api/sync") as websocket:
        add = {"type": "Add", "queryId": 0, "udfPath": "test_metrics:count", "args": [{}]}
        await websocket.send(json.dumps({"type": "Connect", "sessionId": "s", "connectionCount": 0}))
        query_set = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add]}
        await websocket.send(json.dumps(query_set))
        await websocket.recv()
        await call(client, "mutation", "order", item="tea")
        await websocket.recv()
        mutation = {"type": "Mutation", "requestId": 0, "udfPath": "test_metrics:order", "args": [{"item": "salt"}]}
        await websocket.send(json.dumps(mutation))
        while json.loads(await websocket.recv())["type"] != "MutationResponse":
            pass
        page = await scrape()
        assert page.value("duly_connections") == page.value("duly_live_queries") == 1
        assert page.value("duly_live_query_runs_total") >= 2
        assert page.calls("count", "subscription", "success") >= 2
        assert page.calls("order", "client", "success") == 2

    await scraped_until(scrape, lambda page: page.value("duly_connections") == page.value("duly_live_queries") == 0)


async def test_what_the_store_can_not_run_is_told_apart(
    app: duly.App, client: httpx.AsyncClient, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transact(*_args: Any, **_options: Any) -> Any:
        raise StoreUnavailableError("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(store_of(app), "transact", transact)
        response = await client.post("/api/mutation", json={"path": "test_metrics:order", "args": {"item": "tea"}})
    assert response.status_code == 503
    assert (await scrape()).calls("order", "client", "unavailable") == 1


async def test_a_store_that_can_not_be_read_is_told(app: duly.App, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = app._count()
    assert metrics is not None
    assert Page((await metrics.text()).decode()).value("duly_store_reachable") == 1

    def read(*_args: Any, **_options: Any) -> Any:
        raise StoreUnavailableError("it is away")

    monkeypatch.setattr(store_of(app), "read", read)
    page = Page((await metrics.text()).decode())
    assert page.value("duly_store_reachable") == 0
    assert not [sample for sample in page.samples if sample.name == "duly_jobs"]


async def test_metrics_are_for_admins(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")
    assert (response.status_code, response.json()["code"]) == (403, "Forbidden")
    assert (await client.get("/metrics", headers={"Authorization": "Convex wrong"})).status_code == 401


@pytest.mark.parametrize("installed", [True, False])
async def test_off_nothing_is_observed(app: duly.App, installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setattr("duly._watch.installed.find_spec", lambda _: None)
    transport = httpx.ASGITransport(app.asgi(metrics=not installed))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        assert (await client.get("/metrics")).status_code == 404
    assert app._running().environment.observer is None


async def test_apps_count_apart(tmp_path: Path) -> None:
    pages: list[Page] = []
    for name in ("one", "two"):
        app = duly.App(__name__, database=f"sqlite:///{tmp_path / name}.db")
        async with app.client():
            metrics = app._count()
            assert metrics is not None
            assert app._count() is metrics
            await app.scheduler.run_after(LATER_MS, send, item=name)
            pages.append(Page((await metrics.text()).decode()))
    assert [page.value("duly_scheduled_total") for page in pages] == [1, 1]


async def test_the_page_names_all_metrics_and_no_others(app: duly.App) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(duly_\w+)` \|", page, re.MULTILINE))
    metrics = app._count()
    assert metrics is not None
    families = text_string_to_metric_families((await metrics.text()).decode())
    told = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    (alerts,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\bduly_\w+", alerts)) <= named
    assert named == {name for name in told if name.startswith("duly_") and not name.endswith("_created")}
