"""What `benchmarks.server` serves: an app of duly's, and the same write behind a bare Starlette endpoint.

python -m benchmarks.served duly|bare FILE PORT
"""

import asyncio
import contextlib
import sys
from typing import Any, TypedDict

import apsw
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import duly


class Note(TypedDict):
    box: int
    text: str


notes = duly.Table("notes", Note, indexes={"by_box": ["box"]})


@duly.mutation
async def write(ctx: duly.MutationCtx, box: int, text: str) -> duly.Id[Note]:
    return await ctx.db.insert(notes, {"box": box, "text": text})


@duly.mutation
async def write_to_all(ctx: duly.MutationCtx, boxes: int, text: str) -> None:
    for box in range(boxes):
        await ctx.db.insert(notes, {"box": box, "text": text})


@duly.query
async def newest_in(ctx: duly.QueryCtx, box: int) -> str | None:
    found = await ctx.db.query(notes).with_index("by_box", box=box).order("desc").first()
    return None if found is None else found["text"]


def bare(file: str) -> Starlette:
    """The same row and its index entry, one durable transaction for each request."""
    connection = apsw.Connection(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, box INTEGER NOT NULL, text TEXT NOT NULL)")
    connection.execute("CREATE INDEX by_box ON notes (box)")

    async def endpoint(request: Request) -> JSONResponse:
        body: Any = await request.json()
        note = body["args"]
        with connection:
            connection.execute("INSERT INTO notes (box, text) VALUES (?, ?)", (note["box"], note["text"]))
        return JSONResponse({"status": "success", "value": connection.last_insert_rowid()})

    return Starlette(routes=[Route("/api/mutation", endpoint, methods=["POST"])])


async def main(what: str, file: str, port: str) -> None:
    app = duly.App(__name__, database=f"sqlite:///{file}")
    asgi = app.asgi() if what == "duly" else bare(file)
    config = uvicorn.Config(asgi, port=int(port), log_level="warning", ws_ping_interval=5, access_log=False)
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):
        await server.serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
