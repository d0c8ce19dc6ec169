"""A PostgreSQL server for tests: found, started in a temporary folder, and ended with the process that started it.

`python -m tests.postgres --find` prints the folder with the server's programs, and fails if there is neither such a
folder nor a server that the user named.
"""

import asyncio
import ctypes
import fcntl
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypedDict
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from duly._ground.clock import SystemClock
from duly._store.open import make_store

# Where a user has named a server to use, and where a test run names its own to its workers.
VARIABLE = "DULY_TEST_POSTGRESQL"
# Below the ports that systems give to outgoing connections: while the server restarts, its port is nobody's by chance.
PORTS = range(20_000, 32_000)
PREFIX = "duly-postgresql-"
PATIENCE = 60.0
PR_SET_PDEATHSIG = 1

SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_pred_locks_per_transaction": "256",
    "deadlock_timeout": "100ms",
    # What tests leave behind is dead rows, in the same tables, thousands of times.
    "autovacuum_naptime": "5s",
    "log_line_prefix": "'%m [%p] %d '",
    "log_timezone": "'UTC'",
}
# Survives the death of its processes all the same; not the machine's.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class _Identity(TypedDict, total=False):
    """As whom to start a process."""

    user: int
    group: int
    extra_groups: list[int]


class NoPostgresError(Exception):
    """No server's programs on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "These tests need PostgreSQL's programs (initdb, postgres), and this machine has none. `make test` installs"
            " some in .venv; or install your system's package (on Debian and Ubuntu: postgresql); or name a running"
            f" server: {VARIABLE}=postgresql://postgres@127.0.0.1:5432/postgres"
        )


# --- finding the programs -------------------------------------------------------------------------------------------


def find_binaries() -> Path | None:
    """The folder with `postgres` and `initdb`: the machine's newest, else those that a PyPI package carries."""
    for candidates in (_machine_folders(), _package_folders()):
        versions = [(version, folder) for folder in candidates if (version := _version(folder)) is not None]
        if versions:
            return max(versions)[1]
    return None


