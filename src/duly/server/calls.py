"""Calls from clients: by path, of public functions only, with values that came over the network."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

from duly._call.registry import Function
from duly._call.runner import Runner
from duly._call.scope import CallChain, Pages
from duly._ground.tasks import is_being_cancelled
from duly._model.event import Answered, Event, Origin
from duly._model.failure import describe_failure
from duly._model.function import FunctionKind
from duly._model.tracing import Span
from duly._store.port import Transaction
from duly.errors import (
    AppError,
    ArgumentError,
    ConflictError,
    InvalidValueError,
    LimitError,
    ReturnValueError,
    StoreError,
)
from duly.server.caller import Caller
from duly.server.values import Format, decode, encode

__all__ = [
    "BadPathError",
    "CallError",
    "Caller",
    "Calls",
    "Failure",
    "Outcome",
    "Prepared",
    "Success",
    "canonical_path",
]

T = TypeVar("T")

_log = logging.getLogger("duly")

_MODULE_STEP = re.compile(r"(?=.*[A-Za-z0-9])(?!.*\.\.)[A-Za-z0-9_.]{1,64}", re.ASCII)
_NAME = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


class BadPathError(ValueError):
    """What can't be the path of a function: an error of the client, not of a function."""


class CallError(Exception):
    """A call that does not fit: no such function for this caller, another kind, other arguments.

    The message is for developers; clients are told of it by `Calls.failure`.
    """


class Success(NamedTuple):
    """What a function returned, as JSON text in the format that was asked for."""

    value: str


class Failure(NamedTuple):
    """Why there is no result.

    Attributes:
        message: For developers; without `dev` it says nothing but a request id, which the server's log has, too.
        data: The data of an `AppError` as JSON text. None: it was no `AppError`.
    """

    message: str
    data: str | None = None


Outcome = Success | Failure


class Prepared:
    """A call that fits: its function, and its arguments as often as they are needed.

    Args:
        function: What to run.
        receive: Makes the arguments.
    """

    def __init__(self, function: Function, receive: Callable[[], dict[str, Any]]) -> None:
        self.function = function
        self._receive = receive
        self._first: dict[str, Any] | None = receive()

    def arguments(self) -> dict[str, Any]:
        """The arguments, made anew each time: a function may change what it is given, and may have to run again."""
        first, self._first = self._first, None
        return self._receive() if first is None else first


