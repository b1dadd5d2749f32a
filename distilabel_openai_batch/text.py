"""Short texts that several folders share: plurals, durations, lists of names, suggestions for a misspelt name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float | None) -> str:
    """Return seconds in at most two units, `2 h 05 min`; a dash for `None`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    for size, unit, part, part_unit in _UNITS:
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02} {part_unit}"
    return f"{whole} s"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: ". Did you mean `x`?", or "." if no choice is similar."""
    close = get_close_matches(name, list(choices), n=1)
    return f". Did you mean `{close[0]}`?" if close else "."


NAMES_SHOWN = 5
"""Number of names that an error lists before it only counts the rest."""


def shortlist(names: Iterable[str], similar_to: str) -> str:
    """Return up to `NAMES_SHOWN` names as a text: first the names similar to `similar_to`, then the latest ones."""
    distinct = list(dict.fromkeys(reversed(list(names))))
    shown = list(dict.fromkeys([*get_close_matches(similar_to, distinct), *distinct]))[:NAMES_SHOWN]
    more = f" and {len(distinct) - len(shown):,} more" if len(distinct) > len(shown) else ""
    return (", ".join(shown) + more) or "none"


def escape_surrogates(text: str) -> str:
    """Return a text with lone surrogates, which UTF-8 cannot encode, as escape sequences."""
    return text.encode("utf-8", "backslashreplace").decode()
