"""Which version this is."""

from importlib.metadata import version

__all__ = ["duly_version"]


def duly_version() -> str:
    """The version that is installed."""
    return version("duly")
