"""How states look: the same symbol and colour for the same thing in every command."""

from rich.text import Text

from duly._model.job import JobState

__all__ = ["STATES", "state_text"]

STATES: dict[JobState, tuple[str, str]] = {
    "pending": ("·", "cyan"),
    "inProgress": ("▶", "blue"),
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "canceled": ("–", "yellow"),
}
"""The symbol and the colour of each state."""


def state_text(state: JobState) -> Text:
    """A state with its symbol."""
    symbol, colour = STATES[state]
    return Text(f"{symbol} {state}", colour)
