"""Bounds of the numeric fields: numbers with which a run would never end, or would submit nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta

from distilabel_openai_batch.api.retention import LONGEST_SECONDS, SHORTEST_SECONDS
from distilabel_openai_batch.engine.deadlines import parse_deadline

_DAY = 86_400
_YEAR = 366 * _DAY
_MANY = 1_000_000_000

BOUNDS: Mapping[str, tuple[float, float]] = {
    "max_requests_per_job": (1, _MANY),
    # A smaller file holds hardly one request.
    "max_bytes_per_job": (1_000, 1_000 * _MANY),
    "max_jobs": (1, _MANY),
    "max_attempts": (1, _MANY),
    "min_poll_interval": (0, _DAY),
    "max_poll_interval": (0, _DAY),
    "deadline": (0, _YEAR),
    "sync_below": (0, _MANY),
    "flex_below": (0, _MANY),
    # A process may open some thousand connections.
    "max_concurrency": (1, 10_000),
    "budget": (0, _MANY),
    "input_expires_after": (SHORTEST_SECONDS, LONGEST_SECONDS),
    "output_expires_after": (SHORTEST_SECONDS, LONGEST_SECONDS),
    # Fields of distilabel, which have no bounds there.
    "max_retries": (0, 1_000),
    "timeout": (1, _DAY),
}
"""The least and the greatest value of each numeric field, in the unit of the field."""

OFFLINE_FIELD = "offline_batch_generation_block_until_done"
"""Field of distilabel's LLMs: seconds between two polls."""


def check_number(name: str, value: float | None) -> float | None:
    """Return the value of a numeric field.

    Args:
        name: name of the field.
        value: the value; `None` is not checked.

    Raises:
        ValueError: the value is infinite, no number, or out of bounds.
    """
    least, greatest = BOUNDS.get(name, (0, _DAY))
    if value is None or least <= value <= greatest:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` is {value}, and must be a finite number")
    raise ValueError(f"`{name}` is {value:,}, and must be at least {least:,} and at most {greatest:,}")


def clean_deadline(value: object) -> object:
    """Return a deadline as a number of seconds, or as a text that JSON and YAML can hold.

    Args:
        value: the value of the field; YAML reads an unquoted date-time as a `datetime`.

    Raises:
        ValueError: a text is no deadline, or its duration is out of bounds.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        value = str(value)
    elif isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str):
        return value
    deadline = parse_deadline(value)
    if deadline.clock or math.isfinite(deadline.at):
        return value.strip()
    check_number("deadline", deadline.seconds)
    if not deadline.seconds:
        raise ValueError("`deadline` is 0, and must be greater than 0")
    try:
        return float(value)
    except ValueError:
        return value.strip()


def find_not_finite(value: object, path: str = "") -> str | None:
    """Return the place and the value of the first infinite number or NaN in nested values; `None` if there is none.

    Args:
        value: JSON value.
        path: place of the value.
    """
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} = {value}"
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}" if path else str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    else:
        return None
    return next(filter(None, (find_not_finite(part, place) for place, part in parts)), None)
