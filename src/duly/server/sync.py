"""The sync protocol of Convex's clients: one WebSocket, on which queries keep up and mutations happen once.

Each connection has a reader that obeys messages, a mutator that runs mutations one at a time, an updater that tells of
new results, and a writer. The updater composes a transition only when the writer has nothing left to send: who reads
slowly skips states, and never sees an old one. All results in a transition belong to its moment; see `Live`.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from duly._call.scope import CallChain
from duly._ground.clock import Clock, Timer
from duly._live.live import Live, LiveQuery
from duly._model.event import Event
from duly._model.function import FunctionKind
from duly._store.port import Transaction
from duly.errors import AppNotOpenError, ConflictError, StoreError
from duly.server.caller import Authenticator, Caller
from duly.server.calls import BadPathError, CallError, Calls, Failure, Outcome, Prepared, Success
from duly.server.farewell import ClosedError, close
from duly.server.identity import IdentityError
from duly.server.limits import Limits
from duly.server.messages import BadMessageError, Reader, decode_moment, encode_moment
from duly.server.outbox import Outbox
from duly.server.results import Watched, failing, response_fields, result_of, run_live, version_fields
from duly.server.standing import Standing

__all__ = ["Sync"]

_log = logging.getLogger("duly")

_CONNECT_S = 30.0
_SESSION = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
# How far ahead of our clock a client may have been told a moment by another server.
_AHEAD_NS = 60 * 1_000_000_000
# From a client that sends more than can be run nothing more is read.
_UNDONE_BYTES_MAX = 64 << 20
# A client with many mutations to run sees what they did after so long at most; until then they don't wait.
_UNSHOWN_S = 0.05
# How long what a client sends in one go may be under way.
_BURST_S = 0.05


class _Call(NamedTuple):
    """A mutation or action that was asked for, and by whom: whoever that was when it came."""

    request: int
    path: str
    args: Any
    caller: Caller
    size: int


class Sync:
    """The connections of this process.

    Args:
        calls: Runs the functions.
        live: The app's live queries.
        clock: The app's, once it is open.
        authenticator: Tells who calls.
        limits: What one client may take.
    """

    def __init__(self, calls: Calls, live: Callable[[], Live], authenticator: Authenticator, limits: Limits) -> None:
        self.calls = calls
        self.live = live
        self.authenticator = authenticator
        self.limits = limits
        self.connections: set[_Connection] = set()
        self.actions: set[asyncio.Task[None]] = set()
        # By session: mutations of an old connection may still run when its client is back on a new one.
        self.sessions: dict[str, _Session] = {}

    async def endpoint(self, websocket: WebSocket) -> None:
        """Serves one connection until it ends."""
        await websocket.accept()
        if len(self.connections) >= self.limits.connections:
            await websocket.close(1013, "TooManyConcurrentRequests: connections")
            return
        try:
            connection = _Connection(self, websocket)
        except AppNotOpenError:
            await websocket.close(1011, "InternalServerError: the app is not open")
            return
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)


@dataclass(slots=True)
class _Session:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class _Connection:
    def __init__(self, sync: Sync, websocket: WebSocket) -> None:
        self._sync = sync
        self._calls = sync.calls
        self._live = sync.live()
        self._websocket = websocket
        self._clock: Clock = sync.calls.runner.environment.clock
        self._session: str | None = None
        self._standing = Standing(sync.authenticator, self._clock, self._expire)
        # What was asked for, and what was told: query set, identity, moment.
        self._asked = [0, 0]
        self._told = (0, 0, 0)
        # The next transition is of this moment or later.
        self._floor = 0
        self._must = False
        self._must_since = 0.0
        self._shown = asyncio.Event()
        self._queries: dict[int, Watched] = {}
        self._removed: list[int] = []
        self._mutations: deque[_Call] = deque()
        self._more_mutations = asyncio.Event()
        self._acting = 0
        # What was received and is not done, in bytes.
        self._undone_bytes = 0
        self._less_undone = asyncio.Event()
        self._outbox = Outbox(self._clock, self.wake)
        self._dirty = asyncio.Event()
        # A client that is back repeats at once what it has no answer to. The answers come before what is to be seen.
        self._back, self._mutating = False, False
        self._burst: Timer | None = None
        # A mutation of this connection is being committed, and not answered yet: its effects are not to be shown.
        self._committing = False
        self._answered = asyncio.Event()
        # Failing it ends the connection.
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """As a `Watcher`."""
        self._dirty.set()

    async def serve(self) -> None:
        jobs = (self._read(), self._mutate(), self._update(), self._outbox.write(self._websocket))
        tasks = {asyncio.get_running_loop().create_task(job, name="duly sync") for job in jobs}
        try:
            done, _ = await asyncio.wait({*tasks, self._end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Actions run to their end; nobody hears of it.
            for task in tasks:
                task.cancel()
            self._end.cancel()
            self._outbox.room.set()
            for watched in self._queries.values():
                self._forget(watched)
            self._standing.close()
            if self._burst is not None:
                self._burst.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await close(self._websocket, self._clock, next((one.exception() for one in done if not one.cancelled()), None))

    def _fail(self, error: Exception) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    # Reading.

    async def _read(self) -> None:
        reading = asyncio.current_task()
        assert reading is not None, "it runs in a task"
        timer = self._clock.call_later(_CONNECT_S, reading.cancel)
        try:
            await self._obey(await self._receive())
        except asyncio.CancelledError:
            raise ClosedError(1008, "NoConnectMessage") from None
        finally:
            timer.cancel()
        while True:
            await self._obey(await self._receive())
            while self._undone_bytes > _UNDONE_BYTES_MAX:
                self._less_undone.clear()
                await self._less_undone.wait()

    async def _receive(self) -> Reader:
        message = await self._websocket.receive()
        if message["type"] != "websocket.receive":
            raise WebSocketDisconnect(message.get("code", 1000))
        return Reader.of(message.get("text"))

    async def _obey(self, message: Reader) -> None:
        if self._live.closed:
            raise AppNotOpenError
        kind = message.text("type")
        if self._session is None and kind != "Connect":
            raise BadMessageError(f"the first message is Connect, not {kind}")
        match kind:
            case "Connect":
                self._connect(message)
            case "ModifyQuerySet":
                self._modify(message)
            case "Mutation":
                self._queue(message)
            case "Action":
                self._act(message)
            case "Authenticate":
                await self._authenticate(message)
            case "Event":
                pass
            case _:
                raise BadMessageError(f"there is no message {kind[:50]!r}")

    def _connect(self, message: Reader) -> None:
        if self._session is not None:
            raise BadMessageError("Connect comes once, as the first message")
        session = message.text("sessionId")
        if not _SESSION.fullmatch(session):
            raise BadMessageError("sessionId is a UUID")
        self._session = session
        seen = message.moment("maxObservedTimestamp")
        if seen is not None:
            # By the clock: stamps may be ahead of it already, by what others said they had seen.
            if seen > self._clock.now_ms() * 1_000_000 + _AHEAD_NS:
                raise ClosedError(1011, "InternalServerError: the client has seen a moment that is yet to come")
            self._live.pass_by(seen)
        if message.fields.get("connectionCount") not in (None, 0):
            self._back = True
            self._burst = self._clock.call_later(_BURST_S, self._end_burst)

    def _end_burst(self) -> None:
        self._burst = None
        self._dirty.set()

    # Queries.

    def _modify(self, message: Reader) -> None:
        base, new = message.number("baseVersion"), message.number("newVersion")
        if base != self._asked[0] or new != base + 1:
            raise BadMessageError(f"ModifyQuerySet from {base} to {new}, and the query set is at {self._asked[0]}")
        for change in message.readers("modifications"):
            id = change.number("queryId")
            match change.text("type"):
                case "Add":
                    if id in self._queries:
                        raise BadMessageError(f"there is a query {id} already")
                    if len(self._queries) + len(self._removed) >= self._sync.limits.queries:
                        raise BadMessageError(f"more than {self._sync.limits.queries:,} queries on one connection")
                    change.check_component()
                    journal = change.optional_text("journal")
                    self._queries[id] = self._watch(change.text("udfPath"), change.args(), journal)
                case "Remove":
                    if id not in self._queries:
                        raise BadMessageError(f"there is no query {id}")
                    self._forget(self._queries.pop(id))
                    self._removed.append(id)
                case kind:
                    raise BadMessageError(f"there is no modification {kind[:50]!r}")
        self._asked[0] = new
        # What is committed by now is shown: a query that others watch may have a result that is older.
        self._require(self._live.stamp())

    def _watch(self, path: str, args: Any, journal: str | None) -> Watched:
        try:
            prepared = self._calls.prepare("query", path, args, self._standing.caller)
        except BadPathError as error:
            raise BadMessageError(str(error)) from error
        except CallError as error:
            failure = self._calls.failure(error, path)
            return Watched(path, args, journal, result_of(failure, None), version=-1)
        caller = self._standing.caller
        written = orjson.dumps(args, option=orjson.OPT_SORT_KEYS)
        key = (prepared.function.path, written, caller.identity, caller.is_admin)
        run = run_live(self._calls, prepared, caller, journal)
        fail = failing(self._calls, path, journal)
        return Watched(path, args, journal, self._live.watch((*key, journal), run, self, fail=fail))

    def _forget(self, watched: Watched) -> None:
        if isinstance(watched.query, LiveQuery):
            self._live.unwatch(watched.query, self)

    def _require(self, moment: int) -> None:
        """The client waits for a transition, of that moment or later, also if nothing changes."""
        if not self._must:
            self._must, self._must_since = True, self._clock.monotonic()
            self._shown.clear()
        self._floor = max(self._floor, moment)
        self._dirty.set()

    async def _update(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self._live.closed:
                raise AppNotOpenError
            if self._outbox or self._session is None:
                continue  # the writer says when it is ready for more
            if self._committing:
                self._answered.clear()
                await self._answered.wait()
                self._dirty.set()
                continue
            if self._back and (self._burst is not None or self._mutating or self._mutations):
                continue  # each answer wakes us
            self._back = False
            if any(watched.latest is None for watched in self._queries.values()):
                continue  # comes soon, and wakes us
            floor = max(self._floor, self._told[2])
            if self._queries and self._live.as_of < floor:
                await self._live.reach(floor)
                self._dirty.set()  # and look at everything again
                continue
            self._compose()

    def _compose(self) -> None:
        # First what is gone: another may have come under the same id.
        modifications: list[dict[str, Any]] = [{"type": "QueryRemoved", "queryId": id} for id in self._removed]
        modifications += [
            watched.tell(id, self._live, self) for id, watched in self._queries.items() if watched.has_news()
        ]
        if not modifications and not self._must:
            return
        moment = self._live.as_of if self._queries else max(self._live.stamp(), self._floor, self._told[2])
        told, self._told = self._told, (self._asked[0], self._asked[1], moment)
        self._must = False
        self._shown.set()
        self._removed.clear()
        self._outbox.send({
            "type": "Transition",
            "startVersion": version_fields(told),
            "endVersion": version_fields(self._told),
            "modifications": modifications,
        })  # fmt: skip

    # Mutations.

    def _queue(self, message: Reader) -> None:
        if len(self._mutations) >= self._sync.limits.mutations:
            raise ClosedError(1013, "TooManyConcurrentRequests")
        self._mutations.append(self._call(message))
        self._more_mutations.set()

    def _call(self, message: Reader) -> _Call:
        message.check_component()
        request, path = message.number("requestId"), message.text("udfPath")
        call = _Call(request, path, message.args(), self._standing.caller, message.size)
        self._undone_bytes += call.size
        return call

    def _done(self, call: _Call) -> None:
        self._undone_bytes -= call.size
        self._less_undone.set()

    async def _mutate(self) -> None:
        while True:
            await self._more_mutations.wait()
            await self._outbox.room.wait()
            if self._must and not self._back and self._clock.monotonic() - self._must_since > _UNSHOWN_S:
                # One commit after the other would leave no moment at which all that is committed is answered.
                await self._shown.wait()
            if not self._mutations:
                self._more_mutations.clear()
                continue
            assert self._session is not None, "Connect comes first"
            session = self._sync.sessions.setdefault(self._session, _Session())
            session.users += 1
            try:
                async with session.lock:
                    self._mutating = True
                    await self._mutate_one(self._mutations.popleft())
            finally:
                self._mutating = False
                session.users -= 1
                if not session.users:
                    del self._sync.sessions[self._session]

    async def _mutate_one(self, call: _Call) -> None:
        try:
            prepared = self._prepared("mutation", call)
            outcome, moment = await self._commit(call, prepared)
        except CallError as error:
            outcome, moment = await self._unfit(call, error)
        except ConflictError as error:
            reason = "TooManyConcurrentRequests: the transaction lost against others each time"
            raise ClosedError(1013, reason) from error
        except StoreError as error:
            # Whether or not it took effect: the client asks again, and is told what became of it.
            raise ClosedError(1011, "InternalServerError: the database can't be reached") from error
        finally:
            self._committing = False
        response = {**response_fields(outcome), "ts": moment, "logLines": []}
        self._outbox.send({"type": "MutationResponse", "requestId": call.request, **response})
        self._require(self._live.stamp())
        self._answered.set()
        self._done(call)

    async def _commit(self, call: _Call, prepared: Prepared) -> tuple[Outcome, str | None]:
        """Once for each request of a session: the answer is recorded in the transaction that it is the answer of."""
        session, runner, function = self._session, self._calls.runner, prepared.function
        assert session is not None, "Connect comes first"

        async def body(chain: CallChain, tx: Transaction) -> tuple[tuple[Success, str], list[Event]]:
            recorded = await self._recorded(tx, call)
            if recorded is not None:
                return recorded, []
            self._back = False  # those with a record come first; what happens from here on is new
            result, events = await runner.mutate(chain, function, prepared.arguments(), tx)
            success = self._calls.success(function, result)
            moment = encode_moment(self._live.stamp())
            await tx.insert_client_request(session, call.request, self._clock.now_ms(), f"{moment} {success.value}")
            self._committing = True
            return (success, moment), events

        done = await self._calls.commit(function, call.caller, body)
        return (done, None) if isinstance(done, Failure) else done

    async def _recorded(self, tx: Transaction, call: _Call) -> tuple[Success, str] | None:
        """What was answered before."""
        assert self._session is not None, "Connect comes first"
        recorded = await tx.get_client_request(self._session, call.request)
        if recorded is None:
            return None
        moment, _, value = recorded.partition(" ")
        # Perhaps by another server, whose clock is ahead of ours. The client waits for a transition that is no older.
        self._live.pass_by(decode_moment(moment))
        return Success(value), moment

    async def _unfit(self, call: _Call, error: CallError) -> tuple[Outcome, str | None]:
        """A call that does not fit may have fitted what was deployed before, and have taken effect then."""
        recorded = await self._calls.runner.environment.store.read(lambda tx: self._recorded(tx, call))
        return recorded or (self._calls.failure(error, call.path), None)

    def _prepared(self, kind: FunctionKind, call: _Call) -> Prepared:
        try:
            return self._calls.prepare(kind, call.path, call.args, call.caller)
        except BadPathError as error:
            raise BadMessageError(str(error)) from error

    # Actions.

    def _act(self, message: Reader) -> None:
        if self._acting >= self._sync.limits.actions:
            raise ClosedError(1013, "TooManyConcurrentRequests")
        call = self._call(message)
        task = asyncio.get_running_loop().create_task(self._act_one(call), name="duly sync action")
        self._acting += 1
        self._sync.actions.add(task)
        task.add_done_callback(self._sync.actions.discard)

    async def _act_one(self, call: _Call) -> None:
        try:
            await self._outbox.room.wait()
            self._outbox.send({"type": "ActionResponse", "requestId": call.request, **await self._acted(call)})
        except Exception as error:  # noqa: BLE001 (whatever it is, the client does not wait for an answer)
            self._fail(error)
        finally:
            self._acting -= 1
            self._done(call)

    async def _acted(self, call: _Call) -> dict[str, Any]:
        try:
            outcome = await self._calls.run(self._prepared("action", call), call.caller)
        except CallError as error:
            outcome = self._calls.failure(error, call.path)
        return {**response_fields(outcome), "logLines": []}

    # Identity.

    async def _authenticate(self, message: Reader) -> None:
        base = message.number("baseVersion")
        if base != self._asked[1]:
            raise BadMessageError(f"Authenticate from {base}, and the identity is at {self._asked[1]}")
        try:
            await self._standing.establish(message.fields)
        except IdentityError as error:
            if error.status == 503:
                raise ClosedError(1011, f"InternalServerError: {error.code}") from error
            raise self._refused(error.message, attempted=True) from error
        self._asked[1] += 1
        for id, watched in self._queries.items():
            self._forget(watched)
            again = self._watch(watched.path, watched.args, watched.journal)
            again.sent = watched.sent
            self._queries[id] = again
        self._require(self._live.stamp())

    def _expire(self, why: str) -> None:
        self._fail(self._refused(why, attempted=False))

    def _refused(self, why: str, *, attempted: bool) -> ClosedError:
        return ClosedError(
            message={
                "type": "AuthError",
                "error": why,
                "baseVersion": self._told[1],
                "authUpdateAttempted": attempted,
            }
        )
