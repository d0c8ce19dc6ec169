"""`duly admin-key`: making, listing and revoking the keys that open everything."""

from collections.abc import Sequence

from rich.text import Text

from duly._app import App
from duly._ground.clock import SystemClock
from duly._model.admin_key import hash_admin_key, make_admin_key
from duly.cli._console import make_console
from duly.cli._find import must_exist
from duly.cli._problem import USAGE, CommandError
from duly.cli._serve import say
from duly.cli._times import moment

__all__ = ["add_admin_key", "list_admin_keys", "revoke_admin_key"]

# So much of a hash names a key.
_SHORT = 12


async def add_admin_key(app: App, label: str) -> None:
    """Makes a key and prints it: alone on stdout, so that a script can catch it.

    Raises:
        CommandError: The label can't be shown in a line.
    """
    if not label.isprintable():
        raise CommandError("the label is one line of printable text", exit_code=USAGE)
    async with app.client():
        environment = app._running().environment
        key, now = make_admin_key(environment.entropy), environment.clock.now_ms()
        await environment.store.transact(lambda tx: tx.insert_admin_key(hash_admin_key(key), label, now))
    say(key)
    note = f"This is the only time it is shown. To revoke it: duly admin-key … --revoke {_id_of(hash_admin_key(key))}"
    make_console(stderr=True).print(Text(note, "dim"))


async def list_admin_keys(app: App) -> None:
    """Prints what is known of each key."""
    must_exist(app)
    async with app.client():
        keys = await app._running().environment.store.read(lambda tx: tx.list_admin_keys())
    console = make_console()
    if not keys:
        console.print(Text("no admin keys", "dim"))
        return
    now = SystemClock().now_ms()
    made = [moment(time, now) for _, _, time in keys]
    width = max(len("made"), *map(len, made))
    console.print(Text(f"{'id'.ljust(_SHORT)}  {'made'.ljust(width)}  label", "dim"))
    for (hash, label, _), when in zip(keys, made, strict=True):
        console.print(Text.assemble((_id_of(hash), "dim"), f"  {when.ljust(width)}  {label}"))


async def revoke_admin_key(app: App, prefix: str) -> None:
    """Revokes the key whose id begins so, at once.

    Raises:
        CommandError: None does, or more than one.
    """
    must_exist(app)
    async with app.client():
        store = app._running().environment.store
        keys = await store.read(lambda tx: tx.list_admin_keys())
        hash, label = _only(keys, prefix)
        await store.transact(lambda tx: tx.delete_admin_key(hash))
    say(f"revoked {_id_of(hash)}{f' ({label})' if label else ''}")


def _id_of(hash: str) -> str:
    return hash[:_SHORT]


def _only(keys: Sequence[tuple[str, str, float]], prefix: str) -> tuple[str, str]:
    """Hash and label of the key that is meant. Whoever finds a key somewhere can give that itself."""
    hashed = hash_admin_key(prefix)
    found = [(hash, label) for hash, label, _ in keys if hash == hashed or (prefix and hash.startswith(prefix))]
    if not found:
        raise CommandError("there is no such admin key", hint="'duly admin-key … --list' lists the ids")
    if len(found) > 1:
        notes = [f"{_id_of(hash)}  {label}" for hash, label in found]
        raise CommandError(f"more than one id begins with {prefix!r}", notes=notes, exit_code=USAGE)
    return found[0]
