"""From what the user typed, `shop:app` or `hello.py`, to the app."""

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple

from rich.text import Text

from duly._app import App
from duly._ground.clock import SystemClock
from duly._store.open import make_store
from duly.cli._console import reveal
from duly.cli._problem import FAILED, USAGE, CommandError, failure, relative
from duly.errors import DulyError, StoreError

__all__ = ["Loaded", "load_app", "locate"]

_DULY = str(Path(__file__).parent.parent)
_IMPORTLIB = Path(importlib.__file__).parent
# The frames between ours and the user's.
_IMPORTING = (_DULY, "<frozen ", str(_IMPORTLIB), str(_IMPORTLIB.with_name("pkgutil.py")))


class Loaded(NamedTuple):
    """An app, and its full name: `shop:app`."""

    app: App
    name: str


def load_app(reference: str, database: str | None) -> Loaded:
    """The app that `module:attribute` names, its functions and tables found.

    Raises:
        CommandError: There is no such app, or the user's code can't be imported.
    """
    name, attribute = locate(reference)
    with _imported(name):
        module = importlib.import_module(name)
    app = _app_in(module, attribute)
    if database is not None:
        app._database = database
    try:
        make_store(app.database, SystemClock())
    except StoreError as error:
        raise CommandError(str(error), exit_code=USAGE) from None
    with _imported(name):
        app._registry.load()
    return Loaded(app, f"{name}:{attribute}")


def locate(reference: str) -> tuple[str, str]:
    """The module and the attribute that a reference names; the module's folder is made importable."""
    head, colon, tail = reference.rpartition(":")
    if not colon or "/" in tail or "\\" in tail:
        head, tail = reference, ""
    attribute = tail or "app"
    if not head or not all(part.isidentifier() for part in attribute.split(".")):
        raise CommandError(
            f"{reference!r} names no app",
            hint="an app is named module:attribute, such as shop:app; or a file, such as hello.py",
            exit_code=USAGE,
        )
    if head.endswith(".py") or "/" in head or "\\" in head:
        folder, name = _locate_file(head)
    else:
        folder, name = Path.cwd(), head
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))
    if not all(name.split(".")):
        raise CommandError(f"{name!r} is no module name", exit_code=USAGE)
    return name, attribute


def _locate_file(text: str) -> tuple[Path, str]:
    """The folder to import from, and the module's full name there: packages are found by their `__init__.py`."""
    path = Path(text).resolve()
    if path.is_dir() and (path / "__init__.py").is_file():
        path = path / "__init__.py"
    elif not path.is_file():
        path = path.with_name(path.name + ".py")
    if not path.is_file():
        raise CommandError(
            f"there is no file {text}",
            notes=[f"It was looked up from the current folder, {Path.cwd()}."],
            hint=_did_you_mean(Path(text).name, [found.name for found in Path(text).parent.glob("*.py")]),
            exit_code=USAGE,
        )
    names = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(names)


def _app_in(module: ModuleType, attribute: str) -> App:
    name = module.__name__
    value: object = module
    for step in attribute.split("."):
        value = getattr(value, step, None)
    if isinstance(value, App):
        return value
    known = [key for key, found in vars(module).items() if isinstance(found, App)]
    file = getattr(module, "__file__", None)
    raise CommandError(
        f"the module {name!r} has no attribute {attribute!r}"
        if value is None
        else f"{name}:{attribute} is no duly.App but of type {type(value).__name__!r}",
        notes=[f"The module is {relative(file)}."] if file else [],
        hint=f"its apps are: {', '.join(f'{name}:{key}' for key in known)}"
        if known
        else f"write '{attribute} = duly.App(__name__)' there",
        exit_code=USAGE,
    )


@contextmanager
def _imported(name: str) -> Iterator[None]:
    """Turns what importing the user's code raises into a problem that shows their part of it."""
    try:
        yield
    except CommandError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed_import(name, error) from None
        raise _missing(error.name, name) from None
    except SyntaxError as error:
        if error.filename is None or error.lineno is None or not Path(error.filename).is_file():
            raise _failed_import(name, error) from None
        raise _misspelt(error, error.filename, error.lineno) from None
    except Exception as error:  # noqa: BLE001 - their module may raise anything
        raise _failed_import(name, error) from None


def _missing(missing: str, wanted: str) -> CommandError:
    parent, _, leaf = missing.rpartition(".")
    if parent:
        folders = [Path(folder) for folder in getattr(sys.modules.get(parent), "__path__", [])]
        notes = [f"{parent!r} is {relative(str(folders[0]))}."] if folders else [f"{parent!r} is no package."]
    else:
        folders = [Path(sys.path[0])]
        notes = [f"It was looked up from the current folder, {Path.cwd()}, and among the installed packages."]
    near = _did_you_mean(leaf, [path.stem for folder in folders for path in _modules_in(folder)])
    return CommandError(
        f"there is no module {missing!r}" + (f" (of {wanted!r})" if missing != wanted else ""),
        notes=notes,
        hint=near or "change to the folder that holds your module, or check its name",
        exit_code=USAGE,
    )


def _modules_in(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.py")
    yield from (path.parent for path in folder.glob("*/__init__.py"))


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _misspelt(error: SyntaxError, file: str, line: int) -> CommandError:
    number = f"{line} │ "
    code = (error.text or "").rstrip("\n").replace("\t", " ")
    detail = Text(number, "dim")
    detail.append(reveal(code), "default")
    if error.offset is not None and 0 < error.offset <= len(code) + 1:
        same_line = error.end_lineno == line and error.end_offset is not None
        width = max(1, (error.end_offset or 0) - error.offset) if same_line else 1
        detail.append("\n" + " " * (len(number) - 2) + "│ ", "dim")
        detail.append(" " * (error.offset - 1) + "^" * width, "bold red")
    return CommandError(
        f"{relative(file)}, line {line}: {error.msg}", detail=detail if code else None, exit_code=FAILED
    )


def _failed_import(name: str, error: Exception) -> CommandError:
    traceback = _users_part(error.__traceback__)
    if traceback is None:  # found by duly, not raised by their code: the message says it all
        prefix = "" if isinstance(error, DulyError) else f"{type(error).__name__}: "
        return CommandError(f"the app in {name!r} can't be used", notes=[f"{prefix}{error}"])
    return failure(f"importing {name!r} failed", error.with_traceback(traceback))


def _users_part(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is the user's."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_IMPORTING):
        traceback = traceback.tb_next
    return traceback
