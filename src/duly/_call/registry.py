"""The functions and tables of an app: found in its modules, looked up by reference."""

import difflib
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from duly._ground.ids import table_tag
from duly._model.fingerprint import fingerprint_of
from duly._model.function import FunctionKind, FunctionReference, LazyReference, path_of
from duly._model.job import SYSTEM_TABLE, ScheduledFunction
from duly._model.schema import Table
from duly._model.signature import Signature, TagsByType
from duly.errors import FunctionNotFoundError, InvalidIdError, NotSchedulableError, SchemaError

__all__ = ["SYSTEM_TAG", "Function", "Registry", "Target"]

Target = FunctionReference[..., Any] | str

SYSTEM_TAG = table_tag(SYSTEM_TABLE)


class Function:
    """A function of an app: its path there, and what its decorator recorded."""

    def __init__(self, path: str, reference: FunctionReference[..., Any]) -> None:
        self.path = path
        self.kind: FunctionKind = reference.handler.kind
        self.public = reference.handler.public
        self.is_async = reference.handler.is_async
        self.timeout: timedelta | None = reference.handler.timeout
        self.call: Callable[..., Any] = reference.handler.function
        self.signature = Signature(path, self.call)

    @cached_property
    def fingerprint(self) -> str:
        """What tells its signature from that of another version of the code."""
        return fingerprint_of(self.kind, self.signature.schema)

    def load(self, text: str, tags: TagsByType) -> dict[str, Any]:
        """The stored arguments of a job of this function, as the types that the code now annotates (rule S3).

        Raises:
            NotSchedulableError: It is a query by now.
            ArgumentError: They do not fit any more.
        """
        if self.kind == "query":
            raise NotSchedulableError(self.path, self.kind)
        return self.signature.load(text, tags)


