"""`docs/clients.md`: the clients that it shows run against a shop that is served, as they stand."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

import duly
from duly._app import CONNECTIONS_MAX, QUERIES_MAX
from duly.codegen import typescript
from duly.server.limits import Limits
from examples.shop import app
from examples.shop.orders import Order, orders
from tests.clients.packages import NODE, packages
from tests.clients.server import ROOT, Server

PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:3210"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, app="examples.shop:app") as server:
        yield server


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


IN_FASTAPI, IN_DJANGO, CLIENT, PROGRAM, PAGES = blocks("python")


def ran(folder: Path, *command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "DULY_DATABASE_URL"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("project", [IN_FASTAPI, IN_DJANGO], ids=["fastapi", "django"])
def test_the_app_is_mounted_in_a_project(tmp_path: Path, project: str) -> None:
    file, site = project.splitlines()[0].removeprefix("# ").split(": uvicorn ")
    (tmp_path / file).write_text(project, encoding="utf-8")
    (tmp_path / "django_settings.py").write_text(
        "ROOT_URLCONF = 'django_settings'\nurlpatterns = []\n", encoding="utf-8"
    )
    environment = {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "django_settings"}
    with Server(tmp_path, app=site, mount="/duly", environment=environment) as server:
        body = {"path": "orders:list_orders", "args": {"status": "open"}}
        assert httpx.post(f"{server.url}/duly/api/query", json=body).json() == {"status": "success", "value": []}


def test_the_client_in_node_sees_its_order_paid(shop: Server, tmp_path: Path) -> None:
    [client] = blocks("ts")
    generated = tmp_path / "convex" / "_generated"
    generated.mkdir(parents=True)
    for name, text in typescript(app).items():
        (generated / name).write_text(text, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(packages() / "node_modules")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "client.ts").write_text(client.replace(ADDRESS, shop.url), encoding="utf-8")
    assert ran(tmp_path, NODE, "src/client.ts").split() == ["open", "paid"]


def test_the_client_in_python_sees_its_confirmation_finish(shop: Server, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(CLIENT.replace(ADDRESS, shop.url), encoding="utf-8")
    *_, last = ran(tmp_path, sys.executable, "client.py").splitlines()
    assert last in ("['success', 'pending', 'pending']", "['failed', 'pending', 'pending']")


def test_the_program_that_holds_the_app_sees_its_job_finish(tmp_path: Path) -> None:
    name = PROGRAM.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(PROGRAM, encoding="utf-8")
    *before, last = ran(tmp_path, sys.executable, name).splitlines()
    assert last == "success"
    assert before in (["pending"], []), "on a slow machine the second may have passed"
    assert (tmp_path / "duly.db").exists()


def test_the_call_by_http_is_answered(shop: Server) -> None:
    [command] = re.findall(r"^\$ curl (.*)$", PAGE, re.MULTILINE)
    url, _, header, _, body = shlex.split(command)
    headers = dict([header.split(": ")])
    answer = httpx.post(url.replace(ADDRESS, shop.url), content=body, headers=headers)
    assert answer.json() == {"status": "success", "value": []}


def test_the_query_of_pages_is_a_function() -> None:
    names: dict[str, Any] = {"__name__": "examples.shop.pages", "duly": duly, "Order": Order, "orders": orders}
    exec(PAGES, names)
    assert isinstance(names["pages"], duly.FunctionReference)


def test_the_limits_of_a_connection_are_these() -> None:
    rows = re.findall(r"^\| .*connection.* \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    assert [int(row.replace(",", "")) for row in rows] == list(asdict(Limits(CONNECTIONS_MAX, QUERIES_MAX)).values())
