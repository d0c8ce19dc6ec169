"""The HTTP API: what Convex's HTTP clients ask for, and two probes for those who run the server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from duly._ground.clock import Clock
from duly._live.live import Live
from duly._model.function import FunctionKind
from duly._store.port import Transaction
from duly._work.executor import Executor
from duly.errors import AppNotOpenError, ConflictError, StoreError
from duly.server.caller import Authenticator, Caller
from duly.server.calls import CallError, Calls, Failure, Outcome, Prepared, Success
from duly.server.messages import BadMessageError, Reader, encode_moment
from duly.server.refusal import RefusedError
from duly.server.snapshots import SnapshotGoneError, Snapshots
from duly.server.values import Format

if TYPE_CHECKING:
    from duly._watch.metrics import Metrics  # installed only if wanted

__all__ = ["Api"]

_log = logging.getLogger("duly")

_QUERIES_MAX = 1_000
# How long the queries of one request keep the event loop from others.
_SLICE_S = 0.005
# The rest of what the client sends is not worth waiting for.
_CLOSE = {"connection": "close"}

# By the names that clients have for them. Who asks for none is a person with curl.
_FORMATS: Mapping[str | None, Format] = {
    None: "json",
    "json": "json",
    "convex_clean_json": "json",
    "convex_encoded_json": "convex_encoded_json",
    "convex_json": "convex_encoded_json",
}


class Api:
    """The routes, and what they share.

    Args:
        calls: Runs the functions.
        executor: That of this process, if it has one.
        name: The app's.
        authenticator: Tells who makes a request.
        clock: The door to time.
        live: The app's live queries, while it is open.
        max_body: In bytes.
        max_requests: How many calls at once.
        request_s: How long the body of a request may take to arrive, in seconds.
        metrics: What counts what happens, if anything does.
    """

    def __init__(
        self,
        calls: Calls,
        executor: Callable[[], Executor | None],
        *,
        name: str,
        authenticator: Authenticator,
        clock: Clock,
        live: Callable[[], Live],
        max_body: int,
        max_requests: int,
        request_s: float,
        metrics: "Metrics | None",
    ) -> None:
        self._calls = calls
        self._executor = executor
        self._name = name
        self._authenticator = authenticator
        self._live = live
        self._snapshots = Snapshots(lambda: calls.runner.environment.store, clock)
        self._max_body = max_body
        self._max_requests = max_requests
        self._request_s = request_s
        self._clock = clock
        self._requests = 0
        self._metrics = metrics

    def routes(self) -> list[Route]:
        return [
            self._route("/api/query", self._of_kind("query")),
            self._route("/api/mutation", self._of_kind("mutation")),
            self._route("/api/action", self._of_kind("action")),
            self._route("/api/function", self._any_function),
            self._route("/api/run/{path:path}", self._run_path),
            self._route("/api/query", self._get_query, "GET"),
            self._route("/api/query_batch", self._query_batch),
            self._route("/api/query_ts", self._query_ts),
            self._route("/api/query_at_ts", self._query_at_ts),
            Route("/api/debug_event", self._debug_event, methods=["POST"]),
            Route("/version", self._version),
            Route("/instance_version", self._version),
            Route("/instance_name", self._instance_name),
            Route("/", self._root),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._show_metrics),
        ]

    def _route(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str = "POST") -> Route:
        """A route of calls, of which there are so many at once and no more."""

        async def counted(request: Request) -> Response:
            if self._requests >= self._max_requests:
                raise RefusedError(503, "TooManyConcurrentRequests", "the server has enough to do; try again")
            self._requests += 1
            try:
                return await endpoint(request)
            finally:
                self._requests -= 1

        return Route(path, counted, methods=[method])

    async def _who(self, request: Request) -> Caller:
        return await self._authenticator.from_header(request.headers.get("authorization"))

    # Calls.

    def _of_kind(self, kind: FunctionKind) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            caller = await self._who(request)
            body = await self._read(request)
            return await self._answer(kind, _path_in(body), body, caller)

        return endpoint

    async def _any_function(self, request: Request) -> Response:
        caller = await self._who(request)
        if not caller.is_admin:
            raise RefusedError(403, "Forbidden", "only an admin may call functions without saying what they are")
        body = await self._read(request)
        if body.get("componentPath"):
            raise RefusedError(400, "BadComponentPath", "there are no components; leave componentPath out")
        return await self._answer(None, _path_in(body), body, caller)

    async def _run_path(self, request: Request) -> Response:
        caller = await self._who(request)
        module, slash, name = request.path_params["path"].rpartition("/")
        if not slash:
            raise RefusedError(
                400, "MissingIdentifier", "a function is named by its module and its name: /api/run/orders/list"
            )
        return await self._answer(None, f"{module}:{name}", await self._read(request), caller)

    async def _get_query(self, request: Request) -> Response:
        caller = await self._who(request)
        body: dict[str, Any] = dict(request.query_params)
        body["args"] = _parsed(body.get("args", "{}").encode(), "BadJsonArgs")
        return await self._answer("query", _path_in(body), body, caller)

    async def _query_batch(self, request: Request) -> Response:
        caller = await self._who(request)
        queries = (await self._read(request)).get("queries")
        if not isinstance(queries, list) or not all(isinstance(query, dict) for query in queries):
            raise RefusedError(400, "BadJsonBody", "queries is a list of objects: {path, args, format}")
        if len(queries) > _QUERIES_MAX:
            raise RefusedError(400, "TooManyQueries", f"{len(queries):,} queries are more than {_QUERIES_MAX:,}")
        calls: list[tuple[Prepared | Failure, Format]] = [
            (self._prepare("query", _path_in(query), query, caller), _format_in(query)) for query in queries
        ]

        async def body(tx: Transaction) -> list[Outcome]:
            outcomes: list[Outcome] = []
            began = self._clock.monotonic()
            for call, format in calls:
                outcomes.append(
                    await self._calls.look(call, caller, format, tx) if isinstance(call, Prepared) else call
                )
                if self._clock.monotonic() - began > _SLICE_S:
                    await self._clock.sleep(0)
                    began = self._clock.monotonic()
            return outcomes

        outcomes = await self._calls.runner.environment.store.read(body)
        return _json({"results": [_written(outcome) for outcome in outcomes]})

    async def _query_ts(self, request: Request) -> Response:
        await self._who(request)
        return _json({"ts": encode_moment(await self._snapshots.hold(self._live().stamp))})

    async def _query_at_ts(self, request: Request) -> Response:
        caller = await self._who(request)
        body = await self._read(request)
        format = _format_in(body)
        try:
            moment = Reader(body).moment("ts")
        except BadMessageError as error:
            raise RefusedError(400, "BadTimestamp", str(error)) from None
        if moment is None:
            raise RefusedError(400, "BadJsonBody", "ts is what query_ts gave")
        prepared = self._prepare("query", _path_in(body), body, caller)
        if isinstance(prepared, Failure):
            return _json(_written(prepared))
        try:
            outcome = await self._snapshots.read(moment, lambda tx: self._calls.look(prepared, caller, format, tx))
        except SnapshotGoneError:
            raise RefusedError(400, "SnapshotTooOld", "that moment is not held any more; ask for one anew") from None
        return _json(_written(outcome))

    async def _answer(self, kind: FunctionKind | None, path: str, body: dict[str, Any], caller: Caller) -> Response:
        format = _format_in(body)
        prepared = self._prepare(kind, path, body, caller)
        if isinstance(prepared, Failure):
            return _json(_written(prepared))
        return _json(_written(await self._calls.run(prepared, caller, format)))

    def _prepare(
        self, kind: FunctionKind | None, path: str, body: dict[str, Any], caller: Caller
    ) -> Prepared | Failure:
        try:
            return self._calls.prepare(kind, path, _args_in(body), caller)
        except CallError as error:
            return self._calls.failure(error, path)

    async def _read(self, request: Request) -> dict[str, Any]:
        """The JSON object that a request holds."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            # Also what keeps web pages of others out: a browser asks first before it sends this type across origins.
            raise RefusedError(400, "BadJsonBody", "a call is sent as Content-Type: application/json")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body:
            raise self._too_large()
        body = _parsed(await self._receive(request), "BadJsonBody")
        if not isinstance(body, dict):
            raise RefusedError(400, "BadJsonBody", "a call is a JSON object")
        return body

    async def _receive(self, request: Request) -> bytearray:
        """The body of a request. One that trickles in would hold its place among the calls for ever."""
        task = asyncio.current_task()
        assert task is not None, "requests are answered in tasks"
        is_late = False

        def expire() -> None:
            nonlocal is_late
            is_late = True
            task.cancel()

        content = bytearray()
        timer = self._clock.call_later(self._request_s, expire)
        try:
            async for chunk in request.stream():
                content += chunk
                if len(content) > self._max_body:
                    raise self._too_large()
        except asyncio.CancelledError:
            if is_late and task.uncancel() == 0:
                raise RefusedError(
                    408, "RequestTimeout", f"the request was not here after {self._request_s:g} s", _CLOSE
                ) from None
            raise
        finally:
            timer.cancel()
        return content

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "PayloadTooLarge", f"a request holds at most {self._max_body:,} bytes", _CLOSE)

    # Beside calls.

    async def _debug_event(self, _request: Request) -> Response:
        # Clients in debug mode tell how they fare. Nobody here wants to know.
        return Response()

    async def _version(self, _request: Request) -> Response:
        return PlainTextResponse(version("duly"))

    async def _instance_name(self, _request: Request) -> Response:
        return PlainTextResponse(self._name)

    async def _root(self, _request: Request) -> Response:
        return PlainTextResponse("duly is running.")

    async def _health(self, _request: Request) -> Response:
        """The process answers; that is all it says."""
        return _json({"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        """Whether the store can be read, and whether the executor of this process, if it has one, looks for work."""
        executor = self._executor()
        worker = "none" if executor is None else "running" if executor.running else "stopped"
        store = "reachable"
        try:
            await self._calls.runner.environment.store.read(lambda tx: tx.next_due("mutation"))
        except (AppNotOpenError, ConflictError, StoreError) as error:
            _log.warning("the store can't be read: %s", error)
            store = "unreachable"
        ready = worker != "stopped" and store == "reachable"
        return _json(
            {"status": "ready" if ready else "not ready", "store": store, "worker": worker}, 200 if ready else 503
        )

    async def _show_metrics(self, request: Request) -> Response:
        """For Prometheus. They name internal functions, so they are for admins."""
        metrics = self._metrics
        if metrics is None:
            raise RefusedError(404, "NotFound", "nothing is counted; that takes pip install 'duly[metrics]'")
        if not (await self._who(request)).is_admin:
            raise RefusedError(403, "Forbidden", "metrics are for admins: 'Authorization: Convex …'; or another port's")
        return Response(await metrics.text(), media_type=metrics.content_type)


# --- reading and writing --------------------------------------------------------------------------------------------


def _parsed(text: bytes | bytearray, code: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, code, f"this is no JSON: {error}") from None


def _path_in(body: dict[str, Any]) -> str:
    path = body.get("path")
    if not isinstance(path, str):
        raise RefusedError(400, "BadJsonBody", "path is a string that names a function, such as 'orders:create_order'")
    return path


def _args_in(body: dict[str, Any]) -> Any:
    if "args" not in body:
        # Not taken for "none": whoever sends {"items": 5} is to learn that it arrived nowhere.
        raise RefusedError(400, "BadJsonBody", 'the arguments go under "args": {"args": {…}}, or {"args": {}} for none')
    return body["args"]


def _format_in(body: dict[str, Any]) -> Format:
    name = body.get("format")
    if name is not None and not (isinstance(name, str) and name in _FORMATS):
        raise RefusedError(400, "BadFormat", "format is 'convex_encoded_json' or 'json'")
    return _FORMATS[name]


def _written(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Success):
        return {"status": "success", "value": orjson.Fragment(outcome.value)}
    written: dict[str, Any] = {"status": "error", "errorMessage": outcome.message}
    if outcome.data is not None:
        # Clients take the mere presence for an error with data.
        written["errorData"] = orjson.Fragment(outcome.data)
    return written


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
