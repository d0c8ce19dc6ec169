"""`duly serve` and `duly dev`: clients are served, and the end is graceful (rule A4)."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

import httpx
import pytest
from convex import ConvexError, ConvexInt64
from convex.http_client import ConvexExecutionError, ConvexHttpClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.cli.commands import DEADLINE_S, Duly, Running

NOTES = """\
import asyncio
from pathlib import Path
from typing import Any

import duly

app = duly.App(__name__, database="sqlite:///notes.db")
notes = duly.Table("notes")


@duly.mutation
async def write(ctx: duly.MutationCtx, text: str, size: int, code: duly.Int64, blob: bytes) -> str:
    if not text:
        raise duly.AppError({"code": "empty"})
    await ctx.scheduler.run_after(0, confirm)
    return await ctx.db.insert(notes, {"text": text, "size": size, "code": code, "blob": blob})


@duly.query
async def read(ctx: duly.QueryCtx) -> list[Any]:
    return [{name: note[name] for name in ("text", "size", "code", "blob")} async for note in ctx.db.query(notes)]


@duly.internal_mutation
async def confirm(ctx: duly.MutationCtx) -> None:
    Path("confirmed").touch()


@duly.action
async def wait(ctx: duly.ActionCtx) -> str:
    Path("started").touch()
    print("waiting", flush=True)
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "went"


@duly.query
async def broken(ctx: duly.QueryCtx) -> None:
    raise ValueError("no")


@duly.query
async def version(ctx: duly.QueryCtx) -> int:
    return 1
"""
WRITTEN: dict[str, Any] = {"text": "tea", "size": 3, "code": 7, "blob": b"\xff"}
CONNECT = {"type": "Connect", "sessionId": str(UUID(int=1)), "connectionCount": 0, "lastCloseReason": None}


@pytest.fixture
def project(duly: Duly) -> Duly:
    duly.write("notes.py", NOTES)
    return duly


def started(duly: Duly, *options: str) -> tuple[Running, str]:
    """A server, and its URL."""
    serving = duly.start("serve", "notes", "--port", "0", *options)
    return serving, url_in(serving.until("serves notes:app"))


def url_in(line: str) -> str:
    found = re.search(r"http://[\w.:\[\]]+", line)
    assert found, line
    return found[0].rstrip(",")


def connected(url: str) -> ClientConnection:
    return connect(f"{url.replace('http', 'ws')}/api/sync")


def adding(queries: int) -> dict[str, Any]:
    """The message that subscribes to so many queries."""
    adds = [{"type": "Add", "queryId": n, "udfPath": "notes:version", "args": [{}]} for n in range(queries)]
    return {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": adds}


@contextmanager
def begun_call(url: str) -> Iterator[BinaryIO]:
    """A call whose body does not come; gives what is answered."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as begun, begun.makefile("rb") as answer:
        head = "POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        begun.sendall(head.encode())
        yield answer


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def test_the_python_client_calls_queries_mutations_and_actions(project: Duly) -> None:
    _, url = started(project)
    client = ConvexHttpClient(url)
    assert isinstance(client.mutation("notes:write", {**WRITTEN, "code": ConvexInt64(7)}), str)
    (note,) = client.query("notes:read")
    assert (note["text"], note["size"], note["blob"]) == ("tea", 3.0, b"\xff")
    assert note["code"].value == 7
    (project.folder / "go").touch()
    assert client.action("notes:wait") == "went"


def test_the_python_client_gets_errors_and_their_data(project: Duly) -> None:
    _, url = started(project)
    client = ConvexHttpClient(url)
    with pytest.raises(ConvexError) as told:
        client.mutation("notes:write", {**WRITTEN, "text": "", "code": ConvexInt64(7)})
    assert told.value.data == {"code": "empty"}
    with pytest.raises(ConvexExecutionError, match=r"^\[Request ID: [0-9a-f]{16}\] Server Error$"):
        client.mutation("notes:confirm")
    with pytest.raises(Exception, match="400 BadConvexFunctionIdentifier: "):
        client.query("no path")
    client.set_auth("x.y.z")
    with pytest.raises(Exception, match="401 InvalidAuthHeader: "):
        client.query("notes:read")


