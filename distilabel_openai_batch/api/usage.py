"""Numbers of billed tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distilabel_openai_batch.api.encoding import read_count

LONG_PROMPT = 128_000
"""Number of prompt tokens above which a model may have other prices; OpenAI's other prices begin at 272,000.

https://platform.openai.com/docs/pricing
"""

TokenDetails = tuple[int, int, int]
"""Tokens of a prompt that the server read from its cache, tokens that the server wrote to its cache, and tokens of an
answer that were spent on reasoning."""

NO_DETAILS: TokenDetails = (0, 0, 0)
"""Details of a usage that names none."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were billed, or would be billed.

    Attributes:
        tokens_in: tokens of prompts, cached ones included.
        tokens_out: tokens of answers, reasoning included.
        tokens_cached: tokens of prompts that the server had in its cache.
        tokens_written: tokens of prompts that the server wrote to its cache, at a price of their own.
        tokens_reasoning: tokens of answers that were spent on reasoning, billed like other tokens of answers.
        long_prompts: the usage of each request whose prompt is longer than `LONG_PROMPT`. An input file has no space
            for more than some hundred such requests.
    """

    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0
    tokens_written: int = 0
    tokens_reasoning: int = 0
    long_prompts: tuple[Usage, ...] = ()

    @classmethod
    def of_request(
        cls,
        tokens_in: int,
        tokens_out: int,
        tokens_cached: int = 0,
        tokens_written: int = 0,
        tokens_reasoning: int = 0,
    ) -> Usage:
        """Return the usage of one request."""
        usage = cls(tokens_in, tokens_out, tokens_cached, tokens_written, tokens_reasoning)
        return replace(usage, long_prompts=(usage,)) if tokens_in > LONG_PROMPT else usage

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.tokens_cached + other.tokens_cached,
            self.tokens_written + other.tokens_written,
            self.tokens_reasoning + other.tokens_reasoning,
            self.long_prompts + other.long_prompts,
        )

    def beyond(self, other: Usage) -> Usage:
        """Return the tokens of this usage that another usage lacks, of each kind at least 0."""
        return Usage(
            max(0, self.tokens_in - other.tokens_in),
            max(0, self.tokens_out - other.tokens_out),
            max(0, self.tokens_cached - other.tokens_cached),
            max(0, self.tokens_written - other.tokens_written),
            max(0, self.tokens_reasoning - other.tokens_reasoning),
        )

    def totals(self) -> tuple[int, int]:
        """Return the numbers of tokens in and out."""
        return self.tokens_in, self.tokens_out

    def counts(self) -> dict[str, int]:
        """Return the five numbers of tokens by their field names."""
        return {
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "tokens_cached": self.tokens_cached,
            "tokens_written": self.tokens_written,
            "tokens_reasoning": self.tokens_reasoning,
        }


NO_USAGE = Usage(0, 0)
"""Usage without any token."""


def read_tokens(usage: object) -> tuple[tuple[int, int], TokenDetails]:
    """Read the `usage` of an answer or of a batch.

    The endpoints for chats and for responses name the counts differently; a batch has the names of responses.

    Args:
        usage: the object, or any value in its place.

    Returns:
        Tokens in and out, and their details; 0 for a number that is missing or makes no sense.
    """
    if type(usage) is not dict:
        return (0, 0), NO_DETAILS
    tokens_in = read_count(usage["prompt_tokens"] if "prompt_tokens" in usage else usage.get("input_tokens"))
    tokens_out = read_count(usage["completion_tokens"] if "completion_tokens" in usage else usage.get("output_tokens"))
    details_in = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    details_out = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    if not details_in and not details_out:
        return (tokens_in, tokens_out), NO_DETAILS
    cached, written = _read(details_in, "cached_tokens"), _read(details_in, "cache_write_tokens")
    return (tokens_in, tokens_out), (cached, written, _read(details_out, "reasoning_tokens"))


def read_usage(usage: object) -> Usage | None:
    """Return the `usage` of a batch, see `read_tokens`; `None` if the object counts no tokens."""
    tokens, details = read_tokens(usage)
    return Usage(*tokens, *details) if any(tokens) else None


def _read(details: object, name: str) -> int:
    return read_count(details.get(name)) if isinstance(details, dict) else 0
