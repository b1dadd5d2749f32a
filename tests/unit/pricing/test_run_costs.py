"""Tests of `pricing.run_costs`."""

from __future__ import annotations

from decimal import Decimal

import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.price_book import PriceBook
from distilabel_openai_batch.pricing.prices import Cost
from distilabel_openai_batch.pricing.run_costs import RunCosts

PRICES = PriceBook("https://api.openai.com/v1/")
MILLION = Usage(1_000_000, 0)


def test_tokens_are_added_up_by_way_of_sending():
    costs = RunCosts(PRICES)
    costs.add("a", "a", Usage(1, 2, 3), is_sync=False)
    costs.add("b", "a", Usage(10, 20, 30), is_sync=False)
    costs.add("a", "a", Usage(5, 5), is_sync=True)
    assert costs.tokens(is_sync=False) == Usage(11, 22, 33)
    assert costs.tokens(is_sync=True) == Usage(5, 5)


def test_the_total_prices_each_model_and_way_of_sending():
    """A model without a price has the price of the requested model."""
    pytest.importorskip("genai_prices")
    costs = RunCosts(PRICES)
    costs.add("gpt-4o-mini", "gpt-4o-mini", MILLION, is_sync=True)
    costs.add("gpt-4o-mini-of-tomorrow", "gpt-4o-mini", MILLION, is_sync=False)
    assert costs.total() == Cost(Decimal("0.225"), Decimal("0.3"))


@pytest.mark.parametrize(("model", "usage"), [("mine", MILLION), ("gpt-4o", Usage(0, 0))])
def test_total_is_a_lower_bound_if_a_part_is_unknown(model, usage):
    pytest.importorskip("genai_prices")
    costs = RunCosts(PRICES)
    assert costs.total() is None
    costs.add(model, model, usage, is_sync=False)
    assert costs.total() is None
    costs.add("gpt-4o-mini", "gpt-4o-mini", MILLION, is_sync=False)
    assert costs.total() == Cost(Decimal("0.075"), Decimal("0.15"), is_lower_bound=True)


def test_the_tier_of_an_answer_decides_its_price():
    pytest.importorskip("genai_prices")
    costs = RunCosts(PRICES)
    costs.add("gpt-4o-mini", "gpt-4o-mini", MILLION, is_sync=False, tier="flex")
    costs.add("gpt-4o-mini", "gpt-4o-mini", MILLION, is_sync=True, tier="default")
    assert costs.total() == Cost(Decimal("0.225"), Decimal("0.3"))
    assert costs.tokens(is_sync=True) == MILLION
