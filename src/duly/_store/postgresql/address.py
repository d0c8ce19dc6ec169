"""What a database URL of PostgreSQL says: where the server is, and what of it is duly's own."""

import difflib
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from psycopg.pq import Conninfo

from duly.errors import StoreError

__all__ = ["Address"]

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,30}")
_POOL_DEFAULT = 8
_POOL_MIN = 5
_OURS = ("schema", "pool", "listen")
_ALIAS = "ssl"  # as JDBC has it: libpq takes ssl=true for sslmode=require


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Args:
        conninfo: The URL as libpq takes it.
        where: The same for messages, without a password.
        schema: The PostgreSQL schema that duly keeps to itself.
        pool: How many connections one process opens at most for reading and writing; two more are for its lease and
            for listening.
        listen: Whether to listen for what others commit; otherwise they are asked, once a second.
    """

    conninfo: str
    where: str
    schema: str
    pool: int
    listen: bool = True

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From `postgresql://user:password@host:port/name?schema=duly&pool=8&listen=no`, and what else libpq takes.

        Raises:
            StoreError: It says something that makes no sense.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise StoreError(f"the database URL is not understood: {error}; {_FORM}") from None
        if parts.fragment or ("@" in parts.query and "@" not in parts.netloc):
            raise StoreError(
                "the database URL is not understood: in a password # is written %23, ? is %3F, / is %2F and @ is %40; "
                f"{_FORM}"
            )
        # What is libpq's goes there as it was written: it reads some signs otherwise than a browser does.
        theirs: list[str] = []
        ours: dict[str, str] = {}
        for option in filter(None, parts.query.split("&")):
            name, _, value = option.partition("=")
            if name in _OURS:
                ours[name] = unquote(value)
            else:
                _check_known(unquote(name))
                theirs.append(option)
        schema = ours.get("schema", "duly")
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise StoreError(
                f"schema={schema!r} in the database URL is no name for duly's PostgreSQL schema; it has up to 31 small "
                "letters, digits and underscores, and begins with a letter"
            )
        text = ours.get("pool", str(_POOL_DEFAULT))
        if not text.isdecimal() or int(text) < _POOL_MIN:
            raise StoreError(f"pool={text!r} in the database URL is no number of connections; give {_POOL_MIN} or more")
        if ours.get("listen", "yes") not in ("yes", "no"):
            raise StoreError(f"listen={ours['listen']!r} in the database URL is 'yes' or 'no'")
        conninfo = f"postgresql://{parts.netloc}{parts.path}{'?' if theirs else ''}{'&'.join(theirs)}"
        # One host or several, each with its port or without.
        hosts = parts.netloc.rpartition("@")[2]
        return cls(conninfo, f"postgresql://{hosts}{parts.path}", schema, int(text), ours.get("listen") != "no")


def _check_known(name: str) -> None:
    """Raises `StoreError` for a parameter that libpq, which is told it, would not know."""
    known = [*_OURS, *(option.keyword.decode() for option in Conninfo.get_defaults())]
    if name in known or name == _ALIAS:
        return
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]}=?" if near else f"duly's own are {', '.join(_OURS)}; the others are libpq's"
    raise StoreError(f"the database URL has an unknown parameter {name!r}; {hint}")


_FORM = "it is of the form postgresql://user:password@host:5432/name"