class Calls:
    """Runs functions for clients.

    Args:
        runner: The runner of the app, while it is open.
        dev: Whether clients are told of errors that are not meant for them.
    """

    def __init__(self, runner: Callable[[], Runner], *, dev: bool = False) -> None:
        self._runner = runner
        self._dev = dev
        # Calls that are not answered yet.
        self.in_flight: Counter[FunctionKind] = Counter()

    @property
    def runner(self) -> Runner:
        """Raises `AppNotOpenError` unless the app is open."""
        return self._runner()

    def prepare(self, kind: FunctionKind | None, path: str, args: Any, caller: Caller) -> Prepared:
        """Checks a call: visibility before kind before arguments.

        Args:
            kind: What the client takes the function for; None: whatever it is.
            path: Its name, as the client writes it.
            args: An object with the arguments, or a list that holds one, as parsed JSON.
            caller: Who calls. Only an admin may call internal functions.

        Raises:
            BadPathError: The path can't be one.
            CallError: The call does not fit.
        """
        path = canonical_path(path)
        registry = self.runner.environment.registry
        function = registry.functions.get(path)
        if function is None or not (function.public or caller.is_admin):
            # The same for both, so that nobody learns what internal functions there are.
            raise CallError(f"Could not find public function for '{path}'.")
        if kind is not None and function.kind != kind:
            raise CallError(
                f"Trying to execute {path} as {kind.capitalize()}, but it is defined as {function.kind.capitalize()}."
            )
        if isinstance(args, list) and len(args) <= 1:
            args = args[0] if args else {}
        if not isinstance(args, dict):
            raise CallError(f"ArgumentValidationError: the arguments of '{path}' are one object")

        def receive() -> dict[str, Any]:
            arguments = decode(args)
            if not isinstance(arguments, dict):
                raise InvalidValueError(f"the arguments of '{path}' are one object")
            return function.signature.receive(arguments, registry.tags)

        try:
            return Prepared(function, receive)
        except (ArgumentError, InvalidValueError, LimitError) as error:
            raise CallError(f"ArgumentValidationError: {error}") from error

    async def run(self, prepared: Prepared, caller: Caller, format: Format = "convex_encoded_json") -> Outcome:
        """Runs a function by itself; a query or mutation in a transaction of its own.

        Raises:
            ConflictError, StoreError: The store can't run a query or mutation; the function is not to blame.
        """
        runner, function = self.runner, prepared.function

        async def read(chain: CallChain) -> Success:
            return await runner.environment.store.read(lambda tx: self._query(chain, prepared, format, tx))

        async def act(chain: CallChain) -> Success:
            return self.success(function, await runner.act(chain, function, prepared.arguments()), format)

        async def body(chain: CallChain, tx: Transaction) -> tuple[Success, list[Event]]:
            result, events = await runner.mutate(chain, function, prepared.arguments(), tx)
            # In the transaction: a mutation whose result can't be sent has failed, and leaves no trace.
            return self.success(function, result, format), events

        if function.kind == "mutation":
            return await self.commit(function, caller, body, format)
        return await self._answer(function, caller, read if function.kind == "query" else act, format)

    async def commit(
        self,
        function: Function,
        caller: Caller,
        body: Callable[[CallChain, Transaction], Awaitable[tuple[T, list[Event]]]],
        format: Format = "convex_encoded_json",
    ) -> T | Failure:
        """Runs a body that runs a mutation, in a transaction of its own.

        Raises:
            ConflictError, StoreError: The store can't run it; the function is not to blame.
        """
        return await self._answer(
            function, caller, lambda chain: self.runner.perform(function, partial(body, chain)), format
        )

    async def look(
        self, prepared: Prepared, caller: Caller, format: Format, tx: Transaction, pages: Pages | None = None
    ) -> Outcome:
        """Runs a query on a snapshot that is open. `pages` is given where a client is subscribed to it.

        Raises:
            ConflictError, StoreError: The store can't run it; the function is not to blame.
        """

        async def run(chain: CallChain) -> Success:
            return await self._query(chain, prepared, format, tx, pages)

        return await self._answer(prepared.function, caller, run, format, "client" if pages is None else "subscription")

    async def _query(
        self, chain: CallChain, prepared: Prepared, format: Format, tx: Transaction, pages: Pages | None = None
    ) -> Success:
        result = await self.runner.look(chain, prepared.function, prepared.arguments(), tx, pages)
        return self.success(prepared.function, result, format)

    async def _answer(
        self,
        function: Function,
        caller: Caller,
        call: Callable[[CallChain], Awaitable[T]],
        format: Format,
        origin: Origin = "client",
    ) -> T | Failure:
        """What a call comes to. Those who watch are told."""
        environment = self.runner.environment
        began = environment.clock.now_ms()
        outcome: Answered = "abandoned"
        self.in_flight[function.kind] += 1
        traced: AbstractContextManager[Span | None] = nullcontext()
        if environment.tracer is not None and origin == "client":
            traced = environment.tracer.client(function.path, function.kind)
        try:
            with traced as span:
                answer = await call(CallChain(identity=caller.identity, trace=None if span is None else span.trace))
            outcome = "success"
            return answer
        except BaseException as error:  # noqa: BLE001 (a function may raise anything)
            if isinstance(error, (ConflictError, StoreError)):
                outcome = "unavailable"
            failure = self._failure_in(function, error, format)
            outcome = "failed" if failure.data is None else "app_error"
            return failure
        finally:
            self.in_flight[function.kind] -= 1
            if environment.observer is not None:
                now = environment.clock.now_ms()
                took = now - began
                environment.emit(
                    Event("answered", function.path, now, None, function.kind, None, took, None, origin, outcome)
                )

    def _failure_in(self, function: Function, error: BaseException, format: Format) -> Failure:
        """Raises it again if it is not the function's, but the store's or that of whoever ends this task."""
        is_stores = isinstance(error, (ConflictError, StoreError)) and function.kind != "action"
        is_end = isinstance(error, asyncio.CancelledError) and is_being_cancelled()
        if is_stores or is_end or isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            raise error
        return self.failure(error, function.path, format)

    def success(self, function: Function, result: Any, format: Format = "convex_encoded_json") -> Success:
        """What to send of a result.

        Raises:
            ReturnValueError: It can't be sent.
        """
        shown = function.signature.show_return(result)
        try:
            return Success(encode(shown, format))
        except (InvalidValueError, LimitError) as error:
            raise ReturnValueError(function.path, [f"it can't be sent to a client: {error}"]) from error

    def failure(self, error: BaseException, path: str, format: Format = "convex_encoded_json") -> Failure:
        """What to send of an error, which is logged under the request id that is sent.

        Args:
            error: A `CallError`, or what a function raised.
            path: The function, for the log.
            format: How to write the data of an `AppError`.
        """
        data = None
        if isinstance(error, AppError):
            try:
                data = encode(error.data, format)
            except (InvalidValueError, LimitError) as problem:
                error = ReturnValueError(path, [f"it is an AppError whose data can't be sent: {problem}"])
        match error:
            case CallError():
                detail = str(error)
            case AppError(data=str(text)):
                detail = f"Uncaught ConvexError: {text}"
            case AppError():
                detail = f"Uncaught ConvexError: {data}"
            case ReturnValueError():
                detail = f"ReturnsValidationError: {error}"
            case _:
                detail = f"Uncaught {describe_failure(error)}"
        environment = self.runner.environment
        request_id = environment.entropy.token(8).hex()
        level = logging.WARNING if isinstance(error, CallError) else logging.ERROR
        if isinstance(error, AppError):
            level = logging.INFO  # what the function has to say to its caller is nobody's mistake
        fields = {"function": path, "request_id": request_id, "error": detail}
        _log.log(
            level,
            "%s [Request ID: %s] %s",
            path,
            request_id,
            detail,
            extra=fields,
        )
        if isinstance(error, CallError):
            # The path is whatever the client made up.
            refused = Event("answered", "", environment.clock.now_ms(), origin="client", outcome="refused")
            environment.emit(refused)
        headline = f"[Request ID: {request_id}] Server Error"
        return Failure(f"{headline}\n{detail}" if self._dev else headline, data)


def canonical_path(text: str) -> str:
    """A function's path from the name that a client has for it: `orders.js:list` is `orders:list`.

    Raises:
        BadPathError: It can't be one.

    Example:
        >>> canonical_path("admin/users.js:remove"), canonical_path("greet")
        ('admin/users:remove', 'greet:default')
    """
    module, colon, name = text.rpartition(":")
    if not colon:
        module, name = text, "default"
    steps = module.removesuffix(".js").split("/")
    if not _NAME.fullmatch(name) or not all(_MODULE_STEP.fullmatch(step) for step in steps) or "." in steps[-1]:
        raise BadPathError(f"{text[:200]!r} is no path of a function, such as 'orders:create_order'")
    return f"{'/'.join(steps)}:{name}"
