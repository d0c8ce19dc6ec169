"""`duly export` and `duly import`: a whole database to a file, and back into an empty one, of either engine."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from duly._app import App
from duly._store.transfer import Counts, export_to, import_from
from duly.cli._find import must_exist
from duly.cli._problem import CommandError

__all__ = ["export_database", "import_database"]

_SPOOLED_MAX = 16 * 1024 * 1024
_NAMES = {"table": "tables", "index": "indexes", "document": "documents", "job": "scheduled functions"}


async def export_database(app: App, name: str) -> None:
    """Writes everything to a file that does not exist yet, or to stdout."""
    must_exist(app)
    async with app.client():
        assert app._store is not None
        with _ctrl_c_at_once(), _new_file(name) as file:
            counts = await export_to(file.write, app._store)
    _say("exported", counts)


async def import_database(app: App, name: str) -> None:
    """Reads what was exported into the app's database, which is empty or does not exist."""
    with _ctrl_c_at_once(), _seekable(name) as file:
        async with app.client():
            assert app._store is not None
            counts = await import_from(file, app._store)
    _say("imported", counts)


@contextmanager
def _new_file(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    try:
        with path.open("xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)  # half an export is none
                raise
    except FileExistsError:
        raise CommandError(f"{name} exists already", hint="delete it, or give another name") from None
    except OSError as error:
        raise CommandError(f"{name} can't be written: {error.strerror}") from None


@contextmanager
def _seekable(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        with tempfile.SpooledTemporaryFile(_SPOOLED_MAX) as spooled:
            shutil.copyfileobj(sys.stdin.buffer, spooled)
            yield cast("BinaryIO", spooled)
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 (closed below; what the block raises is not the file's)
    except OSError as error:
        raise CommandError(f"{name} can't be read: {error.strerror}") from None
    with file:
        yield file


@contextmanager
def _ctrl_c_at_once() -> Iterator[None]:
    """Neither lets the event loop run meanwhile, which would take the signal to its next turn."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say(done: str, counts: Counts) -> None:
    """On stderr: stdout may be the file."""
    found = [f"{counts[kind]} {name}" for kind, name in _NAMES.items()]
    sys.stderr.write(f"{done} {', '.join(found[:-1])} and {found[-1]}\n")
