"""Functions and the references that name them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, ParamSpec, TypeVar

__all__ = ["FunctionKind", "FunctionReference", "Handler", "LazyReference", "path_of", "with_article"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

FunctionKind = Literal["query", "mutation", "action"]


def with_article(kind: FunctionKind) -> str:
    """As it is said: a query, a mutation, an action."""
    return f"an {kind}" if kind == "action" else f"a {kind}"


@dataclass(frozen=True, slots=True)
class Handler:
    """What a decorator recorded of a function."""

    function: Callable[..., Any]
    kind: FunctionKind
    public: bool
    is_async: bool
    timeout: timedelta | None = None


class FunctionReference(Generic[P, R_co]):
    """Names a function: what a decorator returns. Pass it to `run_after`, `run_mutation`, `app.mutation` and so on.

    It carries the function's parameters and result, so that a type checker checks every call and every schedule.
    It is not called itself: what a function does is only transactional when duly runs it.

    Example:
        await ctx.scheduler.run_after(0, send_confirmation, order_id=order_id)
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.module = handler.function.__module__
        self.name = handler.function.__name__
        self.__doc__ = handler.function.__doc__
        self.__wrapped__ = handler.function

    if not TYPE_CHECKING:  # to a type checker it is not callable, so the call is an error in the editor already

        def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
            kind = self.handler.kind
            raise TypeError(
                f"{self.name!r} is a {kind} and can't be called like a function; inside another function use "
                f"'await ctx.run_{kind}({self.name}, …)', elsewhere 'await app.{kind}({self.name}, …)'"
            )

    def __repr__(self) -> str:
        return f"<{self.handler.kind} {self.module}:{self.name}>"


class LazyReference(FunctionReference[..., Any]):
    """Names a function by its path, looked up when used: `duly.internal.emails.send_confirmation`, `duly.api.…`.

    For functions that can't be imported where they are scheduled, because their modules import each other. Type
    checkers know nothing of its arguments; they are checked when it is used.

    Example:
        await ctx.scheduler.run_after(0, duly.internal.emails.send_confirmation, order_id=order_id)
    """

    def __init__(self, root: str, steps: tuple[str, ...] = ()) -> None:
        self._root = root
        self._steps = steps

    def __getattr__(self, step: str) -> "LazyReference":
        if step.startswith("__"):
            raise AttributeError(step)
        return LazyReference(self._root, (*self._steps, step))

    def _path(self) -> str:
        # With an underscore, as all that it has of its own: a module or a function may be called `path`.
        if len(self._steps) < 2:
            raise TypeError(f"{self!r} names no function; it takes a module and a name: duly.{self._root}.emails.send")
        return "/".join(self._steps[:-1]) + ":" + self._steps[-1]

    if not TYPE_CHECKING:

        def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
            raise TypeError(
                f"{self!r} is a reference and can't be called; pass it to run_after, run_mutation and the like"
            )

    def __repr__(self) -> str:
        return ".".join(("duly", self._root, *self._steps))


def path_of(reference: LazyReference) -> str:
    """The path that a lazy reference stands for, such as `emails:send_confirmation`.

    Raises:
        TypeError: It stops short of a function: `duly.internal.emails`.
    """
    return reference._path()
