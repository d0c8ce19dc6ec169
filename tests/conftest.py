"""What every test may use."""

import os
import signal
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: the processes that tests start, and send Ctrl-C to, would ignore it as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["file", "memory", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database: every rule holds on every engine."""
    return database_of(request, request.param)


@pytest.fixture(params=["file", "postgresql"])
def lasting_database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database that outlives a process, or has several."""
    return database_of(request, request.param)


@pytest.fixture(params=["file", "memory"])
def embedded_database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty SQLite database: for what only that engine can be made to do."""
    return database_of(request, request.param)


@pytest.fixture
def file_database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database in a file."""
    return database_of(request, "file")


def database_of(request: pytest.FixtureRequest, engine: str) -> str:
    if engine == "memory":
        return "sqlite:///:memory:"
    if engine == "file":
        return f"sqlite:///{request.getfixturevalue('tmp_path') / 'test.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


# --- PostgreSQL -----------------------------------------------------------------------------------------------------

SERVER = pytest.StashKey[postgres.Server]()
SERVER_LOG = "DULY_TEST_POSTGRESQL_LOG"
LINES_MAX = 30


def pytest_configure(config: pytest.Config) -> None:
    """One server for all workers: it is started by the process that starts them, and told by the environment."""
    starts_workers = not hasattr(config, "workerinput") and bool(config.getoption("tx", None))
    if not starts_workers or config.option.collectonly or postgres.VARIABLE in os.environ:
        return
    if postgres.find_binaries() is not None:
        server = config.stash[SERVER] = postgres.Server.start()
        os.environ[postgres.VARIABLE] = server.url()
        os.environ[SERVER_LOG] = str(server.log)


def pytest_unconfigure(config: pytest.Config) -> None:
    server = config.stash.get(SERVER, None)
    if server is not None:
        del os.environ[postgres.VARIABLE], os.environ[SERVER_LOG]
        server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None], item: pytest.Item
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a test that fails comes what the server said meanwhile of this worker's databases."""
    report = yield
    if report.failed and (path := os.environ.get(SERVER_LOG)):
        since = datetime.fromtimestamp(call.start, UTC).strftime("%Y-%m-%d %H:%M:%S")
        with Path(path).open(errors="replace") as log:
            lines = [line for line in log if f"] {database_name()}" in line and line >= since]
        if lines:
            report.sections.append(("What PostgreSQL said", "".join(lines[-LINES_MAX:])))
    return report


def database_name() -> str:
    return f"duly_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server, of its superuser. A test makes databases there only under names of its own."""
    named = os.environ.get(postgres.VARIABLE)
    if named is not None:
        yield named
    else:
        with postgres.Server.start() as server:
            yield server.url()


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server: str) -> str:
    """The URL of this worker's database, made once. For a test: `postgresql_url`."""
    url = postgres.create_database(postgresql_server, database_name())
    postgres.prepare(url)
    return url


@pytest.fixture(scope="session")
def other_postgresql_database(postgresql_server: str) -> str:
    """Another one, for what moves from one database to another. `postgres.empty` it first."""
    url = postgres.create_database(postgresql_server, f"{database_name()}_other")
    postgres.prepare(url)
    return url


@pytest.fixture
def postgresql_url(postgresql_database: str) -> str:
    """The URL of a database on PostgreSQL that is empty, and nobody else's as long as the test runs."""
    postgres.empty(postgresql_database)
    return postgresql_database
