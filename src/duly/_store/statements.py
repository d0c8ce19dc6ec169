"""The `.sql` files of an engine: one statement a file, named like what it does."""

from functools import cache
from importlib.resources import files

__all__ = ["migrations_of", "statements_of"]


@cache
def statements_of(engine: str) -> dict[str, str]:
    """Every statement of an engine by its file's name, without the comment it opens with."""
    folder = files("duly._store").joinpath("sql", engine)
    return {
        entry.name.removesuffix(".sql"): _statement(entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }


@cache
def migrations_of(engine: str) -> tuple[str, ...]:
    """The engine's migrations in order: the first makes version 1 of the schema out of nothing."""
    folder = files("duly._store").joinpath("sql", engine, "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    assert names == [f"{number:04}.sql" for number in range(1, len(names) + 1)], f"a gap in the migrations: {names}"
    return tuple(folder.joinpath(name).read_text("utf-8") for name in names)


def _statement(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return " ".join(" ".join(lines).split()).rstrip(";")
