"""Questions for all contenders: real instructions, combined with generated tones and readers.

Imports only the standard library, because the environments of the other contenders import this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHARACTERS = 500
"""Length of each question."""

MODEL = "gpt-4o-mini"

MAX_TOKENS = 128
"""`max_tokens` of every request: the default of distilabel."""

_TONES = ("formal", "playful", "terse", "patient", "sceptical", "warm", "dry")
_READERS = ("a child", "a nurse", "an engineer", "a judge", "a new colleague", "a tired parent", "a tourist")


@cache
def instructions() -> tuple[str, ...]:
    """Return the instructions of the folder `../shared/data` if present, else the instructions of the demo."""
    folder = ROOT.parent / "shared" / "data"
    paths = [folder / "seed_tasks.jsonl", folder / "user_oriented_instructions.jsonl"]
    if not all(path.exists() for path in paths):
        paths = [ROOT / "examples" / "instructions.jsonl"]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line]
    return tuple(json.loads(line)["instruction"] for line in lines)


def questions(number: int, characters: int = CHARACTERS) -> Iterator[str]:
    """Yield different questions; the same arguments give the same questions.

    Args:
        number: number of questions.
        characters: length of each question.
    """
    real = instructions()
    for index in range(number):
        tone, reader = _TONES[index % len(_TONES)], _READERS[index // len(_TONES) % len(_READERS)]
        text = f"{index}. In a {tone} tone, for {reader}: {real[index % len(real)]}"
        step = index
        while len(text) < characters:
            step += 1
            text += f" Then, as a variation: {real[step % len(real)]}"
        yield text[:characters]
