"""Which version of the schema a store has, and the way forward from it."""

from collections.abc import Sequence

from duly.errors import StoreError

__all__ = ["MIGRATE", "pending_migrations"]

MIGRATE = "duly migrate APP"
"""What to run where the schema is not up to date. The command line puts the app's name in the place of APP."""


def pending_migrations(version: object, migrations: Sequence[str], where: str) -> Sequence[str]:
    """The migrations that lead from `version` to the newest, in order.

    Raises:
        StoreError: The store is of a newer duly than this one, or says nothing that makes sense.
    """
    if not isinstance(version, int) or version < 0:
        raise StoreError(f"{where} is damaged: its schema version is {version!r}; restore it from a backup")
    if version > len(migrations):
        raise StoreError(
            f"{where} was written by a newer duly (schema version {version}; this one knows up to {len(migrations)}); "
            "upgrade duly here, or use another database"
        )
    return migrations[version:]
