"""Values as duly knows them, for hypothesis."""

from typing import Any

from hypothesis import strategies as st

from duly._ground.values import Int64

__all__ = ["INT_MAX", "INT_MIN", "TIMES_US", "keys", "numbers", "scalars", "texts", "values"]

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
TIMES_US = st.integers(min_value=1, max_value=4_300_000_000_000_000)
"""Microseconds since the epoch: until the year 2106, as long as a float of milliseconds tells them apart."""

# The places where int and float part, and where the bits of a float turn.
_EDGES = [
    sign * (1 << power) + offset
    for power in (0, 1, 31, 32, 52, 53, 54, 55, 62)
    for sign in (1, -1)
    for offset in range(-3, 4)
] + [INT_MIN, INT_MIN + 1, INT_MIN + 2, INT_MAX, INT_MAX - 1, INT_MAX - 511, INT_MAX - 512, INT_MAX - 1_023]
_FLOAT_EDGES = [float(edge) for edge in _EDGES] + [0.0, -0.0, 5e-324, -5e-324, 2.0**63, -(2.0**63), 1.5, 2.0**53 + 2]

ints = st.integers(INT_MIN, INT_MAX) | st.sampled_from(_EDGES)
floats = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from(_FLOAT_EDGES)
numbers = ints | floats
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [
        "",
        "\0",
        "a",
        "a\0",
        "a\0a",
        "a\0\x01",
        "a\x01",
        "aa",
        "$bytes",
        '{"$bytes": "aGk="}',
        "\uffff",
        "\U0001f375",
        "é",
    ]
)
blobs = st.binary() | st.sampled_from([b"", b"\0", b"\0\0", b"\0\xff", b"\0\x01", b"\x01", b"\xff", b"\xff\xff"])
keys = texts.filter(lambda key: not key.startswith(("_", "$")))
scalars = st.none() | st.booleans() | numbers | texts | blobs | ints.map(Int64)


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4)


values: st.SearchStrategy[Any] = st.recursive(scalars, _containers, max_leaves=12)
