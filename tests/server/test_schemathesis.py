"""What the OpenAPI document says of the server is so: schemathesis makes requests from it, good ones and bad ones."""

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import duly
import examples.shop as shop
from duly.cli._server import listen, served, url_of
from duly.codegen import openapi
from tests.codegen import every

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NUMERIC = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
# What no schema can tell: check digits and the table of an id, keys of any object, a moment that is held, who asks.
UNTOLD = re.compile(
    r"is no id|is the id of another table|has other characters than|begins with '\$'|should be callable"
    r"|SnapshotTooOld|InvalidAuthHeader|only an admin"
)
# Of what is the same for every app, and of the functions of one.
COMMON, OWN = re.compile("^/api/(?!run/)"), re.compile("^/api/run/")


@contextmanager
def serving(app: duly.App) -> Iterator[str]:
    """The URL at which the app is served, as `duly serve --dev` does it, by a thread."""
    begun, loop, done = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with app.client(), served(app, app.asgi(dev=True), listening):
            begun.set()
            await done.wait()

    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        assert begun.wait(60)
        try:
            yield url_of(listening)
        finally:
            loop.call_soon_threadsafe(done.set)
            thread.join(60)
            loop.close()


def everything(part: Any) -> Iterator[Any]:
    yield part
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from everything(child)


def is_taken_on_purpose(body: Any) -> bool:
    """Whether the server takes what the document does not offer: what clients get away with, but should not learn."""
    if not isinstance(body, dict):
        return False
    parts = [*everything(body)]
    inexact = any(type(part) in (int, float) and abs(part) > 2**53 for part in parts)
    # Pydantic takes seconds since 1970 for a date or a datetime, and seconds for a duration; also as a string.
    seconds = any(isinstance(part, str) and NUMERIC.fullmatch(part) for part in parts)
    return inexact or seconds or isinstance(body.get("args"), list) or ("format" in body and body["format"] is None)


def check_good(case: Case[Any], answer: httpx.Response) -> None:
    refused = answer.is_client_error or "ArgumentValidationError" in answer.text
    assert not refused or UNTOLD.search(answer.text), answer.text


def check_bad(case: Case[Any], answer: httpx.Response) -> None:
    told = answer.json()
    failed = [one.get("status") == "error" for one in told.get("results", [told])]
    sent = answer.request.content
    assert answer.is_client_error or any(failed) or is_taken_on_purpose(case.body), f"{sent!r} {answer.text}"


MODES = {
    "good": (GenerationMode.POSITIVE, check_good),
    "bad": (GenerationMode.NEGATIVE, check_bad),
}


def check_operation(
    operation: APIOperation[Any, Any, Any, Any],
    client: httpx.Client,
    mode: GenerationMode,
    check: Callable[[Case[Any], httpx.Response], None],
    examples: int,
) -> int:
    """Makes requests; returns how many."""
    requests = 0

    @settings(
        max_examples=examples,
        phases=[Phase.generate, Phase.shrink],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check_one(case: Case[Any]) -> None:
        nonlocal requests
        request = case.as_transport_kwargs(base_url=str(client.base_url))
        request["content"] = request.pop("data", None)
        del request["cookies"]
        answer = client.request(**request)
        requests += 1
        case.validate_response(answer, checks=CHECKS)
        check(case, answer)

    check_one()
    return requests


def check_app(module: Any, tmp_path: Path, mode: str, paths: re.Pattern[str], examples: int) -> None:
    app = duly.App(module.__name__, database=f"sqlite:///{tmp_path / 'test.db'}")
    schema = from_dict(openapi(app))
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for operation in operations:
            takes_nothing = operation.path == "/api/query_ts"
            if paths.match(operation.path) and not (takes_nothing and mode == "bad"):
                made = check_operation(operation, client, *MODES[mode], examples)
                assert made == 1 if takes_nothing else made >= examples // 2, operation.label


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Each refused call is a line in the log, and there are thousands."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("mode", MODES)
def test_common_operations_are_as_the_document_says(tmp_path: Path, mode: str) -> None:
    check_app(every, tmp_path, mode, COMMON, 10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("module", [every, shop])
def test_functions_are_as_the_document_says(tmp_path: Path, module: Any, mode: str) -> None:
    check_app(module, tmp_path, mode, OWN, 10)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("module", [every, shop])
def test_many_requests_are_answered_as_the_document_says(tmp_path: Path, module: Any, mode: str) -> None:
    check_app(module, tmp_path, mode, re.compile(""), 300)
