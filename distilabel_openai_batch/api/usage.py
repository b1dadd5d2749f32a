"""Numbers of billed tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

LONG_PROMPT = 128_000
"""Number of prompt tokens above which a model may have other prices; OpenAI's other prices begin at 272,000.

https://platform.openai.com/docs/pricing
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were billed, or would be billed.

    Attributes:
        tokens_in: tokens of prompts, cached ones included.
        tokens_out: tokens of answers, reasoning included.
        tokens_cached: tokens of prompts that the server had in its cache.
        long_prompts: the usage of each request whose prompt is longer than `LONG_PROMPT`. An input file has no space
            for more than some hundred such requests.
    """

    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0
    long_prompts: tuple[Usage, ...] = ()

    @classmethod
    def of_request(cls, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> Usage:
        """Return the usage of one request."""
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
        """Return the three numbers of tokens by their field names."""
        return {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out, "tokens_cached": self.tokens_cached}
