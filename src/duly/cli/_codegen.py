"""`duly codegen` and `duly openapi`: what clients in other languages know of an app."""

import json
import sys
from contextlib import suppress
from pathlib import Path

from duly._app import App
from duly.cli._console import make_console, reveal
from duly.cli._problem import CommandError
from duly.codegen import openapi, typescript

__all__ = ["check_typescript", "print_openapi", "write_typescript"]


def write_typescript(app: App, folder: Path) -> None:
    """Writes what has changed, and says so. A file is replaced at once: whoever reads it meanwhile reads all of one."""
    console = make_console()
    changed = _changed(app, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in changed.items():
            beside = path.with_name(f".{path.name}.new")
            beside.write_text(text, encoding="utf-8", newline="\n")
            beside.replace(path)
            console.print(reveal(f"wrote {path}"))
    except OSError as error:
        raise CommandError(f"the files can't be written: {error}") from None
    if not changed:
        console.print(reveal(f"{folder} is up to date"))


def check_typescript(app: App, folder: Path) -> None:
    """Says that nothing would be written. Raises `CommandError` otherwise."""
    if changed := _changed(app, folder):
        raise CommandError(
            f"not up to date: {', '.join(map(str, changed))}", hint="run the same command without --check"
        )
    make_console().print(reveal(f"{folder} is up to date"))


def _changed(app: App, folder: Path) -> dict[Path, str]:
    texts = {folder / name: text for name, text in typescript(app).items()}
    return {path: text for path, text in texts.items() if _text_of(path) != text}


def _text_of(path: Path) -> str | None:
    with suppress(OSError, UnicodeError):
        return path.read_text(encoding="utf-8")
    return None


def print_openapi(app: App) -> None:
    """Prints the document as JSON."""
    sys.stdout.write(json.dumps(openapi(app), indent=2, ensure_ascii=False) + "\n")
