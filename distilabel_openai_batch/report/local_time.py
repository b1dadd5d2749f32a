"""Moments in the local time zone, and the labels of an axis of time. Pure functions of the time zone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from itertools import count

_MINUTE = 60
_HOUR = 3_600
_DAY = 86_400

# Seconds between two labelled moments.
_STEPS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, _DAY // 2, _DAY, 2 * _DAY, 7 * _DAY)


def local(seconds: float) -> datetime:
    """Return seconds since the epoch as a moment of the local time zone."""
    return datetime.fromtimestamp(seconds).astimezone()


def utc_offset(seconds: float) -> float:
    """Return the seconds by which the local time is ahead of UTC at a moment."""
    offset = local(seconds).utcoffset()
    return offset.total_seconds() if offset else 0.0


def zone_name(seconds: float) -> str:
    """Return the local time zone at a moment: `CET (UTC+01:00)`, `UTC`."""
    moment = local(seconds)
    offset, name = f"UTC{moment:%z}", moment.tzname() or ""
    offset = f"{offset[:-2]}:{offset[-2:]}"
    if offset == "UTC+00:00":
        return "UTC"
    # Zones without an abbreviation are named by their offset: `+03`.
    return f"{name} ({offset})" if name.isalpha() else offset


def _steps() -> Iterator[int]:
    """Yield the numbers of seconds that may lie between two labels, ascending."""
    yield from _STEPS
    yield from count(2 * _STEPS[-1], _STEPS[-1])


def _format_label(seconds: float, step: int, start: float, end: float) -> str:
    """Return the local date or time of a moment, as exact as the step, with the date where a time occurs twice."""
    moment = local(seconds)
    if step >= _DAY:
        return f"{moment.day} {moment:%b}"
    time_of_day = f"{moment:%H:%M}" if step >= _MINUTE else f"{moment:%H:%M:%S}"
    return time_of_day if end - start < _DAY else f"{moment.day} {moment:%b} {time_of_day}"


def label_moments(start: float, end: float, pixels: int, character_pixels: int, gap_pixels: int) -> dict[float, str]:
    """Return the labels of an axis by their moments, at whole local times. No label occurs twice, and none touch.

    Args:
        start: the left end, in seconds since the epoch.
        end: the right end, in seconds since the epoch.
        pixels: the length of the axis.
        character_pixels: the width of a character.
        gap_pixels: the width between two labels, at least.
    """

    def needed_seconds(step: int) -> float:
        characters = len(_format_label(end, step, start, end))
        return (end - start) / pixels * (characters * character_pixels + gap_pixels)

    step = next(step for step in _steps() if step >= needed_seconds(step))
    # Days may have 23 or 25 hours → a midnight after such a day is found by its own offset.
    offset = utc_offset(start)
    labels: dict[float, str] = {}
    for number in range(math.ceil((start + offset) / step), math.floor((end + offset + _HOUR) / step) + 1):
        at = step * number - offset
        at += offset - utc_offset(at) if step >= _HOUR else 0
        label = _format_label(at, step, start, end)
        if start <= at <= end and label not in labels.values():
            labels[at] = label
    return labels