def test_it_runs_due_functions_unless_told_not_to(project: Duly) -> None:
    args = {"path": "notes:write", "args": {**WRITTEN, "code": 7, "blob": {"$bytes": ""}}}
    serving, url = started(project, "--no-worker")
    assert httpx.post(f"{url}/api/mutation", json=args).json()["status"] == "success"
    assert httpx.get(f"{url}/ready").json()["worker"] == "none"
    serving.signal(signal.SIGTERM)
    assert serving.ended() == 0, serving.lines
    assert not (project.folder / "confirmed").exists()
    serving, url = started(project)
    assert httpx.get(f"{url}/ready").json()["worker"] == "running"
    while not (project.folder / "confirmed").exists():
        assert serving.process.poll() is None


def test_its_options_are_those_of_asgi(project: Duly) -> None:
    _, url = started(
        project, "--dev", "--max-body", "100", "--root-path", "/notes", "--cors-origin", "https://shop.example"
    )
    read = httpx.post(
        f"{url}/api/query", json={"path": "notes:missing", "args": {}}, headers={"Origin": "https://shop.example"}
    )
    assert "Could not find public function" in read.json()["errorMessage"]
    assert read.headers["access-control-allow-origin"] == "https://shop.example"
    assert httpx.post(f"{url}/api/query", json={"path": "notes:read", "args": {"x": "x" * 100}}).status_code == 413


def test_max_connections_bounds_websockets(project: Duly) -> None:
    _, url = started(project, "--max-connections", "1")
    with connected(url) as first:
        first.send(json.dumps(CONNECT))
        first.send(json.dumps(adding(1)))
        assert json.loads(first.recv(DEADLINE_S))["type"] == "Transition"
        with connected(url) as second, pytest.raises(ConnectionClosed) as closed:
            second.recv(DEADLINE_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason[:25]) == (1013, "TooManyConcurrentRequests")


@pytest.mark.parametrize(("queries", "told"), [(1, "Transition"), (2, "FatalError")])
def test_max_queries_bounds_those_of_a_websocket(project: Duly, queries: int, told: str) -> None:
    _, url = started(project, "--max-queries", "1")
    with connected(url) as client:
        client.send(json.dumps(CONNECT))
        client.send(json.dumps(adding(queries)))
        message = json.loads(client.recv(DEADLINE_S))
    assert message["type"] == told
    assert told != "FatalError" or "more than 1 queries" in message["error"]


def test_max_requests_bounds_calls_and_request_timeout_how_long_they_take_to_arrive(project: Duly) -> None:
    _, url = started(project, "--max-requests", "1", "--request-timeout", "5")
    read, client = {"path": "notes:version", "args": {}}, httpx.Client(base_url=url, timeout=DEADLINE_S)
    with client, begun_call(url) as begun:
        end = time.monotonic() + DEADLINE_S
        while (answer := client.post("/api/query", json=read)).status_code == 200:
            assert time.monotonic() < end
        assert (answer.status_code, answer.json()["code"]) == (503, "TooManyConcurrentRequests")
        assert begun.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        assert client.post("/api/query", json=read).json()["value"] == 1


def test_its_log_may_be_json_and_its_metrics_on_a_port_of_their_own(project: Duly) -> None:
    serving = project.start("serve", "notes", "--port", "0", "--metrics-port", "0", "--log-format", "json")
    metrics = url_in(serving.until("shows metrics on"))
    url = url_in(serving.until("serves notes:app"))
    answer = httpx.post(f"{url}/api/query", json={"path": "notes:broken", "args": {}}).json()
    line = json.loads(serving.until("request_id"))
    assert f"[Request ID: {line['request_id']}]" in answer["errorMessage"]
    assert (line["level"], line["logger"], line["function"]) == ("ERROR", "duly", "notes:broken")
    assert line["error"].startswith("Uncaught ValueError: no\n\nTraceback")
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    page = httpx.get(f"{metrics}/metrics").text
    assert 'duly_calls_total{caller="client",function="notes:broken",kind="query",outcome="failed"} 1.0' in page
    assert httpx.get(f"{url}/metrics").status_code == 403
    serving.signal(signal.SIGTERM)
    assert serving.ended() == 0, serving.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_A4_a_signal_lets_a_request_that_is_being_answered_finish(
    project: Duly, pool: ThreadPoolExecutor, number: signal.Signals
) -> None:
    serving, url = started(project)
    answer = pool.submit(ConvexHttpClient(url).action, "notes:wait")
    serving.until("waiting")
    serving.signal(number)
    while True:  # until it listens no more
        try:
            httpx.get(f"{url}/health")
        except httpx.ConnectError:
            break
        except httpx.TransportError:
            pass  # it had listened, and closed what it had not begun to answer
    (project.folder / "go").touch()
    assert answer.result(DEADLINE_S) == "went"
    assert serving.ended() == 0, serving.lines
    assert serving.lines[-1] == "stopped"


