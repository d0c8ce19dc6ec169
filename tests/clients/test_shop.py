"""The front end of the example shop: built as its README says, and used in a real browser."""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

import duly
from examples.shop import orders
from examples.shop.smtp import serve
from tests.clients.driver import Driver, browser_driver
from tests.clients.packages import NODE, packages
from tests.clients.server import ROOT, Server
from tests.postgres import free_port

WEB = ROOT / "examples" / "shop" / "web"
MADE = shutil.ignore_patterns("node_modules", "dist")


@pytest.fixture(scope="module")
def mails() -> Iterator[list[EmailMessage]]:
    """What was sent by the shop, of this process and of others."""
    received: list[EmailMessage] = []
    port = free_port()
    postbox = serve(received.append, "127.0.0.1", port)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SHOP_SMTP", f"127.0.0.1:{port}")
        yield received
    postbox.stop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('shop') / 'shop.db'}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, database: str, mails: list[EmailMessage]) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), database, app="examples.shop:app") as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shop: Server) -> Path:
    """What `npm run build` makes."""
    web = tmp_path_factory.mktemp("site") / "web"
    shutil.copytree(WEB, web, ignore=MADE)
    modules = packages() / "node_modules"
    (web / "node_modules").symlink_to(modules)
    for command in (["typescript/bin/tsc", "--noEmit"], ["vite/bin/vite.js", "build"]):
        done = subprocess.run(
            [NODE, modules / command[0], *command[1:]],
            cwd=web,
            env={**os.environ, "VITE_DULY_URL": shop.url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return web / "dist"


@pytest.fixture
async def browser(site: Path) -> AsyncIterator[Driver]:
    async with browser_driver(site) as browser:
        await browser.ask("visit")
        yield browser


async def place(browser: Driver, email: str) -> None:
    await browser.ask("until", expression="document.querySelector('.connection').innerText === 'live'")
    await browser.ask("fill", selector="input[type=email]", text=email)
    await browser.ask("click", selector="text=Place the order")


async def shows(browser: Driver, email: str, *words: str) -> str:
    """Waits until the order of an address reads so, as regular expressions, and returns what it reads."""
    pattern = json.dumps(r"\s+".join(words))
    order = f"[...document.querySelectorAll('.order')].find((order) => order.innerText.includes({json.dumps(email)}))"
    text: str = await browser.ask("until", expression=f"new RegExp({pattern}).exec({order}?.innerText)?.[0]")
    return text


async def test_an_order_is_placed_and_what_is_scheduled_counts_down(browser: Driver, mails: list[EmailMessage]) -> None:
    await browser.ask(
        "evaluate",
        expression="""
            window.shown = [];
            const count = (what) => document.querySelectorAll(what).length;
            const look = () => [count(".order"), count(".order[aria-busy=true]")];
            const observer = new MutationObserver(() => window.shown.push(look()));
            observer.observe(document.body, { childList: true, subtree: true });
        """,
    )
    await place(browser, "ada@example.com")
    await shows(browser, "ada@example.com", "open", "Confirmation", r"done \d")
    assert "ada@example.com" in {mail["To"] for mail in mails}
    left = r"in 2 d 23:\d\d:\d\d"
    reminder = await shows(browser, "ada@example.com", "Reminder", left)
    await shows(browser, "ada@example.com", f"(?!{reminder})Reminder", left)
    # What was shown before the server answered has made room for the server's in one step.
    shown: list[list[int]] = await browser.ask("evaluate", expression="window.shown")
    assert [count for count, _ in shown] == sorted(count for count, _ in shown)
    assert {placing for _, placing in shown} == {0, 1}


async def test_an_order_is_canceled_with_what_was_to_happen_to_it(browser: Driver) -> None:
    await place(browser, "bob@example.com")
    await shows(browser, "bob@example.com", "Confirmation", r"done \d")
    await browser.ask("click", selector=".order:has-text('bob@example.com') >> text=Cancel order")
    left = ["Reminder", "canceled .*", "Archiving", "canceled"]
    await shows(browser, "bob@example.com", "canceled", "Confirmation", "done .*", *left)


async def test_an_order_is_paid_and_nobody_is_reminded(browser: Driver) -> None:
    await place(browser, "cid@example.com")
    await browser.ask("click", selector=".order:has-text('cid@example.com') >> text=Mark as paid")
    left = ["Reminder", "canceled .*", "Archiving", "in 6 d"]
    await shows(browser, "cid@example.com", "paid", "Confirmation", ".*", *left)


async def test_an_order_that_is_refused_is_gone_and_the_page_says_why(browser: Driver) -> None:
    await browser.ask("click", selector="text=unobtainium")
    await place(browser, "dan@example.com")
    await browser.ask("until", expression="document.querySelector('form [role=alert]').innerText.includes('sold out')")
    shown: str = await browser.ask("evaluate", expression="document.querySelector('.orders').innerText")
    assert "dan@example.com" not in shown


async def test_an_order_from_elsewhere_appears_and_time_passes_for_it(
    browser: Driver, database: str, mails: list[EmailMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "REMINDER_AFTER", timedelta(seconds=1))
    monkeypatch.setattr(orders, "ARCHIVED_AFTER", timedelta(seconds=2))
    async with duly.App("examples.shop", database=database).client() as elsewhere:
        await elsewhere.mutation(orders.create_order, email="eve@example.com", items=["tea", "a pot"])
    done = ["Confirmation", "done .*", "Reminder", "done .*", "Archiving", "done"]
    await shows(browser, "eve@example.com", "archived", *done)
    assert [mail["Subject"] for mail in mails if mail["To"] == "eve@example.com"] == [
        "Thank you for your order",
        "Your order is waiting for you",
    ]


def test_what_duly_codegen_writes_for_it_is_up_to_date(shop: Server) -> None:
    shop.duly("codegen", "--typescript", str(WEB / "src" / "convex" / "_generated"), "--check")


def test_it_is_built_with_the_versions_that_the_tests_install() -> None:
    web = json.loads((WEB / "package.json").read_text())
    installed = json.loads((ROOT / "tests" / "clients" / "package.json").read_text())["dependencies"]
    for name, version in {**web["dependencies"], **web["devDependencies"]}.items():
        assert installed[name] == version, name
