"""Plain text that restates an instruction: the default reply of the sandbox's model."""

from __future__ import annotations

import re
import string
from functools import cache

# Least and largest number of letters of a word that may name a subject; a longer word counts as several.
_MIN_WORD, _MAX_WORD = 4, 20
_WORD = re.compile(rf"[^\W\d_]{{{_MIN_WORD},{_MAX_WORD}}}")
# Table for `bytes.translate`: every byte but a lower-case letter becomes a space.
_ASCII_LETTERS = bytes(byte if chr(byte) in string.ascii_lowercase else ord(" ") for byte in range(256))
# Words that do not name a subject. One string, since a list would take a line per word.
_COMMON_WORDS = frozenset(
    """
    about above according after also been before being below best between could does each every following from give
    given have here into just like make many more most must need only other please prompt should some such than that
    their them then there these they this three through using very want were what when where which while will with would
    write your
    """.split()  # noqa: SIM905
)

_OPENINGS = (
    "Here is how I would approach “{topic}”.",
    "The request is “{topic}”, and the short answer is that it can be done in three steps.",
    "To answer “{topic}”, it helps to begin with what is known.",
    "Thank you for the question: “{topic}”.",
    "“{topic}” has a clear core and a few details around it.",
    "Taken at its word, “{topic}” asks for one thing above all.",
    "Let us work through “{topic}” in order.",
)
_BODIES = (
    "The main point is {a}, since everything that concerns {b} depends on it.",
    "Begin with {a}: describe it in one plain sentence, then say how {b} changes it.",
    "Most people look at {b} first, yet {a} decides how well the rest works.",
    "A small example makes it concrete: take one case of {a}, and follow what happens to {b}.",
    "Compare {a} with {b}; where the two agree you are done, and where they differ the difference is the answer.",
    "It is worth separating {a} from {b}, because they are often confused and need different treatment.",
    "First settle what {a} should achieve; {b} then follows with little effort.",
    "In practice {a} takes the most time, while {b} is where mistakes are made.",
)
_REASONS = (
    "This keeps the result easy to check.",
    "Doing it this way leaves nothing important out.",
    "The reason is simple: each part can be judged without the others.",
    "Should the circumstances change, only this part has to be done again.",
    "Anyone who reads it later can see why it was done.",
    "That is usually enough for a first version.",
)
_CLOSINGS = (
    "If you tell me more about {a}, I can be more specific.",
    "In short: start from {a}, keep {b} in view, and stop when both are clear.",
    "Once that is in place, go back to the question and check it line by line.",
    "That covers the question as it was asked.",
    "Finish by reading it aloud; whatever sounds wrong about {b} usually is.",
)
_VARIANT_COUNT = len(_OPENINGS) * len(_BODIES) * len(_REASONS) * len(_CLOSINGS)


def topic(instruction: str, words: int = 12) -> str:
    """Return the first words of an instruction, on one line and without closing punctuation.

    Args:
        instruction: instruction of the user.
        words: maximum number of words.
    """
    start = instruction[:400].split(None, words)
    text = " ".join(start[:words])[:160].rstrip(" .?!:;,")
    if not text:
        return "your request"
    return text if len(start) <= words else text + " …"


def subjects(instruction: str) -> tuple[str, str]:
    """Return the two longest words at the beginning of an instruction, as a guess of the subject."""
    start = instruction[:200].lower()
    # Most texts are ASCII, and `split` takes a fifth of the time of the regular expression, which cuts long words.
    words = start.encode().translate(_ASCII_LETTERS).decode().split() if start.isascii() else _WORD.findall(start)
    found = _two_longest(words)
    if found and len(found[0]) > _MAX_WORD:
        found = _two_longest(_WORD.findall(start))
    first, second = [*found, "the question", "its context"][:2]
    return first, second


def _two_longest(words: list[str]) -> list[str]:
    """Return the two longest words that may name a subject, the longest first; fewer if there are fewer."""
    first = second = ""
    # A word with more letters replaces the second word.
    letters = _MIN_WORD - 1
    for word in words:
        if len(word) > letters and word not in _COMMON_WORDS and word != first:
            if len(word) > len(first):
                first, second = word, first
            else:
                second = word
            letters = max(letters, len(second))
    return [word for word in (first, second) if word]


def write_prose(instruction: str, seed: int, characters: int | None = None) -> str:
    """Write a few sentences on an instruction.

    Args:
        instruction: instruction of the user.
        seed: number of the variant; neighbouring numbers give different texts.
        characters: number of characters, from the first, that the caller uses, so the text may end there or later;
            `None` for the whole text.
    """
    opening, others = _choose_sentences(seed % _VARIANT_COUNT)
    # The topic may hold braces of its own, and only the opening names the topic.
    text = opening.replace("{topic}", topic(instruction))
    if characters is not None and len(text) >= characters:
        return text
    a, b = subjects(instruction)
    return text + others.replace("{a}", a).replace("{b}", b)


@cache
def _choose_sentences(variant: int) -> tuple[str, str]:
    """Return the opening of a text, and the sentences that follow the opening."""
    sentences = []
    for choices in (_OPENINGS, _BODIES, _REASONS, _CLOSINGS):
        variant, index = divmod(variant, len(choices))
        sentences.append(choices[index])
    return sentences[0], " " + " ".join(sentences[1:])
