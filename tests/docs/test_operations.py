"""`docs/operations.md` from its first line to its last: every statement and every command, in order, as its roles."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

import duly
from duly._store.transfer import export_to
from tests import postgres
from tests.docs import readme
from tests.docs.readme import ROOT, Background
from tests.support import eventually

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(sql|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROLES = {"the superuser": "", "shop_owner": "secret1", "shop_app": "secret2", "shop_reader": "secret3"}


class Site:
    """A server with the databases and roles of the page, under names of this process' own."""

    def __init__(self, server: str, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._own = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        self.names = [self.named(name) for name in ("shop", "shop_restored")]
        self.roles = [self.named(name) for name in (*ROLES, "shop_seller") if name.startswith("shop_")]

    def named(self, name: str) -> str:
        return f"duly_{name}_{self._own}"

    def translated(self, text: str) -> str:
        """With our own names in it, and the address of our server."""
        text = re.sub(r"\bshop_(?:owner|app|reader|seller|restored)\b", lambda found: self.named(found[0]), text)
        text = re.sub(r"(DATABASE |example\.com/)shop\b", rf"\1{self.named('shop')}", text)
        superuser = self.server.rpartition("@")[0]
        text = text.replace("postgresql://postgres@", f"{superuser}@")
        return text.replace("db.example.com", urlsplit(self.server).netloc.rpartition("@")[2])

    def url(self, role: str, database: str = "shop") -> str:
        if role == "the superuser":
            return postgres.url_of(self.server, self.named(database))
        return self.translated(f"postgresql://{role}:{ROLES[role]}@db.example.com/{database}")

    def run_sql(self, role: str, script: str) -> None:
        """One statement after the other; on the server, as long as the database is not there."""
        url = self.url(role)
        with suppress(psycopg.OperationalError):
            self._run_sql(url, script)
            return
        self._run_sql(self.server, script)

    def _run_sql(self, url: str, script: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in re.split(r";$", self.translated(script), flags=re.MULTILINE):
                if statement.strip():
                    connection.execute(statement.encode())

    def clear(self) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            for name in self.names:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            for name in self.roles:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.fixture
def site(postgresql_server: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(postgresql_server, tmp_path)
    made.clear()
    yield made
    made.clear()


def role_of(script: str) -> str:
    """Every block of SQL says in its first line who runs it."""
    role = script.partition("\n")[0].removeprefix("-- as ")
    assert role in ROLES, f"a block of SQL does not begin with `-- as` and a role: {script}"
    return role


def set_up(site: Site) -> None:
    """What the page does first, up to the grants."""
    (first, migrate, grants) = [found[2] for found in BLOCK.finditer(PAGE)][:3]
    site.run_sql(role_of(first), first)
    readme.write_files(site.folder)
    url = site.translated(shlex.split(migrate.splitlines()[-1].removeprefix("$ "))[-1])
    readme.run(site.folder, *readme.DULY, "migrate", "shop:app", "--database", url)
    site.run_sql(role_of(grants), grants)


# --- the page -------------------------------------------------------------------------------------------------------


class Terminal:
    """Runs the page's commands in a folder that has the shop of README.md."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.background: list[Background] = []
        self._environment = readme.environment()
        programs = site.folder / "bin"
        programs.mkdir()
        command = programs / "duly"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m duly.cli "$@"\n')
        command.chmod(0o755)
        folders = [str(programs), self._environment["PATH"]]
        found = postgres.find_binaries()
        if found is not None:
            folders.insert(1, str(found))
        self._environment["PATH"] = os.pathsep.join(folders)
        self.output: dict[str, str] = {}

    async def run(self, line: str) -> None:
        line = self._site.translated(line)
        words = shlex.split(line, comments=True)
        match words:
            case ["pip", *_]:
                return  # the environment of these tests has it
            case ["export", setting]:
                name, _, value = setting.partition("=")
                self._environment[name] = value
            case ["duly", "worker", *_]:
                url = self._environment["DULY_DATABASE_URL"]
                command = [*readme.DULY, *words[1:], "--database", url]
                self.background.append(Background(self._site.folder, *command))
            case ["pg_dump" | "pg_restore" | "psql", *_]:
                self._shell(line)
            case ["duly" | "xargs", *_]:
                self.output[words[1]] = self._shell(line)
            case _:
                pytest.fail(f"docs/operations.md gives a command that is not tested: {line}")

    def _shell(self, line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self._site.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def can_dump(self) -> bool:
        """Whether this machine has a `pg_dump` that is no older than the server, which it would refuse."""
        if shutil.which("pg_dump", path=self._environment["PATH"]) is None:
            return False
        version = re.search(r"(\d+)", self._shell("pg_dump --version"))
        assert version is not None
        with psycopg.connect(self._site.server) as connection:
            return int(version[0]) >= connection.info.server_version // 10_000

    def end(self) -> None:
        for process in self.background:
            process.end(signal.SIGTERM)


def is_backup(text: str) -> bool:
    return "pg_dump" in text or "pg_restore" in text


@pytest.mark.timeout(120)
async def test_every_command_and_every_statement_of_the_page_works_as_written(site: Site) -> None:
    readme.write_files(site.folder)
    terminal = Terminal(site)
    try:
        for found in BLOCK.finditer(PAGE):
            kind, text = found[1], found[2]
            if kind == "sql":
                await asyncio.to_thread(site.run_sql, role_of(text), text)
            elif not is_backup(text):
                for line in commands(text):
                    await terminal.run(line)
                    if " run " in line:
                        await eventually(
                            lambda: terminal.background[0].has_printed("Dear customer, thank you for ['tea']")
                        )
    finally:
        terminal.end()
    assert "shop:archive_order" in terminal.output["jobs"]


@pytest.mark.timeout(120)
async def test_a_backup_is_restored_and_looked_through_as_the_page_says(site: Site) -> None:
    terminal = Terminal(site)
    if not terminal.can_dump():
        pytest.skip("this machine has no pg_dump that is as new as the server")
    await asyncio.to_thread(set_up, site)
    order = ["run", "shop:app", "shop:create_order", '{"items": ["tea"]}', "--database", site.url("shop_app")]
    readme.run(site.folder, *readme.DULY, *order)
    blocks = [found[2] for found in BLOCK.finditer(PAGE) if is_backup(found[2])]
    assert len(blocks) == 2
    for line in commands("".join(blocks)):
        await terminal.run(line)
    assert "shop:send_confirmation" in terminal.output["jobs"]
    states: dict[str, dict[str, str]] = {}
    for database in ("shop", "shop_restored"):
        with psycopg.connect(site.url("the superuser", database)) as connection:
            jobs = connection.execute("SELECT name, state FROM duly.scheduled_functions").fetchall()
        states[database] = dict(jobs)
    assert states["shop"] == {"shop:archive_order": "pending", "shop:send_confirmation": "pending"}
    assert states["shop_restored"] == {"shop:archive_order": "canceled", "shop:send_confirmation": "canceled"}


def commands(text: str) -> list[str]:
    """Those of a console block."""
    lines = text.splitlines()
    assert all(line.startswith("$ ") for line in lines), f"a line of a console block is no command:\n{text}"
    return [line.removeprefix("$ ") for line in lines]


def test_what_the_page_shows_is_run() -> None:
    """No other kind of block holds a command or a statement."""
    kinds = set(re.findall(r"^```(\w+)$", PAGE, re.MULTILINE))
    assert kinds == {"sql", "console", "ini", "sh", "yaml"}


# --- its roles ------------------------------------------------------------------------------------------------------

ran: list[str] = []


@duly.internal_action
async def act(ctx: duly.ActionCtx, name: str) -> None:
    ran.append(name)


@duly.internal_mutation
async def pay(ctx: duly.MutationCtx, number: int) -> None:
    await ctx.sql("UPDATE invoices SET paid = true WHERE number = $1", number)


@duly.mutation
async def add(ctx: duly.MutationCtx, number: int) -> str:
    await ctx.sql("INSERT INTO invoices (number) VALUES ($1)", number)
    note_id = await ctx.db.insert(notes, {"text": "new"})
    await ctx.db.patch(note_id, {"text": "old"})
    await ctx.db.insert("others", {"text": "gone"})
    await ctx.db.delete(note_id)
    await ctx.scheduler.cancel(await ctx.scheduler.run_after(timedelta(hours=1), pay, number=number))
    await ctx.scheduler.run_after(0, act, name="by the app")
    return await ctx.scheduler.run_after(0, pay, number=number)


@duly.query
async def states(ctx: duly.QueryCtx) -> list[str]:
    jobs: list[Any] = await ctx.db.system.query("_scheduled_functions").collect()
    return [job["state"].get("error", job["state"]["kind"]).partition(":")[0] for job in jobs]


notes = duly.Table("notes", indexes={"by_text": ["text"]})


async def test_the_apps_role_can_do_all_that_an_app_and_its_workers_do(site: Site) -> None:
    await asyncio.to_thread(set_up, site)
    ran.clear()
    owner, url = site.url("shop_owner"), site.url("shop_app")
    table = f"CREATE TABLE invoices (number bigint PRIMARY KEY, paid boolean NOT NULL DEFAULT false);\n{GRANT_INVOICES}"
    await asyncio.to_thread(site.run_sql, "shop_owner", table)
    app = duly.App(__name__, database=url, lease=timedelta(seconds=1), retention=timedelta(days=1))
    other = duly.App(__name__, database=url, lease=timedelta(seconds=1))
    async with app, other.client():
        await other.mutation(add, number=1)  # declared an index, wakes the worker, which has actions and mutations

        async def finished() -> bool:
            return sorted(await other.query(states)) == ["canceled", "success", "success"]

        await eventually(finished)
        assert ran == ["by the app"]
        # A dead worker's action is settled, and what is old is deleted.
        await other.scheduler.run_after(timedelta(hours=1), act, name="never")
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(DEAD)
            connection.execute("UPDATE duly.scheduled_functions SET completed_time = 1 WHERE state = 'canceled'")

        async def settled() -> bool:
            return "interrupted" in await other.query(states)

        await eventually(settled)
    again = duly.App(__name__, database=url, retention=timedelta(days=1))
    async with again:

        async def pruned() -> bool:
            return "canceled" not in await again.query(states)

        await eventually(pruned)
    with psycopg.connect(owner) as connection:
        assert connection.execute("SELECT number, paid FROM invoices").fetchall() == [(1, True)]


GRANT_INVOICES = "GRANT SELECT, INSERT, UPDATE, DELETE ON invoices TO shop_app;"
DEAD = """
WITH dead AS (INSERT INTO duly.workers (id, expires, started_time) VALUES ('dead', 1, 1))
UPDATE duly.scheduled_functions SET state = 'inProgress', due = NULL, started_time = 1, attempts = 1, worker = 'dead'
WHERE state = 'pending'
"""


async def test_the_readers_role_can_not_write(site: Site) -> None:
    await asyncio.to_thread(set_up, site)
    app = duly.App(__name__, database=site.url("shop_app"))
    async with app.client():
        pass  # makes the indexes
    reader = duly.App(__name__, database=site.url("shop_reader"))
    async with reader.client():
        assert await reader.query(states) == []
        with pytest.raises(duly.errors.StoreError, match=r"docs/operations\.md"):
            await reader.scheduler.run_after(0, act, name="refused")
        lines: list[bytes] = []
        assert reader._store is not None
        await export_to(lines.append, reader._store)
        assert len(lines) > 1


async def test_who_only_enlists_needs_no_more_than_the_page_says(site: Site) -> None:
    await asyncio.to_thread(set_up, site)
    await asyncio.to_thread(site.run_sql, "the superuser", "CREATE ROLE shop_seller LOGIN PASSWORD 'secret4';")
    grants = (
        "GRANT USAGE ON SCHEMA duly TO shop_seller;\n"
        "GRANT SELECT, INSERT, UPDATE ON duly.scheduled_functions TO shop_seller;\n"
        "GRANT INSERT ON duly.changes TO shop_seller;"
    )
    await asyncio.to_thread(site.run_sql, "shop_owner", grants)
    url = site.url("shop_app").replace(site.named("shop_app"), site.named("shop_seller")).replace("secret2", "secret4")
    app = duly.App(__name__, database=url)
    with psycopg.connect(url) as connection, connection.transaction():
        scheduler = duly.enlist(connection, app)
        scheduler.cancel(scheduler.run_after(0, act, name="never"))
        scheduler.run_after(0, act, name="later")
    with psycopg.connect(site.url("shop_owner")) as connection:
        found = connection.execute("SELECT state FROM duly.scheduled_functions ORDER BY state").fetchall()
    assert found == [("canceled",), ("pending",)]
