"""Texts by which a server or a member of the project could command a terminal."""

from __future__ import annotations

import re

HOSTILE_TEXTS = [
    "\x1b]8;;https://evil.example\x07click\x1b]8;;\x07",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1bP$q\x1b\\",
    "\x9b2J",
    "\x9d52;c;ZXZpbA==\x9c",
    "gpt\u202egnp.exe",
    "\u2066left\u2069",
    "safe\rforged",
    "safe\x08\x08\x08\x08forged",
    "\x00\x07\x0b\x0c\x0e\x7f",
    "line\u2028separator\u2029",
    "\ufefftag\U000e0041",
]
HOSTILE = "evil " + "".join(HOSTILE_TEXTS) + " [red]markup[/red] [link=https://evil.example]x[/link]"
"""All of the texts in one, and markup of rich."""

_COMMAND = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)


def is_harmless(text: str) -> bool:
    """Return whether a text contains no character that commands a terminal or reorders its text."""
    return not _COMMAND.search(text)
