"""Short texts that several layers need: plurals, durations, lists, near names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def plural(number: int, noun: str) -> str:
    """How many of something: `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float | None) -> str:
    """Seconds as people say them, in two units at most: `2 h 05 min`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    for size, unit, part, part_unit in _UNITS:
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02} {part_unit}"
    return f"{whole} s"


def nearest(name: str, known: Iterable[str]) -> str:
    """How a sentence ends that says that nobody knows a name: with the one that was meant, if one is like it."""
    close = get_close_matches(name, list(known), n=1)
    return f". Is `{close[0]}` meant?" if close else "."


# So many are named where what was named is not there.
_NAMED = 5


def _few(names: Iterable[str], wanted: str) -> str:
    """A handful of names, those first that somebody may have meant, then the latest."""
    known = list(dict.fromkeys(reversed(list(names))))
    some = list(dict.fromkeys([*get_close_matches(wanted, known), *known]))[:_NAMED]
    more = f" and {len(known) - len(some):,} more" if len(known) > len(some) else ""
    return (", ".join(some) + more) or "none"
