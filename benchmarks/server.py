"""What the server does, beside a bare Starlette endpoint that makes the same durable write to SQLite.

    make bench-server                           some three minutes
    make bench-server BENCH="--quick"           a small run, to see that it works

- Mutations over HTTP: 50 connections, each sends the next when it has the answer. The bare endpoint parses the same
  JSON, inserts the same row in a transaction of its own with the same durability, and checks nothing. Rounds go turn
  and turn about; each server is a process of its own, and so is what sends.
- Mutations over one WebSocket: 50 under way at a time; the protocol has them run one after the other.
- Live queries: so many connections, each with one query. From the answer to the mutation to the last of the updates.
- Idle connections: how much the server's memory grows with each.
"""

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.measuring import describe_machine, percentile, ratio, spread, title
from tests.postgres import free_port

_CONNECTIONS = 50
_UNDER_WAY = 50


class Served:
    """A server in a process of its own."""

    def __init__(self, what: str, folder: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "benchmarks.served", what, str(folder / f"{what}.db"), str(self.port)]
        self.process = subprocess.Popen(command)
        end = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/version")
                return
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def served(what: str, folder: Path) -> Iterator[Served]:
    server = Served(what, folder)
    try:
        yield server
    finally:
        server.stop()


# --- clients, in processes of their own -----------------------------------------------------------------------------


async def _over_http(port: int, seconds: float) -> float:
    """Mutations a second. By hand: a client library would cost more than either server."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_CONNECTIONS)]
    done = 0
    end = time.monotonic() + seconds

    async def send(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal done
        body = json.dumps({"path": "served:write", "args": {"box": number, "text": "a note"}})
        head = "POST /api/mutation HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        while time.monotonic() < end:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().splitlines() if line.startswith(b"content-length:"))
            assert b'"success"' in await reader.readexactly(int(length.split(b":")[1]))
            done += 1
        writer.close()

    await asyncio.gather(*(send(number, *connection) for number, connection in enumerate(connections)))
    return done / seconds


async def _open(stack: AsyncExitStack, port: int, *queries: tuple[str, dict[str, Any]]) -> ClientConnection:
    socket = await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/api/1.48.0/sync", ping_interval=None))
    session = f"session-{id(socket)}"
    adds = [{"type": "Add", "queryId": id, "udfPath": path, "args": [args]} for id, (path, args) in enumerate(queries)]
    await _send(socket, "Connect", sessionId=session, connectionCount=0, lastCloseReason=None)
    await _send(socket, "ModifyQuerySet", baseVersion=0, newVersion=1, modifications=adds)
    await _until(socket, "Transition")
    return socket


async def _send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def _until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(await socket.recv())
        if message["type"] == kind:
            return message


async def _over_websocket(port: int, seconds: float) -> float:
    async with AsyncExitStack() as stack:
        socket = await _open(stack, port)
        sent = done = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while sent - done < _UNDER_WAY:
                args = [{"box": 0, "text": "a note"}]
                await _send(socket, "Mutation", requestId=sent, udfPath="served:write", args=args)
                sent += 1
            await _until(socket, "MutationResponse")
            done += 1
        return done / seconds


async def _to_subscribers(port: int, count: int, different: bool, times: int) -> list[float]:
    """Seconds from the answer to a mutation to the last of the updates."""
    took = []
    async with AsyncExitStack() as stack:
        sockets = [
            await _open(stack, port, ("served:newest_in", {"box": number if different else 0}))
            for number in range(count)
        ]
        writer = await _open(stack, port)
        for number in range(times):
            path = "served:write_to_all" if different else "served:write"
            args = {"boxes": count} if different else {"box": 0}
            text = f"the {number}th time"
            await _send(writer, "Mutation", requestId=number, udfPath=path, args=[{**args, "text": text}])
            await _until(writer, "MutationResponse")
            began = time.monotonic()
            await asyncio.gather(*(_until(socket, "Transition") for socket in sockets))
            took.append(time.monotonic() - began)
    return took


async def _idle(port: int, count: int, server: Served) -> float:
    """KiB for each connection with one query."""
    async with AsyncExitStack() as stack:
        await _open(stack, port, ("served:newest_in", {"box": 0}))
        before = server.memory_kib()
        for _ in range(count):
            await _open(stack, port, ("served:newest_in", {"box": 0}))
        return (server.memory_kib() - before) / count


def _apart(client: Any, *args: Any) -> Any:
    """Runs a client in a process of its own, so that it takes nothing from the measurement's own loop."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (client, *args))


def _run(client: Any, *args: Any) -> Any:
    return asyncio.run(client(*args))


def main() -> None:
    parser = argparse.ArgumentParser(description="What the server does, beside a bare Starlette endpoint.")
    parser.add_argument("--quick", action="store_true", help="a small run, to see that it works")
    quick = parser.parse_args().quick
    rounds, seconds, count, times = (2, 1.0, 50, 3) if quick else (5, 5.0, 1_000, 10)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        describe_machine(folder)
        with served("duly", folder) as ours, served("bare", folder) as bare:
            title(f"Mutations over {_CONNECTIONS} HTTP connections, {rounds} interleaved rounds of {seconds:.0f} s")
            rates: dict[str, list[float]] = {"duly": [], "bare": []}
            for _ in range(rounds):
                rates["duly"].append(_apart(_over_http, ours.port, seconds))
                rates["bare"].append(_apart(_over_http, bare.port, seconds))
            for system, measured in rates.items():
                print(f"  {system:<20} {spread(measured)} mutations/s")
            times_bare = [one / other for one, other in zip(rates["duly"], rates["bare"], strict=True)]
            print(f"  duly / bare          {ratio(times_bare)}")
            title("Mutations over one WebSocket")
            sync = [_apart(_over_websocket, ours.port, seconds) for _ in range(rounds)]
            print(f"  duly                 {spread(sync)} mutations/s")
            title(f"Idle connections: {count:,} with one query each")
            each = asyncio.run(_idle(ours.port, count, ours))
            print(f"  {each:.1f} KiB each")
            title(f"Live queries: {count:,} connections with one query each")
            for different in (False, True):
                took = _apart(_to_subscribers, ours.port, count, different, times)
                kind = "different queries" if different else "the same query"
                print(
                    f"  {kind:<20} p50 {percentile(took, 50) * 1_000:,.0f} ms, max {max(took) * 1_000:,.0f} ms"
                    " from the answer to the last update"
                )


if __name__ == "__main__":
    main()
