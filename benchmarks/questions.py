"""The questions that all contenders ask: real instructions, crossed with generated variations.

Standard library only: the contenders' own environments import it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHARACTERS = 500
"""The length of each question."""

MODEL = "gpt-4o-mini"

MAX_TOKENS = 128
"""Asked for by every contender: distilabel's default."""

_TONES = ("formal", "playful", "terse", "patient", "sceptical", "warm", "dry")
_READERS = ("a child", "a nurse", "an engineer", "a judge", "a new colleague", "a tired parent", "a tourist")


@cache
def instructions() -> tuple[str, ...]:
    """Real instructions where there are some beside the project, the demo's otherwise."""
    folder = ROOT.parent / "shared" / "data"
    paths = [folder / "seed_tasks.jsonl", folder / "user_oriented_instructions.jsonl"]
    if not all(path.exists() for path in paths):
        paths = [ROOT / "examples" / "instructions.jsonl"]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line]
    return tuple(json.loads(line)["instruction"] for line in lines)


def questions(number: int, characters: int = CHARACTERS) -> Iterator[str]:
    """So many questions, no two alike.

    Args:
        number: how many.
        characters: the length of each.
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
