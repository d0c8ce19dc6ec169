"""What a database URL of PostgreSQL says: where the server is, and what of it is duly's own."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from duly.errors import StoreError

__all__ = ["Address"]

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,30}")
_POOL_DEFAULT = 8
_POOL_MIN = 5


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Args:
        conninfo: The URL as libpq takes it.
        where: The same for messages, without a password.
        schema: The PostgreSQL schema that duly keeps to itself.
        pool: How many connections one process opens at most for reading and writing; two more are for its lease and
            for listening.
    """

    conninfo: str
    where: str
    schema: str
    pool: int

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From `postgresql://user:password@host:port/name?schema=duly&pool=8`, and whatever else libpq takes.

        Raises:
            StoreError: It says something that makes no sense.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise StoreError(f"the database URL is not understood: {error}; {_FORM}") from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = options.pop("schema", "duly")
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise StoreError(
                f"schema={schema!r} in the database URL is no name for duly's PostgreSQL schema; it has up to 31 small "
                "letters, digits and underscores, and begins with a letter"
            )
        text = options.pop("pool", str(_POOL_DEFAULT))
        if not text.isdecimal() or int(text) < _POOL_MIN:
            raise StoreError(f"pool={text!r} in the database URL is no number of connections; give {_POOL_MIN} or more")
        conninfo = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), ""))
        host = f"{parts.hostname or ''}{f':{port}' if port else ''}"
        return cls(conninfo, f"postgresql://{host}{parts.path}", schema, int(text))


_FORM = "it is of the form postgresql://user:password@host:5432/name"
