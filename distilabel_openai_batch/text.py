"""Texts that several folders share: plurals, durations, lists of names, suggestions, escapes, kinds of messages."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from difflib import get_close_matches


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Return a number of bytes in the decimal unit that fits: `531 B`, `2.4 kB`, `12.30 MB`."""
    if number < 1_000:
        return f"{number} B"
    return f"{number / 1e3:.1f} kB" if number < 1_000_000 else f"{number / 1e6:,.2f} MB"


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


# Characters that tell the kind of a message: a server may quote a whole prompt behind them.
_KIND_CHARACTERS = 1_000

# Parts of a message in which failures of one kind differ, in the order of their removal. An apostrophe inside a word
# (`can't`) opens no quotation. A word with a digit is a figure or an id; ids such as `req_AbC` may have no digit.
_DETAILS = re.compile(
    r'"[^"]*"|`[^`]*`|‘[^’]*’|“[^”]*”|«[^»]*»|(?<!\w)\'[^\']*\'(?!\w)'
    r"|https?://[^\s,;)\]}>]+"
    r"|(?<![\w-])(?:req|file|batch|chatcmpl|cmpl|resp|msg|org|proj|call)[-_]\w+"
    r"|(?<![\w-])[\w-]*\d(?:[\w-]|[.,:](?=\d))*"
)
_LISTED_DETAILS = re.compile(r"\*(?:[\s,;:/|()\[\]{}-]*\*)+")


def message_kind(message: str) -> str:
    """Return a message without the figures, ids, addresses and quoted values in which messages of one kind differ.

    Args:
        message: a message of a server; only its first 1,000 characters count.

    Returns:
        The message with `*` for each detail, and for each list of details.
    """
    return _LISTED_DETAILS.sub("*", _DETAILS.sub("*", message[:_KIND_CHARACTERS]))


def is_unicode(text: str) -> bool:
    """Return whether UTF-8 can encode a text, which has no lone surrogates then."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_surrogates(text: str) -> str:
    """Return a text with lone surrogates, which UTF-8 cannot encode, as escape sequences."""
    return text.encode("utf-8", "backslashreplace").decode()


# Characters by which a text can command a terminal, or show another text than it holds: control characters (C0 without
# tab and line feed, DEL, C1), bidirectional controls, line and paragraph separators, lone surrogates, byte-order marks
# and invisible tags. https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
    r"\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Return a text for people, with each character that could command a terminal as an escape sequence (`\x1b`).

    Texts of a server, of a dataset or of another member of the project reach the terminal, the log and errors only
    through this function. Line feeds and tabs stay.
    """
    return _UNPRINTABLE.sub(_escape, text) if _UNPRINTABLE.search(text) else text


def printable_json(text: str) -> str:
    """Return JSON text with the characters that `printable` escapes as JSON's escape sequences; its value is equal."""
    return _UNPRINTABLE.sub(_escape_in_json, text) if _UNPRINTABLE.search(text) else text


def escape_log_lines(logger: logging.Logger) -> logging.Logger:
    """Make a logger pass its lines through `printable`, and return the logger."""
    logger.addFilter(_escape_record)
    return logger


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))


def _escape_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    # distilabel puts the model's name into the name of an LLM's logger.
    record.name = printable(record.name)
    return True
