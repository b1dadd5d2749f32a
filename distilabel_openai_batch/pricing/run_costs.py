"""Tokens and dollars that one run was billed, by model."""

from __future__ import annotations

import time

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.price_book import PriceBook
from distilabel_openai_batch.pricing.prices import Cost, sum_known


class RunCosts:
    """Sum of the tokens that a run was billed, and their price.

    Args:
        price_book: the prices at the server.
    """

    def __init__(self, price_book: PriceBook) -> None:
        self._price_book = price_book
        # By the model that answered, the requested model, whether the full price counts, and the service tier.
        self._usages: dict[tuple[str, str, bool, str | None], Usage] = {}

    def add(self, answered_by: str, requested: str, usage: Usage, is_sync: bool, tier: str | None = None) -> None:
        """Add billed tokens.

        Args:
            answered_by: the model that the answers name.
            requested: the model that the requests name.
            usage: the tokens.
            is_sync: whether the requests were synchronous, at full price.
            tier: the service tier that answered; `None` in a batch.
        """
        key = (answered_by, requested, is_sync, tier)
        self._usages[key] = self._usages.get(key, Usage(0, 0)) + usage

    def tokens(self, is_sync: bool) -> Usage:
        """Return the tokens billed for requests at full price, or for other requests."""
        return sum((usage for (*_, sync, _), usage in self._usages.items() if sync == is_sync), Usage(0, 0))

    def total(self) -> Cost | None:
        """Return the cost of the tokens whose price is known; `None` if there are none."""
        now = time.time()
        costs: list[Cost | None] = []
        for (answered_by, requested, is_sync, tier), usage in self._usages.items():
            rates = self._price_book.find_rates(now, answered_by, requested)
            is_known = rates is not None and usage.tokens_in + usage.tokens_out
            costs.append(rates.cost(usage, is_sync, tier) if rates and is_known else None)
        return sum_known(costs)