def test_A4_a_second_signal_stops_at_once(project: Duly, pool: ThreadPoolExecutor) -> None:
    serving, url = started(project)
    answer = pool.submit(ConvexHttpClient(url).action, "notes:wait")
    serving.until("waiting")
    serving.signal(signal.SIGTERM)
    while serving.process.poll() is None:
        serving.signal(signal.SIGTERM)
    assert serving.ended() == 128 + signal.SIGTERM
    assert answer.exception(DEADLINE_S) is not None


def test_a_port_that_is_taken_is_named(project: Duly) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = project("serve", "notes", "--port", port)
    assert result.code == 2
    assert f"can't listen on 127.0.0.1, port {port}: " in result.err
    assert "hint: choose another port with --port" in result.err


def test_a_port_for_metrics_that_is_taken_is_named_with_its_option(project: Duly) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = project("serve", "notes", "--port", "0", "--metrics-port", str(taken.getsockname()[1]))
    assert result.code == 2
    assert "hint: choose another port with --metrics-port" in result.err


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "127.0.0.1:80", "a..b", "x" * 70])
@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_host_that_is_not_this_machine_is_named(project: Duly, command: str, host: str) -> None:
    result = project(command, "notes", "--host", host)
    assert result.code == 2
    assert f"error: can't listen on {host}, port 3210: " in result.err
    assert "hint: --host is a name or an address of this machine" in result.err
    assert "--port" not in result.err


def test_without_the_extra_it_says_what_to_install(project: Duly) -> None:
    code = "import sys; sys.modules['starlette'] = None; from duly.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "notes"], cwd=project.folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "error: duly serve takes pip install 'duly[server]'\n")


def test_dev_says_that_the_usual_port_is_taken_and_where_it_listens(project: Duly) -> None:
    host = "127.0.0.2"  # where nothing else listens, no other test either
    with socket.create_server((host, 3210)):
        dev = project.start("dev", "notes", "--host", host)
        found = re.search(r"port 3210 is taken, so the server listens on port (\d+)$", dev.until("is taken"))
        assert found
        assert url_in(dev.until("serves")) == f"http://{host}:{found[1]}"


def test_dev_does_not_say_so_of_a_port_that_was_asked_for(project: Duly) -> None:
    dev = project.start("dev", "notes", "--port", "0")
    dev.until("Ctrl-C stops")
    assert not any("taken" in line for line in dev.lines)


def test_dev_serves_too_and_goes_on_at_the_same_port_after_a_reload(project: Duly) -> None:
    dev = project.start("dev", "notes")
    url = url_in(dev.until("serves"))
    dev.until("Ctrl-C stops")
    read = {"path": "notes:version", "args": {}}
    assert httpx.post(f"{url}/api/query", json=read).json()["value"] == 1
    assert "ArgumentValidationError" in httpx.post(f"{url}/api/query", json=read | {"args": {"x": 1}}).text
    project.write("notes.py", NOTES.replace("return 1", "return 2"))
    dev.until("reloading: notes.py changed")
    answer = 1
    while answer != 2:
        # Answered by the app that goes or by the one that comes, or cut off by the one that goes; never refused.
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):
            answer = httpx.post(f"{url}/api/query", json=read, timeout=DEADLINE_S).json()["value"]
    dev.signal(signal.SIGTERM)
    assert dev.ended() == 0, dev.lines
