"""`duly migrate`: the database's schema, brought up to date before the code that needs it is deployed."""

from duly.cli._load import Loaded
from duly.cli._serve import database_shown, say

__all__ = ["migrate"]


async def migrate(loaded: Loaded) -> None:
    """Migrates, and says from which version to which."""
    before, after = await loaded.app._migrate()
    where = database_shown(loaded.app)
    if before == after:
        say(f"{where} is up to date: schema version {after}")
    else:
        say(f"{where} is migrated: schema version {before} → {after}")
