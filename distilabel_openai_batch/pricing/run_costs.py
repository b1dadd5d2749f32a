"""Tokens and dollars that one run was billed, by model."""

from __future__ import annotations

import time

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Cost


class RunCosts:
    """Sum of the tokens that a run was billed, and their price.

    Args:
        base_url: the server's address, which decides the price list.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        # By the model that answered, the requested model, and whether the requests were synchronous.
        self._usages: dict[tuple[str, str, bool], Usage] = {}

    def add(self, answered_by: str, requested: str, usage: Usage, is_sync: bool) -> None:
        """Add billed tokens.

        Args:
            answered_by: the model that the answers name.
            requested: the model that the requests name.
            usage: the tokens.
            is_sync: whether the requests were synchronous.
        """
        key = (answered_by, requested, is_sync)
        self._usages[key] = self._usages.get(key, Usage(0, 0)) + usage

    def tokens(self, is_sync: bool) -> Usage:
        """Return the tokens billed for synchronous requests, or for requests in batches."""
        return sum((usage for (*_, sync), usage in self._usages.items() if sync == is_sync), Usage(0, 0))

    def total(self) -> Cost | None:
        """Return the cost of all tokens; `None` for no tokens, and if the cost of a part is unknown."""
        total, now = Cost(), time.time()
        for (answered_by, requested, is_sync), usage in self._usages.items():
            rates = prices.find_rates(answered_by, self._base_url, now) or prices.find_rates(
                requested, self._base_url, now
            )
            if rates is None or not usage.tokens_in + usage.tokens_out:
                return None
            total += rates.cost(usage, is_sync)
        return total if self._usages else None
