"""The example shop keeps working, and the demo tells the truth."""

import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

import duly
from examples.shop import orders
from examples.shop.demo import free_port
from examples.shop.smtp import serve
from tests.support import eventually

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def shop(database: str) -> duly.App:
    return duly.App("examples.shop", database=database)


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EmailMessage]]:
    received: list[EmailMessage] = []
    port = free_port()
    server = serve(received.append, port)
    monkeypatch.setenv("SHOP_SMTP", f"127.0.0.1:{port}")
    yield received
    server.stop()


async def test_an_order_is_confirmed_by_mail(shop: duly.App, mails: list[EmailMessage]) -> None:
    async with shop:
        await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])

        async def arrived() -> bool:
            return bool(mails)

        await eventually(arrived)
    assert mails[0]["To"] == "ada@example.com"
    assert "tea" in mails[0].get_content()


async def test_an_order_that_fails_leaves_neither_order_nor_job(shop: duly.App) -> None:
    async with shop.client():
        with pytest.raises(duly.AppError):
            await shop.mutation(orders.create_order, email="bob@example.com", items=["unobtainium"])
        assert await shop.query(orders.list_orders) == []
        assert await shop.query(orders.list_jobs) == []


async def test_paying_cancels_the_reminder(shop: duly.App) -> None:
    async with shop.client():
        order_id = await shop.mutation(orders.create_order, email="ada@example.com", items=["tea"])
        await shop.mutation(orders.pay_order, order_id=order_id)
        states = {job["name"]: job["state"]["kind"] for job in await shop.query(orders.list_jobs)}
        assert states == {
            "emails:send_confirmation": "pending",
            "emails:send_reminder": "canceled",
            "orders:archive_order": "pending",
        }


def test_the_demo_keeps_every_promise() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.shop.demo"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "ms later a mail has arrived",
        "exactly once",
        "at most once",
        "interrupted",
        "Every promise was kept",
    ):
        assert line in done.stdout