class Registry:
    """Finds the functions and tables of the package or module that an app was made in.

    Args:
        name: The `__name__` of the package or module.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.functions: dict[str, Function] = {}
        self.tables: dict[str, Table[Any]] = {}
        # The tables a document type belongs to: how `Id[Order]` is checked.
        self.tags: Mapping[Any, frozenset[str]] = {}
        self._by_reference: dict[int, Function] = {}
        self._references: list[FunctionReference[..., Any]] = []
        # Tables that are used by name without being declared.
        self._schemaless: dict[str, Table[Any]] = {}
        self._by_tag: dict[str, Table[Any]] = {}
        self._loaded = False
        self._loading = threading.RLock()

    def load(self) -> None:
        """Imports the app's modules and collects what they define. Once; later calls do nothing.

        Raises:
            TypeError: A function's parameters or annotations can't be handled.
            SchemaError: Two tables share a name.
            Exception: Whatever importing a module raises.
        """
        if self._loaded:
            return
        with self._loading:
            if not self._loaded:
                self._collect()

    def _collect(self) -> None:
        for prefix, module in list(_modules(self._name)):
            for value in list(vars(module).values()):
                if isinstance(value, LazyReference):
                    continue
                if isinstance(value, FunctionReference) and value.module == module.__name__:
                    self._add_function(f"{prefix}:{value.name}", value)
                elif isinstance(value, Table):
                    self._add_table(value)
        tags: dict[Any, set[str]] = {ScheduledFunction: {SYSTEM_TAG}}
        for table in self.tables.values():
            if table.document is not None:
                tags.setdefault(table.document, set()).add(table.tag)
        self.tags = {document: frozenset(tags_of) for document, tags_of in tags.items()}
        self._loaded = True

    def _add_function(self, path: str, reference: FunctionReference[..., Any]) -> None:
        if id(reference) in self._by_reference:
            return
        if path in self.functions:
            raise TypeError(f"two functions have the path {path!r}; rename one")
        function = Function(path, reference)
        self.functions[path] = self._by_reference[id(reference)] = function
        self._references.append(reference)  # keeps its identity from being given to another

    def _add_table(self, table: Table[Any]) -> None:
        known = self.tables.setdefault(table.name, table)
        if known is not table:
            raise SchemaError(
                f"two tables have the name {table.name!r}; declare it once and import it where it is used"
            )
        other = self._by_tag.setdefault(table.tag, table)
        if other is not table:
            raise SchemaError(f"the names {other.name!r} and {table.name!r} make the same id tag; rename one table")

    def resolve(self, target: Target) -> Function:
        """The function that a reference or a path names.

        Raises:
            FunctionNotFoundError: This app has no such function.
            TypeError: The target is neither a reference nor a string.
        """
        function = self._by_reference.get(id(target))
        if function is not None:
            return function
        if isinstance(target, LazyReference):
            target = path_of(target)
        elif isinstance(target, FunctionReference):
            raise FunctionNotFoundError(f"{target.module}:{target.name}", hint=self._missing_hint(target))
        if not isinstance(target, str):
            raise TypeError(
                f"a function is named by its reference or its path, not by {target!r}; define it with def, and "
                "decorate it with @duly.mutation, @duly.action or @duly.query"
            )
        function = self.functions.get(target)
        if function is None:
            raise FunctionNotFoundError(target, self.nearest(target))
        return function

    def nearest(self, path: str) -> list[str]:
        """The paths of this app that look most like the given one."""
        module, _, name = path.replace(".", ":").rpartition(":")
        names = {known: known.rpartition(":")[2] for known in self.functions}
        # By the name alone: modules are few, and all paths of one look alike.
        close = difflib.get_close_matches(name, set(names.values()), n=3, cutoff=0.6)
        found = [known for wanted in close for known in names if names[known] == wanted]
        return sorted(found, key=lambda known: not known.startswith(f"{module}:"))[:3]

    def _missing_hint(self, reference: FunctionReference[..., Any]) -> str:
        if reference.module == self._name or reference.module.startswith(f"{self._name}."):
            return "it must be defined at the top level of its module, under its own name, before the app is opened"
        return f"the app looks in {self._name!r} and its submodules, this function is in {reference.module!r}"

    def table(self, table: "Table[Any] | str") -> Table[Any]:
        """The table object: for a name that is not declared, one that takes any document.

        Raises:
            SchemaError: The object is not a table of this app, or the name can't be a table's.
        """
        if isinstance(table, str):
            known = self.tables.get(table) or self._schemaless.get(table)
            if known is None:
                if table == SYSTEM_TABLE:
                    raise SchemaError(f"{SYSTEM_TABLE} is the system's; read it with ctx.db.system")
                known = self._schemaless[table] = Table(table)
                self._by_tag[known.tag] = known
            return known
        if not isinstance(table, Table):
            raise TypeError(f"a table is a duly.Table or its name, not {table!r}")
        if self.tables.get(table.name) is not table:
            raise SchemaError(
                f"the table {table.name!r} is not part of this app; assign it to a name in a module of {self._name!r}"
            )
        return table

    def known_table(self, tag: str) -> Table[Any] | None:
        """The table whose ids begin with a tag, if this app declares it or has used it."""
        return self._by_tag.get(tag)

    def table_of(self, tag: str, id: str, name: str | None) -> Table[Any]:
        """The table that an id of an unknown tag belongs to; `name` is what the store knows the tag as."""
        if tag == SYSTEM_TAG:
            raise InvalidIdError(id, "is the id of a scheduled function; read it with ctx.db.system.get")
        if name is None:
            raise InvalidIdError(id, "is the id of no table of this database")
        return self.table(name)


def _modules(name: str) -> Iterator[tuple[str, ModuleType]]:
    """The modules of an app, each with the part of the path before the colon."""
    module = sys.modules.get(name) or importlib.import_module(name)
    if not hasattr(module, "__path__"):
        yield _module_prefix(module), module
        return
    yield name.rpartition(".")[2], module
    for found in pkgutil.walk_packages(module.__path__, f"{name}."):
        if found.name.rpartition(".")[2] != "__main__":
            yield found.name.removeprefix(f"{name}.").replace(".", "/"), importlib.import_module(found.name)


def _module_prefix(module: ModuleType) -> str:
    if module.__name__ != "__main__":
        return module.__name__.rpartition(".")[2]
    spec = getattr(module, "__spec__", None)
    if spec is not None:  # python -m shop.hello
        return str(spec.name).rpartition(".")[2]
    file = getattr(module, "__file__", None)
    return Path(file).stem if file else "__main__"
