"""From a database URL to a store."""

import os
from pathlib import Path

from duly._ground.clock import Clock
from duly._store.port import Store
from duly._store.sqlite.store import SQLiteStore
from duly.errors import StoreError

__all__ = ["make_store"]

_FORMS = (
    "sqlite:///shop.db (a file), sqlite:////var/lib/shop.db (its full path), sqlite:///:memory: or "
    "postgresql://user:password@host:5432/name"
)


def make_store(url: str, clock: Clock) -> Store:
    """The store that a URL names, not opened yet.

    Raises:
        StoreError: The URL is of no form that duly knows.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        return _postgresql(url, clock)
    if scheme != "sqlite" or not separator or not rest.startswith("/") or rest == "/":
        meant = _meant(url)
        hint = f"did you mean {meant}?" if meant else f"it is of the form {_FORMS}"
        raise StoreError(f"the database URL {url!r} is not understood; {hint}")
    if rest == "/:memory:":
        return SQLiteStore(None, clock)
    # By its one true name: whoever opens it through a link must find the same leases and locks beside it.
    return SQLiteStore(Path(os.path.realpath(rest[1:])), clock)


def _meant(url: str) -> str | None:
    """The URL of what seems to be a file's name: shop.db, sqlite:shop.db, sqlite://shop.db."""
    path = url.removeprefix("sqlite:").removeprefix("//")
    if not path.strip("/ ") or "=" in path or (":" in path and path != ":memory:"):
        return None  # nothing, what libpq takes, or a URL of another kind
    return f"sqlite:///{path}"


def _postgresql(url: str, clock: Clock) -> Store:
    try:
        from duly._store.postgresql.address import Address  # noqa: PLC0415 (its driver is installed only if wanted)
        from duly._store.postgresql.store import PostgreSQLStore  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs a driver ({error}); install it: pip install 'duly[postgresql]'") from error
    return PostgreSQLStore(Address.parse(url), clock)
