"""What is told of the queries that a connection is subscribed to, and of calls."""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import orjson

from duly._call.scope import Pages
from duly._live.live import Live, LiveQuery, Watcher
from duly._store.port import Transaction
from duly.server.caller import Caller
from duly.server.calls import Calls, Failure, Outcome, Prepared, Success
from duly.server.messages import encode_moment

__all__ = ["Result", "Watched", "failing", "response_fields", "result_of", "run_live", "version_fields"]

_REQUEST_ID = re.compile(r"\[Request ID: [0-9a-f]+\]")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run of a live query. Two that are equal need not be told twice."""

    said: str
    data: str | None
    outcome: Outcome = field(compare=False)
    journal: str | None = field(compare=False)


@dataclass(slots=True)
class Watched:
    """A query that a connection is subscribed to."""

    path: str
    args: Any
    journal: str | None
    # Live, or what there is to say of a call that does not fit.
    query: LiveQuery[Result] | Result
    version: int = 0
    sent: Result | None = None

    @property
    def latest(self) -> Result | None:
        return self.query if isinstance(self.query, Result) else self.query.outcome

    def has_news(self) -> bool:
        """Whether its result is not what was told last."""
        if isinstance(self.query, LiveQuery) and self.query.version == self.version:
            return False
        return self.sent is None or self.latest != self.sent

    def tell(self, id: int, live: Live, watcher: Watcher) -> dict[str, Any]:
        """The modification that tells its result, which is told from now on."""
        result = self.latest
        assert result is not None, "all have a result"
        if isinstance(self.query, LiveQuery):
            self.version = self.query.version
            if result.journal is not None:
                # Who comes new gets pages that end where they end now.
                key = (*self.query.key[:-1], result.journal)  # type: ignore[index]
                self.query = live.rename(self.query, key, watcher)
                self.version = self.query.version
        self.sent, self.journal = result, result.journal
        common = {"queryId": id, "logLines": [], "journal": result.journal}
        if isinstance(result.outcome, Success):
            return {"type": "QueryUpdated", **common, "value": orjson.Fragment(result.outcome.value)}
        return {"type": "QueryFailed", **common, **failure_fields(result.outcome, "errorMessage")}


def run_live(
    calls: Calls, prepared: Prepared, caller: Caller, journal: str | None
) -> Callable[[Transaction], Coroutine[Any, Any, Result]]:
    pages = Pages(journal)

    async def run(tx: Transaction) -> Result:
        outcome = await calls.look(prepared, caller, "convex_encoded_json", tx, pages)
        return result_of(outcome, pages.end)

    return run


def failing(calls: Calls, path: str, journal: str | None) -> Callable[[Exception], Result]:
    return lambda error: result_of(calls.failure(error, path), journal)


def result_of(outcome: Outcome, journal: str | None) -> Result:
    if isinstance(outcome, Success):
        return Result(outcome.value, None, outcome, journal)
    return Result("error: " + _REQUEST_ID.sub("", outcome.message), outcome.data, outcome, journal)


def failure_fields(failure: Failure, message: str) -> dict[str, Any]:
    # Clients take the mere presence of data for an error with data.
    data = {} if failure.data is None else {"errorData": orjson.Fragment(failure.data)}
    return {message: failure.message, **data}


def response_fields(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Success):
        return {"success": True, "result": orjson.Fragment(outcome.value)}
    return {"success": False, **failure_fields(outcome, "result")}


def version_fields(version: tuple[int, int, int]) -> dict[str, Any]:
    return {"querySet": version[0], "identity": version[1], "ts": encode_moment(version[2])}
