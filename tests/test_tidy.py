"""Style is a test: what a review says twice is written down here."""

import ast
import importlib
import inspect
import itertools
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "duly"

# Where files are looked for when git is not there (an unpacked archive): everything but what tools leave behind.
NOT_OURS = {"build", "dist", "node_modules", "__pycache__"}

LINES_MAX = 500
# Files that may be longer, each with the reason. An entry that is no longer needed has to go.
LONG_FILES: dict[str, str] = {}

# The folders where people and machines keep checkouts, not those of a system (/usr, /etc, /var, /tmp).
MACHINE_PATH = re.compile(r"(?<![\w.*})/-])/(?:work|root|home|Users)/\w")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
PIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:\[[a-z,]+\])?==[\w.!+]+(?: ; [\w .<>=!'()]+)?")
EXAMPLE = re.compile(r"^\s*(?:>>> |Examples?\b|```|\.\. code)", re.MULTILINE)


# --- the rules ------------------------------------------------------------------------------------------------------


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in our_files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, listed("These lines name a path of one machine", found)


def test_every_module_says_what_it_is() -> None:
    silent = [name_of(path) for path in modules() if not ast.get_docstring(ast.parse(text_of(path)))]
    assert not silent, listed("These modules have no docstring", silent)


def test_every_sql_file_opens_with_a_comment() -> None:
    silent = [name_of(path) for path in sorted(SOURCE.rglob("*.sql")) if not text_of(path).startswith("--")]
    assert not silent, listed("These files do not open with a `--` comment (what is locked, and why)", silent)


def test_no_source_file_is_long() -> None:
    lengths = {
        name_of(path): len(text_of(path).splitlines())
        for path in our_files()
        if path.suffix in {".py", ".sql"} and path.relative_to(ROOT).parts[0] != "tests"
    }
    long = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > LINES_MAX and name not in LONG_FILES]
    assert not long, listed(f"These files have more than {LINES_MAX} lines; split them by role", long)
    short = [name for name in LONG_FILES if lengths.get(name, 0) <= LINES_MAX]
    assert not short, listed("These files need no exception in LONG_FILES any more", short)


def test_nothing_in_the_source_is_left_for_later() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in our_files()
        if path.is_relative_to(SOURCE)
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert not found, listed("Finish these, or open an issue", found)


def test_requirements_are_plain_pins() -> None:
    odd = [
        f"{name_of(path)}:{number}: {line}"
        for path in sorted((ROOT / "requirements").glob("*.txt"))
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if "://" in line or not (line.startswith("#") or PIN.fullmatch(line))
    ]
    assert not odd, listed("Requirements are `name==version` and name no host, index or path", odd)


def test_requirements_pin_everything_the_project_asks_for() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for group in project["dependency-groups"].values():
        asked += [requirement for requirement in group if isinstance(requirement, str)]
    pinned = {line.partition("==")[0] for line in text_of(ROOT / "requirements" / "dev.txt").splitlines()}
    missing = sorted({re.split(r"[^\w.-]", requirement)[0] for requirement in asked} - pinned)
    assert not missing, listed("requirements/dev.txt lacks these (make lock)", missing)


def test_npm_locks_name_no_place_to_download_from() -> None:
    locks = [path for path in our_files() if path.name == "package-lock.json"]
    named = [name_of(path) for path in locks if '"resolved":' in text_of(path)]
    assert not named, listed("Make these anew with omit-lockfile-registry-resolved=true in .npmrc", named)


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_every_name_in_all_exists_once() -> None:
    duly = package()
    names: list[str] = duly.__all__
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(duly, name)]
    assert not missing, listed("duly.__all__ promises names that are not there", missing)


def test_every_public_name_is_documented_with_an_example() -> None:
    duly = package()
    beside = dict(docstrings_beside_names())
    lacking: list[str] = []
    for name in duly.__all__:
        if name.startswith("__"):
            continue
        doc = beside.get(name) or docstring_of(getattr(duly, name))
        if not doc:
            lacking.append(f"{name}: no docstring")
        elif not EXAMPLE.search(doc):
            lacking.append(f"{name}: no example")
    assert not lacking, listed("Public names are documented with an example (`Example:` or `>>>`)", lacking)


# --- the rules, tested ----------------------------------------------------------------------------------------------


def test_a_machine_path_is_told_from_other_slashes() -> None:
    work, home = "/" + "work/main", "/" + "home/ann/duly"
    for line in (f"see {work}", f'open("{home}")', f"path={work}", f"file:{home}"):
        assert MACHINE_PATH.search(line), line
    for folder in ("src", "example.com", "duly/_", "a/b"):
        assert not MACHINE_PATH.search(f"{folder}{work}"), folder
    for line in ("duly/_work/loop.py", "/etc/duly", work[:5]):
        assert not MACHINE_PATH.search(line), line


def test_a_pin_is_told_from_other_requirements() -> None:
    for line in ("apsw==3.54.1.0", "pytest-xdist==3.8.0", "colorama==0.4.6 ; sys_platform == 'win32'"):
        assert PIN.fullmatch(line), line
    for line in ("apsw>=3.46", "apsw", "-e .", "--index-url x", "apsw @ file", "apsw==1 --hash=sha256:00"):
        assert not PIN.fullmatch(line), line


# --- how they look --------------------------------------------------------------------------------------------------


def our_files() -> Iterator[Path]:
    """The text files that are, or are about to be, in the repository."""
    for path in sorted(files_by_git() or files_by_walking(ROOT)):
        if path.is_file() and b"\0" not in path.read_bytes():
            yield path


def files_by_git() -> set[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {ROOT / name for name in listing.split("\0") if name}


def files_by_walking(folder: Path) -> set[Path]:
    found: set[Path] = set()
    for path in folder.iterdir():
        hidden = path.name.startswith(".") and path.name not in {".ci", ".editorconfig", ".gitignore"}
        if hidden or path.name in NOT_OURS or path.is_symlink():
            continue
        found |= files_by_walking(path) if path.is_dir() else {path}
    return found


def modules() -> list[Path]:
    found = sorted(SOURCE.rglob("*.py"))
    assert found, f"no modules in {name_of(SOURCE)}"
    return found


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def listed(complaint: str, items: list[str]) -> str:
    return "\n  ".join([f"{complaint}:", *items])


def package() -> ModuleType:
    return importlib.import_module("duly")


def docstring_of(value: object) -> str:
    """What `value` says of itself; what it inherits from Python's own classes does not count."""
    if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        return value.__doc__ or ""
    ours = type(value).__module__.partition(".")[0] == "duly"
    return (vars(value).get("__doc__") if hasattr(value, "__dict__") else None) or (ours and type(value).__doc__) or ""


def docstrings_beside_names() -> Iterator[tuple[str, str]]:
    """The strings that stand below an assignment, which is where constants and type aliases are documented."""
    for path in modules():
        body = ast.parse(text_of(path)).body
        for statement, below in itertools.pairwise(body):
            match statement, below:
                case (
                    (ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ):
                    yield name, inspect.cleandoc(doc)
                case _:
                    pass
