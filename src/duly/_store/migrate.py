"""Which version of the schema a store has, and the way forward from it."""

from collections.abc import Sequence

from duly.errors import StoreError

__all__ = ["pending_migrations"]


def pending_migrations(version: int, migrations: Sequence[str], where: str) -> Sequence[str]:
    """The migrations that lead from `version` to the newest, in order.

    Raises:
        StoreError: The store is of a newer duly than this one.
    """
    if version > len(migrations):
        raise StoreError(
            f"{where} was written by a newer duly (schema version {version}; this one knows up to {len(migrations)}); "
            "upgrade duly here, or use another database"
        )
    return migrations[version:]
