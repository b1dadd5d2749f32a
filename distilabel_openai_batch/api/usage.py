"""Tokens that were billed."""

from __future__ import annotations

from dataclasses import dataclass, replace

LONG_PROMPT = 128_000
"""Tokens of a prompt above which it may be billed at other prices: OpenAI's begin at 272,000.

https://platform.openai.com/docs/pricing
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were, or would be, billed.

    Attributes:
        tokens_in: those of prompts, cached ones included.
        tokens_out: those of answers, reasoning included.
        tokens_cached: those of the prompts that the server had in its cache.
        long_prompts: the usage of each request whose prompt is longer than `LONG_PROMPT`. A job's file has no room
            for more than some hundred.
    """

    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0
    long_prompts: tuple[Usage, ...] = ()

    @classmethod
    def of_request(cls, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> Usage:
        """Those of one request."""
        usage = cls(tokens_in, tokens_out, tokens_cached)
        return replace(usage, long_prompts=(usage,)) if tokens_in > LONG_PROMPT else usage

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.tokens_cached + other.tokens_cached,
            self.long_prompts + other.long_prompts,
        )

    def counts(self) -> dict[str, int]:
        """The sums, by their names."""
        return {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out, "tokens_cached": self.tokens_cached}
