"""Hypothesis strategies for JSON objects of which one field makes no sense."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from tests.support.hostile import HOSTILE

Path = tuple[str | int, ...]
"""Keys and indexes that lead from a JSON value to a part of the value."""


def nested(depth: int) -> Any:
    """Return lists inside of each other."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


REMOVED = object()
"""Mark of a field that is left out."""

SENSELESS_VALUES: list[Any] = [
    REMOVED,
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    2**31,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    10**30,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "text",
    "1",
    "\ud800",
    HOSTILE,
    "../../precious",
    "x" * 10_000,
    [],
    [1],
    [None],
    ["text"],
    [[]],
    [{}],
    {},
    {"id": 1},
    {"data": None},
    {"\ud800": 1},
    nested(300),
    nested(900),
]


def paths(value: Any, path: Path = ()) -> list[Path]:
    """Return the paths of all parts of a JSON value, its own included."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in parts for found in paths(part, (*path, key)))]


def replaced(value: Any, path: Path, part: Any) -> Any:
    """Return a copy of a JSON value with another part at a path; with `REMOVED` the part is left out."""
    if not path:
        return None if part is REMOVED else part
    value = copy.deepcopy(value)
    owner = value
    for key in path[:-1]:
        owner = owner[key]
    if part is REMOVED:
        del owner[path[-1]]
    else:
        owner[path[-1]] = part
    return value


def mutations(value: Any) -> st.SearchStrategy[tuple[Path, Any]]:
    """Return a strategy for a path in a JSON value, and the part that makes no sense there."""
    return st.tuples(st.sampled_from(paths(value)), st.sampled_from(SENSELESS_VALUES))
