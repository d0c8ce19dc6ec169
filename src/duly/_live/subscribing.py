"""Subscribing from Python: the result of a query, and each later one that differs."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from duly._call.registry import Function
from duly._call.runner import Runner
from duly._call.scope import CallChain
from duly._ground.tasks import is_being_cancelled
from duly._live.live import Live
from duly._store.port import Transaction
from duly.errors import AppNotOpenError, ConflictError, StoreError

__all__ = ["subscribe"]


class _Outcome(NamedTuple):
    value: Any
    error: BaseException | None


class _Bell:
    def __init__(self) -> None:
        self.rung = asyncio.Event()

    def wake(self) -> None:
        self.rung.set()


async def subscribe(
    live: Live, runner: Runner, chain: CallChain, function: Function, stored: str
) -> AsyncIterator[Any]:
    """See `App.subscribe`. `stored` is what `Signature.store` made of the arguments."""
    tags = runner.environment.registry.tags

    async def run(tx: Transaction) -> _Outcome:
        try:
            # Each run has arguments of its own, so that none sees what the one before did to them.
            value = await runner.look(chain, function, function.signature.load(stored, tags), tx)
        except (StoreError, ConflictError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            return _Outcome(None, error)  # it is the query's, and told to those who watch it
        return _Outcome(value, None)

    bell = _Bell()
    query = live.watch(("python", function.path, stored), run, bell, fail=lambda error: _Outcome(None, error))
    try:
        seen = 0
        while True:
            while query.version == seen:
                if live.closed:
                    raise AppNotOpenError
                bell.rung.clear()
                await bell.rung.wait()
            seen = query.version
            assert query.outcome is not None, "it has a version"
            if query.outcome.error is not None:
                raise query.outcome.error
            # Others watch the same.
            yield copy.deepcopy(query.outcome.value)
    finally:
        live.unwatch(query, bell)
