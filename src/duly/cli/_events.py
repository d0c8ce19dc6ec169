"""What `duly dev` prints as it happens: a line for each event, and below it what went wrong."""

from rich.console import Console
from rich.text import Text

from duly._model.event import Event, EventKind
from duly.cli._console import reveal
from duly.cli._find import SHORT
from duly.cli._look import STATES
from duly.cli._times import clock_time, duration, moment, relative_time

__all__ = ["EventLines"]

_LOOKS: dict[EventKind, tuple[str, str]] = {
    "called": ("→", "magenta"),
    "scheduled": ("+", STATES["pending"][1]),
    "started": STATES["inProgress"],
    "success": STATES["success"],
    "failed": STATES["failed"],
    "canceled": STATES["canceled"],
    "retry": ("↻", "yellow"),
    "parked": ("‖", "yellow"),
    "interrupted": STATES["failed"],
}
_INDENT = " " * 15


class EventLines:
    """Prints events: time, what happened, to which function, and the end of its id, which `duly show` takes.

    Args:
        console: Where to.
        lines_max: How many lines of an error are shown.
    """

    def __init__(self, console: Console, lines_max: int = 30) -> None:
        self._console = console
        self._lines_max = lines_max

    def __call__(self, event: Event) -> None:
        if event.kind not in _LOOKS:
            return
        symbol, colour = _LOOKS[event.kind]
        line = Text.assemble(
            (clock_time(event.at_ms), "dim"),
            "  ",
            (f"{symbol} {event.kind:<11}", colour),
            " ",
            reveal(event.path),
            (_details(event), "dim"),
        )
        self._console.print(line)
        if event.detail:
            self._show_error(event.detail, colour)

    def _show_error(self, detail: str, colour: str) -> None:
        lines = reveal(detail).split("\n")
        if len(lines) > self._lines_max:
            lines[self._lines_max :] = [f"… {len(lines) - self._lines_max} more lines: duly show"]
        for number, line in enumerate(lines):
            if line:
                self._console.print(Text(_INDENT + line, colour if number == 0 else "dim"))


def _details(event: Event) -> str:
    facts: list[str] = []
    if event.kind == "scheduled" and event.due_ms is not None:
        away = event.due_ms - event.at_ms
        when = (
            "now" if away < 1 else f"in {duration(away)}" if away < 1_000 else relative_time(event.due_ms, event.at_ms)
        )
        facts.append(when if away < 60_000 else f"{when} · {moment(event.due_ms, event.at_ms)}")
    elif event.kind == "retry" and event.due_ms is not None:
        facts.append(f"again in {duration(event.due_ms - event.at_ms)}")
    if event.duration_ms is not None:
        facts.append(duration(event.duration_ms))
    if event.job_id is not None:
        facts.append(event.job_id[-SHORT:])
    return "".join(f"  {fact}" for fact in facts)
