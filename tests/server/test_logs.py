"""What is logged has fields, which any formatter can show."""

import logging
from typing import Any

import httpx
import pytest

from duly._model.event import Event
from duly.cli._logs import log_failures
from tests.server.test_http import call


def fields(caplog: pytest.LogCaptureFixture, *names: str) -> list[dict[str, Any]]:
    """The fields of each record that has any."""
    records = [record.__dict__ for record in caplog.records]
    return [found for record in records if (found := {name: record[name] for name in names if name in record})]


async def test_an_error_is_logged_with_the_request_id_that_the_client_was_told(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await call(client, "query", "app:secretive", {})
    (logged,) = fields(caplog, "function", "request_id", "error")
    assert answer["errorMessage"] == f"[Request ID: {logged['request_id']}] Server Error"
    assert logged["function"] == "app:secretive"
    assert "ValueError: the password is swordfish" in logged["error"]


async def test_what_is_the_callers_fault_is_logged_as_info(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "duly")
    await call(client, "query", "app:refusing", {"data": 1})
    await call(client, "query", "app:missing", {})
    assert [
        (record.levelname, vars(record)["function"]) for record in caplog.records if "request_id" in vars(record)
    ] == [
        ("INFO", "app:refusing"),
        ("WARNING", "app:missing"),
    ]


def test_a_failed_job_is_logged_with_its_id_and_its_whole_error(caplog: pytest.LogCaptureFixture) -> None:
    log_failures(Event("failed", "app:pack", 0, "job", "mutation", detail="ValueError: no\nTraceback"))
    log_failures(Event("success", "app:pack", 0, "job", "mutation"))
    assert caplog.messages == ["app:pack failed: ValueError: no (job)"]
    assert fields(caplog, "function", "job_id", "error") == [
        {"function": "app:pack", "job_id": "job", "error": "ValueError: no\nTraceback"}
    ]
