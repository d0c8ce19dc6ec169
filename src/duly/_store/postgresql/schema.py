"""Bringing the schema of a PostgreSQL database up to date, and telling whether it is."""

from collections.abc import Sequence

import psycopg
from psycopg import AsyncConnection, sql

from duly._store.migrate import MIGRATE, pending_migrations
from duly._store.postgresql.address import Address
from duly._store.postgresql.faults import translate
from duly._store.postgresql.wire import KEEPALIVE
from duly.errors import StoreError

__all__ = ["check_version", "migrate"]

_LOCK = 0x64756C79  # "duly", so that two who migrate at once take turns


async def migrate(address: Address, migrations: Sequence[str]) -> tuple[int, int]:
    """Brings the schema to the newest version, in one transaction: all of it or nothing.

    Returns:
        The version before (0 if there was none) and after.

    Raises:
        StoreError: It can't be done.
    """
    where = f"the database {address.where}"
    try:
        options = {name: value for name, value in KEEPALIVE.items() if f"{name}=" not in address.conninfo}
        connection = await AsyncConnection.connect(address.conninfo, prepare_threshold=None, **options)
        async with connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            # A role that may not make schemas is enough if somebody has made it.
            found = await connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (address.schema,))
            schema = sql.Identifier(address.schema)
            if await found.fetchone() is None:
                await connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            table = sql.Identifier(address.schema, "schema_version")
            await connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (version integer NOT NULL)").format(table))
            rows = await (await connection.execute(sql.SQL("SELECT version FROM {}").format(table))).fetchall()
            version = rows[0][0] if rows else 0
            pending = pending_migrations(version, migrations, where)
            for script in pending:
                await connection.execute(script.replace("{schema}", f'"{address.schema}"').encode())
            if not rows:
                statement = sql.SQL("INSERT INTO {} (version) VALUES (%s)")
            else:
                statement = sql.SQL("UPDATE {} SET version = %s")
            if pending:
                await connection.execute(statement.format(table), (len(migrations),))
            return version, len(migrations)
    except psycopg.Error as error:
        raise translate(error, address.where) from error


def check_version(rows: Sequence[tuple[int]] | None, known: int, where: str) -> None:
    """Refuses a schema that this code can't work with. One that is newer by one release it can: releases only add.

    Raises:
        StoreError: What to do about it.
    """
    version = rows[0][0] if rows else 0
    if version < known:
        found = (
            f"has schema version {version}, and this duly needs {known}" if version else "has no schema of duly's yet"
        )
        raise StoreError(f"the database {where} {found}; run: {MIGRATE}")
    if version > known + 1:
        raise StoreError(
            f"the database {where} has schema version {version}, and this duly knows up to {known}; upgrade duly here"
        )
