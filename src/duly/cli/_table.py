"""The table of scheduled functions: a line for each, and one below it for what went wrong."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from duly._model.job import Job
from duly.cli._console import reveal
from duly.cli._find import SHORT
from duly.cli._look import state_text
from duly.cli._times import moment, relative_time

__all__ = ["JobTable"]

_GAP = "  "
_WIDE = 110
_NAME_MIN = 16


class JobTable:
    """Renders jobs in the width there is: full ids where they fit, else their ends, which the commands take as well.

    Args:
        jobs: Newest first; one more than `limit` says that there are more.
        limit: So many are shown.
        now_ms: What times are relative to.
        filtered: Whether some were left out by a filter.
        fit: Show no more lines than the terminal has.
        summary: What to say below; how many there are, if it is left out.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        limit: int,
        now_ms: float,
        *,
        filtered: bool = False,
        fit: bool = False,
        summary: str = "",
    ) -> None:
        self._jobs = jobs[:limit]
        self._more = len(jobs) > limit
        self._now_ms = now_ms
        self._filtered = filtered
        self._fit = fit
        self._given_summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if not self._jobs:
            yield Text("none: no scheduled function matches" if self._filtered else "no scheduled functions", "dim")
            return
        lines = self._lines(width)
        room = console.height - 3 if self._fit else len(lines)
        yield from lines[: max(room, 2)]
        if len(lines) > max(room, 2):
            yield Text("… the rest does not fit this terminal", "dim")
        yield Text()
        yield Text(self._summary(), "dim")

    def _lines(self, width: int) -> list[Text]:
        jobs = self._jobs
        ids = [job.id if width >= _WIDE else job.id[-SHORT:] for job in jobs]
        times = [f"{relative_time(at, self._now_ms)} · {moment(at, self._now_ms)}" for at in map(_asked_for, jobs)]
        states = [state_text(job.state) for job in jobs]
        id_width = max(map(len, ids))
        time_width = max(len("scheduled for"), *map(len, times))
        state_width = max(len("state"), *map(len, states))
        attempts = len("attempts")
        taken = id_width + state_width + time_width + attempts + 4 * len(_GAP)
        longest = max(len("function"), *(len(job.name) for job in jobs))
        name_width = min(longest, max(width - taken, _NAME_MIN))
        titles = [("id", id_width), ("function", name_width), ("state", state_width), ("scheduled for", time_width)]
        header = "".join(title.ljust(width) + _GAP for title, width in titles) + "attempts"
        lines = [Text(header, "dim")]
        for job, id, state, time in zip(jobs, ids, states, times, strict=True):
            state.pad_right(state_width - len(state))
            line = Text.assemble((id, "dim"), _GAP, _cut(job.name, name_width), _GAP, state, _GAP)
            line.append(f"{time.ljust(time_width)}{_GAP}{job.attempts:>{attempts}}")
            lines.append(line)
            if reason := self._reason(job):
                below = Text.assemble(" " * (id_width + len(_GAP)), ("└ ", "dim"), reason)
                if self._fit or width < _WIDE:
                    below.truncate(width, overflow="ellipsis")
                lines.append(below)
        return lines

    def _reason(self, job: Job) -> Text | None:
        if job.state == "failed":
            return Text(_first_line(job.error or "failed"), "red")
        if job.state == "pending" and job.pending_reason:
            reason = _first_line(job.pending_reason)
            if job.attempts and job.due is not None and job.due > self._now_ms:
                reason = f"next attempt {relative_time(job.due, self._now_ms)}: {reason}"
            return Text(reason, "yellow")
        return None

    def _summary(self) -> str:
        count = len(self._jobs)
        if self._given_summary:
            return self._given_summary
        if self._more:
            return f"the newest {count}; there are more: --limit {count * 10} shows them"
        return f"{count} scheduled function{'s' if count != 1 else ''}"


def _asked_for(job: Job) -> float:
    return job.scheduled_time


def _first_line(text: str) -> str:
    return reveal(text.partition("\n")[0])


def _cut(name: str, width: int) -> str:
    # The end tells more than the beginning: the function's own name.
    return name.ljust(width) if len(name) <= width else "…" + name[len(name) - width + 1 :]
