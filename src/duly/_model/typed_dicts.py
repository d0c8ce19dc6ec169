"""Lets pydantic read `typing.TypedDict` on Python 3.11, which it refuses there.

Pydantic wants the `typing_extensions` class for the sake of validators declared on a TypedDict. duly needs none, so
each `typing` class is given a `typing_extensions` twin with the same fields, and is told to answer for itself with it.
"""

import dataclasses
import sys
import typing
from typing import Any

import typing_extensions

__all__ = ["annotated_class", "teach_typed_dicts"]

_METHOD = "__get_pydantic_core_schema__"


def teach_typed_dicts(annotation: Any) -> None:
    """Makes every `typing.TypedDict` that the annotation reaches readable. Does nothing on Python 3.12 and later."""
    if sys.version_info < (3, 12):
        _teach(annotation, set())


def annotated_class(cls: Any) -> Any:
    """The class that stands in the annotation, for the one that a pydantic schema has."""
    return getattr(cls, "__wrapped__", cls)


def _teach(annotation: Any, seen: set[int]) -> None:
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    for argument in typing.get_args(annotation):
        _teach(argument, seen)
    origin = typing.get_origin(annotation) or annotation
    if not isinstance(origin, type):
        return
    if typing_extensions.is_typeddict(origin) or dataclasses.is_dataclass(origin) or hasattr(origin, "_fields"):
        for hint in _hints(origin).values():
            _teach(hint, seen)
    if typing.is_typeddict(origin) and type(origin).__module__ == "typing" and _METHOD not in vars(origin):
        setattr(origin, _METHOD, classmethod(_schema_of_twin))


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError:
        return {}  # pydantic reports it, and says which name


def _schema_of_twin(cls: Any, _source: Any, handler: Any) -> Any:
    # What a field says of itself goes before `__required_keys__`, which knows `total=False` and inheritance, but not
    # what is within an annotation that is a string: all are, after `from __future__ import annotations`.
    fields = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        is_said = typing.get_origin(hint) in _QUALIFIERS
        fields[name] = hint if is_said or name in cls.__required_keys__ else typing_extensions.NotRequired[hint]
    make_typed_dict: Any = typing_extensions.TypedDict  # the functional form, with names known at run time only
    twin = make_typed_dict(cls.__name__, fields)
    twin.__module__, twin.__qualname__, twin.__doc__ = cls.__module__, cls.__qualname__, cls.__doc__
    twin.__wrapped__ = cls
    if hasattr(cls, "__pydantic_config__"):
        twin.__pydantic_config__ = cls.__pydantic_config__
    return handler.generate_schema(_twins.setdefault(cls, twin))


_QUALIFIERS = (typing.Required, typing.NotRequired, typing_extensions.Required, typing_extensions.NotRequired)
_twins: dict[Any, Any] = {}
