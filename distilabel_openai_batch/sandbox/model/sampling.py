"""Parts that chat and legacy completions share: stop sequences, token limits, log probabilities, usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .checks import get_parameter
from .tokens import CHARACTERS_PER_TOKEN, count_tokens


def usage(prompt_tokens: int, completion_tokens: int, reasoning_tokens: int = 0) -> dict[str, Any]:
    """Return the `usage` object of an answer.

    Args:
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens of the answer, reasoning included.
        reasoning_tokens: tokens of reasoning.
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


@dataclass(frozen=True)
class TextLength:
    """Bounds of the length of a chat's text.

    Attributes:
        characters: maximum number of characters; `None` for whole sentences.
        tokens: least number of tokens.
    """

    characters: int | None = None
    tokens: int = 0

    def fit(self, text: str) -> str:
        """Return a text within the bounds: repeated until the text is long enough, then cut."""
        missing = self.tokens * CHARACTERS_PER_TOKEN - len(text)
        if text and missing > 0:
            text += f"\n\n{text}" * -(-missing // (len(text) + 2))
        return text[: self.characters]


ANY_LENGTH = TextLength()
"""No bounds."""


def stop_sequences(body: dict[str, Any]) -> tuple[str, ...]:
    """Return the stop sequences of a request, without empty ones."""
    stop = get_parameter(body, "stop", [])
    return tuple(filter(None, [stop] if isinstance(stop, str) else stop))


def cut_text(text: str, stops: tuple[str, ...], token_limit: int | None) -> tuple[str, str]:
    """Cut a text at the first stop sequence, then at the token limit.

    Args:
        text: the whole text.
        stops: stop sequences.
        token_limit: maximum number of tokens; `None` for no limit.

    Returns:
        The cut text, and the finish reason: `length` if the token limit was exceeded, else `stop`.
    """
    for stop in stops:
        text = text.partition(stop)[0]
    if token_limit is not None and count_tokens(text) > token_limit:
        return text[: token_limit * CHARACTERS_PER_TOKEN], "length"
    return text, "stop"


def rank_alternatives(token: str, seed: int, count: int) -> list[tuple[str, float]]:
    """Return `count` tokens with falling log probabilities; the first is `token` itself."""
    words = (f" {word}" for word in ("the", "an", "and", "to", "of", "in", "is", "it", "for", "that", "with", "as"))
    letters = (f" {letter}" for letter in "abcdefghijklmnop")
    names = [token, *(name for name in (*words, *letters) if name != token)][:count]
    return [(name, _logprob(seed, rank)) for rank, name in enumerate(names)]


def _logprob(seed: int, rank: int) -> float:
    """Return the log probability of a token: highest for rank 0, lower for each alternative."""
    return -round((seed % 997) / 4_000 + rank * (1.0 + (seed % 89) / 100), 6)