def _machine_folders() -> set[Path]:
    folders = set(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("postgres")
    if on_path is not None:
        folders.add(Path(on_path).resolve().parent)
    if shutil.which("pg_config") is not None:
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            folders.add(Path(found.stdout.strip()))
    return folders


def _package_folders() -> set[Path]:
    """Where `make test` puts requirements/postgresql.txt, and where a plain `pip install` of it would."""
    roots = (Path(sys.prefix) / "postgresql", Path(sysconfig.get_path("platlib")))
    return {folder for root in roots for folder in root.glob("*pgserver/pginstall*/bin")}


def _version(folder: Path) -> tuple[int, ...] | None:
    if not (folder / "initdb").is_file() or not (folder / "postgres").is_file():
        return None
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    numbers = re.search(r"(\d+)(?:\.(\d+))?", told.stdout)
    return tuple(int(number or 0) for number in numbers.groups()) if numbers else None


# --- the server -----------------------------------------------------------------------------------------------------


class Server:
    """One running server, in a folder of its own. Made by `Server.start`; stopped by `stop` or at the end of `with`.

    On Linux the server also ends when the thread that started it (or restarted it) does, however it ends.
    """

    def __init__(self, binaries: Path, folder: Path, lock: IO[str], account: pwd.struct_passwd | None) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.port = 0
        self._binaries = binaries
        self._data = folder / "data"
        self._lock = lock
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, *, durable: bool = False, binaries: Path | None = None) -> Self:
        """A new, empty server that accepts connections, of user `postgres` without a password, on loopback only.

        Args:
            durable: Whether it writes to the disk what it says it wrote, which only matters when a machine dies.
            binaries: The folder with its programs; by default what `find_binaries` finds.
        """
        binaries = binaries or find_binaries()
        if binaries is None:
            raise NoPostgresError
        account = _other_account() if os.geteuid() == 0 else None
        folder, lock = _make_folder(account)
        server = cls(_usable(binaries, folder, account), folder, lock, account)
        try:
            server._initialize(SETTINGS if durable else SETTINGS | NOT_DURABLE)
            server._launch_on_a_free_port()
        except BaseException:
            server.stop()
            raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Returns its URL. A database of this name that was there before is dropped."""
        return create_database(self.url(), name)

    def restart_immediately(self) -> None:
        """Ends it as a crash does, without a checkpoint; returns once it has recovered, on the same port."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not self._launch():
            assert time.monotonic() < deadline, f"port {self.port} is taken by another process\n{self._told()}"

    def stop(self) -> None:
        """Ends it with all its connections, and removes its folder."""
        process = self._process
        if process is not None and process.poll() is None:
            # Fast; then as in a crash; then the kernel's way, which its children notice and follow.
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                process.send_signal(number)
                try:
                    process.wait(15)
                    break
                except subprocess.TimeoutExpired:
                    continue
        shutil.rmtree(self.folder)
        self._lock.close()

    def _initialize(self, settings: dict[str, str]) -> None:
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        done = subprocess.run(
            [self._binaries / "initdb", f"--pgdata={self._data}", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.folder,
            env=_environment(),
            **_identity(self._account),
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{done.stdout}")
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        (self._data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")

    def _launch_on_a_free_port(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            self.port = free_port()
            if self._launch():
                return
            assert time.monotonic() < deadline, self._told()

    def _launch(self) -> bool:
        """Returns once it accepts connections; False if its port is taken."""
        with self.log.open("ab") as log, warnings.catch_warnings():
            told_before = self.log.stat().st_size
            # From 3.12 on, Python warns that a fork beside other threads may hang; here the child hardly runs any code.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=_environment(),
                # Ctrl-C is for pytest, which stops the server when the tests have ended.
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 (the same)
                **_identity(self._account),
            )
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return process.poll() is None
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, f"the server does not accept connections\n{self._told()}"
                time.sleep(0.01)
        if "could not bind" in self.log.read_bytes()[told_before:].decode(errors="replace"):
            return False
        raise RuntimeError(f"the server ended with {process.returncode}\n{self._told()}")

    def _told(self) -> str:
        return self.log.read_text(errors="replace")[-5_000:] if self.log.exists() else ""


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def _other_account() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError(
        "root runs these tests, and there is neither a user `postgres` nor `nobody` to run PostgreSQL as"
    )


def _make_folder(account: pwd.struct_passwd | None) -> tuple[Path, IO[str]]:
    """A folder that the account may reach (pytest's own are closed to others), and the lock that says it is in use."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{PREFIX}*/lock"):
        _remove_if_abandoned(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder, lock


def _remove_if_abandoned(path: Path) -> None:
    """The folder of a run that was killed: its lock went with it. One without data may be about to be locked."""
    try:
        with path.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (path.parent / "data").exists():
                shutil.rmtree(path.parent, ignore_errors=True)
    except OSError:
        pass


def _usable(binaries: Path, folder: Path, account: pwd.struct_passwd | None) -> Path:
    """The programs, or a copy of them where the account may not run the original (as in a .venv of root's)."""
    try:
        subprocess.run(
            [binaries / "postgres", "--version"],
            stdout=subprocess.DEVNULL,
            check=True,
            cwd=folder,
            **_identity(account),
        )
        return binaries
    except PermissionError:
        installation = binaries.parent
        package = installation.parent
        target = folder / "programs" / package.name / installation.name
        shutil.copytree(installation, target, ignore=shutil.ignore_patterns("include"))
        # Wheels keep the shared libraries that they bring beside the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "programs" / libraries.name)
        return target / binaries.name


def _identity(account: pwd.struct_passwd | None) -> _Identity:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Without what would set the server up otherwise than the tests expect."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}


def _die_with_parent() -> Callable[[], None] | None:
    """What makes the kernel end a child as soon as its parent is gone; other systems than Linux know no such thing."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGQUIT.value)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


# --- databases ------------------------------------------------------------------------------------------------------


def url_of(server: str, database: str) -> str:
    """The URL of another database on the same server."""
    return urlsplit(server)._replace(path=f"/{database}").geturl()


def create_database(server: str, name: str) -> str:
    """Returns the URL of a new database. One of this name that was there before is dropped."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return url_of(server, name)


def prepare(url: str) -> None:
    """What every test finds in its database, made once, after its creation: duly's schema."""
    with ThreadPoolExecutor(1) as thread:  # the first who wants one may be on an event loop
        thread.submit(asyncio.run, make_store(url, SystemClock()).migrate()).result()


def empty(url: str) -> None:
    """Makes a database as it was after `prepare`: nobody connected, no rows in schema `duly`, no tables of tests."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(END_OTHERS, prepare=False)
        tables = connection.execute(LIST_TABLES).fetchall()
        with connection.transaction():
            # Rows go in any order, whatever refers to them.
            connection.execute("SET LOCAL session_replication_role = replica")
            for schema, name, large in tables:
                table = sql.Identifier(schema, name)
                if schema == "public":
                    connection.execute(sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(table))
                elif large:
                    connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(table))
                else:
                    connection.execute(sql.SQL("DELETE FROM {}").format(table))
            connection.execute(RESTART_SEQUENCES)


# Leftovers of killed processes; each is waited for.
END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Deleting is what costs least where there is little.
LIST_TABLES = """
SELECT schemaname, tablename, pg_relation_size(format('%I.%I', schemaname, tablename)::regclass) > 1000000
FROM pg_tables WHERE (schemaname = 'duly' AND tablename NOT IN ('schema_version', 'catalog')) OR schemaname = 'public'
"""
RESTART_SEQUENCES = """
SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false)
FROM pg_sequences WHERE schemaname = 'duly' AND last_value IS NOT NULL
"""


if __name__ == "__main__":
    if sys.argv[1:] != ["--find"]:
        sys.exit(__doc__)
    found = find_binaries()
    if found is None and VARIABLE not in os.environ:
        sys.exit(str(NoPostgresError()))
    print(found or os.environ[VARIABLE])
