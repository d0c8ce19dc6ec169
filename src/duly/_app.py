"""The app: where all parts are put together, and the only place that knows them all."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from duly._call.registry import Registry
from duly._call.runner import Runner
from duly._call.scheduler import Scheduler
from duly._call.scope import FROM_OUTSIDE, CallChain, Environment
from duly._ground.ids import IdMaker, SharedIdMaker
from duly._live.live import Live
from duly._live.subscribing import subscribe
from duly._model.event import Observer, both
from duly._model.function import FunctionReference
from duly._model.options import distinct, positive
from duly._model.provider import JWTProvider
from duly._parts import Parts
from duly._store.port import Store
from duly._watch.installed import make_metrics, make_tracer
from duly._work.executor import Executor
from duly.errors import AppNotOpenError, DulyError

if TYPE_CHECKING:
    from duly._watch.metrics import Metrics

__all__ = [
    "BODY_BYTES_MAX",
    "CONNECTIONS_MAX",
    "QUERIES_MAX",
    "REQUESTS_MAX",
    "REQUEST_TIMEOUT",
    "ASGIApp",
    "App",
    "Parts",
]

P = ParamSpec("P")
R = TypeVar("R")

ASGIApp = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]

BODY_BYTES_MAX = (16 << 20) + 2_000
"""Of a request: arguments of 16 MiB, and what is around them."""

CONNECTIONS_MAX = 10_000
"""WebSockets at once."""

QUERIES_MAX = 2_000
"""Queries that one WebSocket is subscribed to."""

REQUESTS_MAX = 1_000
"""Calls over HTTP at once."""

REQUEST_TIMEOUT = timedelta(seconds=60)
"""How long a request may take to arrive."""

_DEFAULT_URL = "sqlite:///duly.db"


class App:
    """A package's (or a single module's) functions and tables, on a database.

    `async with app:` opens the database and runs due functions in this process until the block ends; several processes
    may do so on one database. `async with app.client():` opens it and runs nothing in the background.

    Args:
        name: `__name__` of the package or module; its functions and tables are found when the app is opened.
        database: `sqlite:///shop.db`, `sqlite:///:memory:`. Default: `$DULY_DATABASE_URL`, else `sqlite:///duly.db`.
        retention: How long a finished scheduled function is kept at least; default 7 days.
        concurrent_actions: How many scheduled actions run at once in this process; default 64.
        action_timeout: How long an action may run that does not say otherwise; default 10 minutes.
        mutation_timeout: How long a mutation may run; default 5 seconds.
        lease: How long after a worker was last heard of its actions are given up as interrupted; default 10 seconds.
        drain: How long a worker that is asked to stop waits for running actions; default 30 seconds.
        identity_providers: Whose tokens say who calls, where the app is served; default none: any token is refused.

    Raises:
        TypeError, ValueError: An option is of the wrong type, or not positive.

    Example:
        app = duly.App(__name__, database="sqlite:///shop.db")

        async def main() -> None:
            async with app:
                await app.mutation(create_order, items=["tea"])
    """

    def __init__(
        self,
        name: str,
        *,
        database: str | None = None,
        retention: timedelta = timedelta(days=7),
        concurrent_actions: int = 64,
        action_timeout: timedelta = timedelta(minutes=10),
        mutation_timeout: timedelta = timedelta(seconds=5),
        lease: timedelta = timedelta(seconds=10),
        drain: timedelta = timedelta(seconds=30),
        identity_providers: Sequence[JWTProvider] = (),
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an app is __name__, a str, not {name!r}")
        if database is not None and not isinstance(database, str):
            raise TypeError(f"database is a URL such as 'sqlite:///shop.db', not {database!r}")
        if isinstance(concurrent_actions, bool) or not isinstance(concurrent_actions, int):
            raise TypeError(f"concurrent_actions is an int, not {concurrent_actions!r}")
        if concurrent_actions < 1:
            raise ValueError(f"concurrent_actions must be 1 or more, not {concurrent_actions}")
        self.name = name
        self._database = database
        self._retention = positive("retention", retention)
        self._concurrent_actions = concurrent_actions
        self._action_timeout = positive("action_timeout", action_timeout)
        self._mutation_timeout = positive("mutation_timeout", mutation_timeout)
        self._lease = positive("lease", lease)
        self._drain = positive("drain", drain, zero=True)
        self._identity_providers = distinct(identity_providers)
        self._registry = Registry(name)
        self._parts = Parts()
        # From opening to closing.
        self._store: Store | None = None
        self._runner: Runner | None = None
        self._executor: Executor | None = None
        self._live: Live | None = None
        # Made when they are first asked for, and kept.
        self._metrics: Metrics | None = None
        self._enlisting: Environment | None = None

    def __repr__(self) -> str:
        return f"<duly.App {self.name!r} on {self.database}>"

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self._database or os.environ.get("DULY_DATABASE_URL") or _DEFAULT_URL

    # Opening and closing.

    async def __aenter__(self) -> Self:
        await self._open()
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._stop(self._drain)
        finally:
            await self._close()

    def client(self) -> AbstractAsyncContextManager[Self]:
        """Opens the database to call functions and schedule; due functions are run by workers elsewhere.

        Example:
            async with app.client():
                await app.mutation(create_order, items=["tea"])
        """
        return self._client()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Self]:
        await self._open()
        try:
            yield self
        finally:
            await self._close()

    def asgi(
        self,
        *,
        worker: bool = True,
        cors_origins: Sequence[str] = (),
        max_body: int = BODY_BYTES_MAX,
        max_connections: int = CONNECTIONS_MAX,
        max_queries: int = QUERIES_MAX,
        max_requests: int = REQUESTS_MAX,
        request_timeout: timedelta = REQUEST_TIMEOUT,
        dev: bool = False,
        metrics: bool = True,
    ) -> ASGIApp:
        """A Starlette app that serves the public functions to Convex's clients. Needs `pip install 'duly[server]'`.

        A server such as uvicorn, whose lifespan it gets, makes it open the database. Where it is mounted in another
        ASGI app, nobody passes the lifespan on: open the database there, with `async with app:`.

        Args:
            worker: Whether it runs due functions as well, if it is the one to open the database.
            cors_origins: The origins whose web pages may call, such as `["https://shop.example"]`, besides those of
                this machine; `["*"]` is any.
            max_body: The longest request, in bytes.
            max_connections: How many WebSockets at once; who comes beyond is asked to come again.
            max_queries: How many queries a client may be subscribed to on one of them.
            max_requests: How many calls over HTTP at once; more are answered with status 503.
            request_timeout: How long the body of a request may take to arrive; then it is answered with status 408.
            dev: Whether clients are told the errors of functions. They may hold what is nobody's business.
            metrics: Whether what happens is counted, for Prometheus at `/metrics`, if `duly[metrics]` is installed.

        Raises:
            DulyError: Starlette is not installed.
            ValueError: request_timeout is not positive.

        Example:
            server = app.asgi(cors_origins=["https://shop.example"])  # uvicorn shop:server
        """
        if isinstance(cors_origins, str):
            raise TypeError(f"cors_origins is a list of origins: [{cors_origins!r}]")
        if request_timeout <= timedelta(0):
            raise ValueError(f"request_timeout is longer than nothing, not {request_timeout!r}")
        try:
            # Installed only if wanted.
            from duly.server.asgi import make_asgi  # noqa: PLC0415
            from duly.server.caller import Authenticator  # noqa: PLC0415
            from duly.server.calls import Calls  # noqa: PLC0415
            from duly.server.limits import Limits  # noqa: PLC0415
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            raise DulyError(f"{missing} is not installed; serving needs pip install 'duly[server]'") from error
        return make_asgi(
            Calls(self._running, dev=dev),
            lambda: self._executor,
            lambda: self._opened(worker),
            name=self.name,
            cors_origins=cors_origins,
            max_body=max_body,
            max_requests=max_requests,
            request_s=request_timeout.total_seconds(),
            limits=Limits(max_connections, max_queries),
            authenticator=Authenticator(
                self._identity_providers, self._parts.clock, lambda: self._running().environment.store
            ),
            clock=self._parts.clock,
            live=self._running_live,
            metrics=self._count() if metrics else None,
        )

    @asynccontextmanager
    async def _opened(self, worker: bool) -> AsyncIterator[None]:
        """Opens the database, unless it is open."""
        if self._store is not None:
            yield
            return
        async with self if worker else self.client():
            yield

    async def _open(self) -> None:
        if self._store is not None:
            raise DulyError(f"{self!r} is open already; open it once, or make another App")
        parts = self._parts
        self._registry.load()
        store = parts.make_store(self.database, parts.clock)
        store.expect_bodies(self._mutation_timeout.total_seconds())
        await store.open(list(self._registry.tables.values()))
        self._use(store)

    async def _migrate(self) -> tuple[int, int]:
        """Brings the database's schema up to date: the version before and after."""
        store: Store = self._parts.make_store(self.database, self._parts.clock)
        return await store.migrate()

    def _use(self, store: Store) -> None:
        """Has calls run on a store that is open."""
        self._store = store
        self._runner = Runner(self._environment(store, IdMaker(self._parts.entropy), self._parts.observer))
        self._live = Live(store, store.clock, self._parts.entropy)

    def _environment(self, store: Store, ids: IdMaker, observer: Observer | None) -> Environment:
        parts = self._parts
        return Environment(
            registry=self._registry,
            store=store,
            clock=store.clock,
            entropy=parts.entropy,
            ids=ids,
            action_timeout=self._action_timeout,
            mutation_timeout_s=self._mutation_timeout.total_seconds(),
            foreign_wait="error" if parts.strict else "warn",
            observer=observer,
            tracer=make_tracer(parts.tracer_provider),
        )

    def _observe(self, observer: Observer) -> None:
        """Has one more told of what happens from now on."""
        parts = self._parts
        parts.observer = both(parts.observer, observer)
        if self._runner is not None:
            self._runner.environment.observer = parts.observer

    def _count(self) -> "Metrics | None":
        """Counts what happens from now on, for whoever asks; None if what it takes is not installed."""
        if self._metrics is None:
            self._metrics = make_metrics(
                lambda: self._running().environment.store, lambda: self._live, lambda: self._executor
            )
            if self._metrics is not None:
                self._observe(self._metrics.observe)
        return self._metrics

    def _enlist(self) -> Environment:
        """What schedules in transactions that are not this app's; in any thread. Its store is not opened.

        Nobody observes: that such a transaction commits is not known here.
        """
        self._registry.load()
        if self._enlisting is None:
            store = self._parts.make_store(self.database, self._parts.clock)
            self._enlisting = self._environment(store, SharedIdMaker(self._parts.entropy), None)
        return self._enlisting

    def _twin(self, database: str, parts: Parts) -> "App":
        """An app of the same functions and options on another database."""
        twin = App(
            self.name,
            database=database,
            retention=self._retention,
            concurrent_actions=self._concurrent_actions,
            action_timeout=self._action_timeout,
            mutation_timeout=self._mutation_timeout,
            lease=self._lease,
            drain=self._drain,
            identity_providers=self._identity_providers,
        )
        twin._parts = parts
        return twin

    def _make_executor(self) -> Executor:
        runner = self._running()
        return Executor(
            runner.environment,
            runner,
            concurrent_actions=self._concurrent_actions,
            lease=self._lease,
            retention=self._retention,
            keep=self._parts.keep,
        )

    async def _start(self) -> None:
        self._executor = self._make_executor()
        await self._executor.start()

    async def _stop(self, drain: timedelta) -> None:
        if self._executor is not None:
            await self._executor.stop(drain.total_seconds())
            self._executor = None

    async def _close(self) -> None:
        store, self._store, self._runner = self._store, None, None
        if self._live is not None:
            await self._live.close()
            self._live = None
        if store is not None:
            await store.close()

    def _running(self) -> Runner:
        if self._runner is None:
            raise AppNotOpenError
        return self._runner

    def _running_live(self) -> Live:
        if self._live is None:
            raise AppNotOpenError
        return self._live

    # Calling.

    def _chain(self) -> CallChain:
        """Of a call from Python: what it schedules belongs to what the caller is tracing, if anything."""
        tracer = self._running().environment.tracer
        return FROM_OUTSIDE if tracer is None else CallChain(trace=tracer.current())

    @overload
    async def query(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a query on a snapshot of its own.

        Args:
            function: A query, by reference or path; public or internal.
            args, kwargs: Its arguments.

        Returns:
            What it returns.

        Raises:
            FunctionNotFoundError, ArgumentError, ReturnValueError: The call does not fit the function.
            Exception: Whatever it raises.

        Example:
            order = await app.query(get_order, order_id=order_id)
        """
        return await self._running().query(self._chain(), function, args, kwargs)

    @overload
    async def mutation(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def mutation(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs a mutation. When it returns, all it wrote and scheduled is durable (rule T2); if it raises, nothing is.

        Args:
            function: A mutation, by reference or path; public or internal.
            args, kwargs: Its arguments.

        Returns:
            What it returns.

        Raises:
            FunctionNotFoundError, ArgumentError, ReturnValueError: The call does not fit the function.
            ConflictError: It lost against other transactions each time it was retried (rule T1).
            Exception: Whatever it raises.

        Example:
            order_id = await app.mutation(create_order, items=["tea"])
        """
        return await self._running().mutation(self._chain(), function, args, kwargs)

    @overload
    async def action(self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def action(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    async def action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Runs an action here and now, and waits for it. To have it run in the background, schedule it.

        Args:
            function: An action, by reference or path; public or internal.
            args, kwargs: Its arguments.

        Returns:
            What it returns.

        Raises:
            FunctionNotFoundError, ArgumentError, ReturnValueError: The call does not fit the function.
            LimitError: It ran out of time.
            Exception: Whatever it raises.

        Example:
            await app.action(send_confirmation, order_id=order_id)
        """
        return await self._running().action(self._chain(), function, args, kwargs)

    @overload
    def subscribe(
        self, function: FunctionReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[R]: ...
    @overload
    def subscribe(self, function: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]: ...
    def subscribe(self, function: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """A query's result now, and each later one that differs from the one before, as commits by whomever change it.

        It is computed again only when something that it read has changed, once for all who subscribe to the same. Who
        is slow gets the newest result, and none of those in between. It ends when the app is closed.

        Args:
            function: A query, by reference or path; public or internal.
            args, kwargs: Its arguments.

        Returns:
            An iterator over the results, for `async for`.

        Raises:
            FunctionNotFoundError, ArgumentError: The call does not fit the function.
            Exception: Whatever the query raises; that ends the subscription.

        Example:
            async for order in app.subscribe(get_order, order_id=order_id):
                print(order)
                break
        """
        runner = self._running()
        known, stored = runner.prepare_stored("query", function, args, kwargs)
        return subscribe(self._running_live(), runner, self._chain(), known, stored)

    @property
    def scheduler(self) -> Scheduler:
        """Schedules from ordinary Python: each call is a transaction of its own, durable when it returns.

        Example:
            await app.scheduler.run_after(timedelta(hours=1), remind, order_id=order_id)
        """
        return self._running().scheduler(self._chain())
