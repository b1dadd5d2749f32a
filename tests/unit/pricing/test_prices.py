"""Tests of `pricing.prices`, against the installed price list."""

from __future__ import annotations

import importlib
import socket
import sys
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import (
    Cost,
    Rates,
    TokenPrices,
    find_provider,
    format_dollars,
)

pytest.importorskip("genai_prices")

OPENAI = "https://api.openai.com/v1/"
GROQ = "https://api.groq.com/openai/v1/"
AZURE = "https://acme.openai.azure.com/openai/"

# A day with listed prices for batches, and a day without.
NOVEMBER = datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()
LONG_AGO = datetime(2025, 6, 1, tzinfo=timezone.utc).timestamp()

MILLIONS = Usage(tokens_in=2_000_000, tokens_out=1_000_000)


@pytest.fixture(autouse=True)
def empty_caches():
    """Empty the caches of prices, so that each test reads the installed price list."""
    caches = (prices._price_list, prices._find_rates, prices._listed_providers, prices._find_listed_host)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


@pytest.mark.parametrize(
    ("model", "base_url", "usage", "synchronous", "batch"),
    [
        ("gpt-4o-mini", OPENAI, MILLIONS, "0.9", "0.45"),
        ("gpt-4o-mini-2024-07-18", OPENAI, MILLIONS, "0.9", "0.45"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", OPENAI, MILLIONS, "1.8", "0.9"),
        # Without a listed price for batches: half.
        ("text-embedding-3-small", OPENAI, Usage(1_000_000, 0), "0.02", "0.01"),
        ("gpt-4o-mini", AZURE, MILLIONS, "0.9", "0.45"),
        # With a listed price for batches that is the full price.
        ("gpt-3.5-turbo-1106", OPENAI, MILLIONS, "4", "4"),
        # Cached tokens have a lower price in a batch, or the same price.
        ("gpt-5-mini", OPENAI, Usage(1_000_000, 0, 1_000_000), "0.025", "0.0125"),
        ("gpt-4.1", OPENAI, Usage(1_000_000, 0, 1_000_000), "0.5", "0.5"),
        ("gpt-4.1", AZURE, Usage(1_000_000, 0, 1_000_000), "0.5", "0.5"),
        # Tokens written to the cache cost 1.25 times as much as others, in a batch too.
        ("gpt-6-luna", OPENAI, Usage(2_000_000, 0, 0, 1_000_000), "0.225", "0.1125"),
        ("gpt-5-mini", OPENAI, Usage(1_000_000, 0, 0, 1_000_000), "0.25", "0.125"),
        # Other providers' models have a price where the list has one for batches.
        ("openai/gpt-oss-120b", GROQ, MILLIONS, "0.9", "0.45"),
        ("grok-4.3", "https://api.x.ai/v1/", Usage(1_000_000, 0), "1.25", "1"),
        # Without a listed price cached tokens cost as much as other tokens.
        ("gpt-4-turbo", OPENAI, Usage(1_000_000, 0, 1_000_000), "10", "5"),
        # The answers of a model of images are images.
        ("gpt-image-1.5", OPENAI, MILLIONS, "42", "21"),
        # The server reports more cached tokens than tokens.
        ("gpt-4o-mini", OPENAI, Usage(0, 0, 5), "0", "0"),
        # The price of all tokens of a request rises with the length of its prompt.
        ("gpt-5.4", OPENAI, Usage(1_000_000, 0), "2.5", "1.25"),
        ("gpt-5.4", OPENAI, Usage.of_request(272_000, 0), "0.68", "0.34"),
        ("gpt-5.4", OPENAI, Usage.of_request(272_001, 1_000_000), "23.860005", "11.9300025"),
        ("gpt-5.4", OPENAI, Usage.of_request(300_000, 0, 300_000), "0.15", "0.075"),
        ("gpt-5.4", OPENAI, Usage(700_000, 0) + Usage.of_request(300_000, 0), "3.25", "1.625"),
        ("gpt-4o-mini", OPENAI, Usage.of_request(1_000_000, 0), "0.15", "0.075"),
    ],
)
def test_tokens_cost_their_list_price(model, base_url, usage, synchronous, batch):
    rates = prices.find_rates(model, base_url, NOVEMBER)
    assert rates.sync_dollars(usage) == Decimal(synchronous)
    assert rates.batch_dollars(usage) == Decimal(batch)


def test_moderation_is_free():
    rates = prices.find_rates("omni-moderation-latest", OPENAI, NOVEMBER)
    assert rates.is_free
    assert rates.cost(MILLIONS, is_sync=False) == Cost()
    assert not prices.find_rates("gpt-4o-mini", OPENAI, NOVEMBER).is_free


def test_the_price_is_the_price_of_the_day():
    rates = prices.find_rates("gpt-4.1", OPENAI, LONG_AGO)
    assert (rates.sync.tokens_in, rates.batch.tokens_in, rates.batch.tokens_out) == (2, 1, 4)
    before, after = prices.find_rates("o3", OPENAI, LONG_AGO), prices.find_rates("o3", OPENAI, NOVEMBER)
    assert (before.sync.tokens_in, after.sync.tokens_in) == (10, 2)


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("gpt-4o-mini-of-mine", OPENAI),
        ("", OPENAI),
        ("whisper-1", OPENAI),
        ("my-deployment", AZURE),
        ("gpt-4o-mini", "http://127.0.0.1:8000/v1/"),
        ("gpt-4o-mini", "https://gateway.example/v1/"),
        ("gpt-4o-mini", "https://eu.api.openai.com/v1/"),
        ("gpt-4o-mini", "https://api.openai.com.example/v1/"),
        ("gpt-4o-mini", "not an address"),
        ("mistral-saba-24b", GROQ),
        ("Qwen/Qwen2.5-7B-Instruct-Turbo", "https://api.together.xyz/v1/"),
    ],
)
def test_an_unlisted_model_or_server_has_no_price(model, base_url):
    """No similar model is taken instead, and no server with a similar name."""
    assert prices.find_rates(model, base_url, NOVEMBER) is None
    reason = prices.explain_unknown_price(model, base_url)
    assert f"The price of {model} is not known" in reason or f"The prices of {base_url} are not known" in reason


def test_the_reason_names_no_release_that_the_python_cannot_install():
    """Releases of the price list from 0.2 on need Python 3.11."""
    reason = prices.explain_unknown_price("gpt-unlisted", OPENAI)
    assert ("genai-prices 0.2, which needs Python 3.11, may list the model" in reason) == (sys.version_info < (3, 11))
    assert "`prices` takes your own price" in reason


def test_without_the_price_list_the_reason_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert not prices.is_installed()
    assert prices.find_rates("gpt-4o-mini", OPENAI, NOVEMBER) is None
    assert "pip install 'distilabel-openai-batch[prices]'" in prices.explain_unknown_price("gpt-4o-mini", OPENAI)


def test_prices_are_found_without_the_network(monkeypatch):

    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert prices.find_rates("gpt-4o-mini", OPENAI, NOVEMBER)


def test_no_listed_model_raises_an_error_or_costs_more_in_a_batch():
    """A model that is billed by other units than tokens has no price."""
    get_snapshot = importlib.import_module("genai_prices.data_snapshot").get_snapshot
    models = [
        (model.id, url)
        for provider in get_snapshot().providers
        for url in [{"openai": OPENAI, "azure": AZURE}.get(provider.id)]
        if url
        for model in provider.models
    ]
    found = [rates for model, url in models if (rates := prices.find_rates(model, url, NOVEMBER))]
    assert len(found) > 50
    assert all(
        rates.batch_dollars(usage) <= rates.sync_dollars(usage)
        for rates in found
        for usage in (MILLIONS, Usage(9, 9, 9))
    )


def test_costs_add_up_and_a_synchronous_request_saves_nothing():
    rates = prices.find_rates("gpt-4o-mini", OPENAI, NOVEMBER)
    total = rates.cost(MILLIONS, is_sync=False) + rates.cost(MILLIONS, is_sync=True)
    assert total == Cost(Decimal("1.35"), Decimal("1.8"))
    assert total.saved == Decimal("0.45")
    assert Usage(1, 2, 3) + Usage(10, 20, 30) == Usage(11, 22, 33)


def flat_prices(price: int) -> TokenPrices:
    return TokenPrices(*[Decimal(price)] * 4)


def test_a_sum_of_empty_costs_is_zero():
    assert Cost() + Cost() == Cost(Decimal(0), Decimal(0))


def test_long_prompts_are_billed_apart_from_the_rest():
    low, high = (Rates(flat_prices(sync), flat_prices(batch)) for sync, batch in ((1, 1), (10, 5)))
    rates = Rates(low.sync, low.batch, above=((200_000, high),))
    usage = Usage(500_000, 0) + Usage.of_request(150_000, 0) + Usage.of_request(300_000, 50_000)
    assert rates.sync_dollars(usage) == Decimal("0.65") + Decimal("3.5")
    assert rates.batch_dollars(usage) == Decimal("0.65") + Decimal("1.75")
    assert low.sync_dollars(usage) == Decimal(1)


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "$0.00"), ("0.00001", "<$0.0001"), ("0.0123", "$0.0123"), ("0.5", "$0.5000"), ("1234.567", "$1,234.57")],
)
def test_small_amounts_have_more_digits_and_are_never_zero(amount, text):
    assert format_dollars(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [(OPENAI, "openai"), (AZURE, "azure"), ("https://eu.api.openai.com/v1/", None), ("not an address", None)],
)
def test_the_provider_follows_from_the_host(base_url, provider):
    assert find_provider(base_url) == provider


@pytest.mark.parametrize(
    ("model", "base_url", "is_listed"),
    [
        ("o1-preview", OPENAI, True),
        ("o4-mini", OPENAI, True),
        ("gpt-4o", OPENAI, False),
        ("gpt-4", OPENAI, False),
        ("no-such-model", OPENAI, False),
        ("", OPENAI, False),
        ("o1-preview", "https://gateway.example/v1/", False),
    ],
)
def test_the_list_says_of_some_models_that_they_reason(model, base_url, is_listed):
    """The description of GPT-4 praises its reasoning and does not call it a reasoning model."""
    assert prices.is_listed_as_reasoning(model, base_url) is is_listed


def test_each_tier_has_its_listed_price():
    """OpenAI bills flex like a batch, and `priority` above the synchronous price."""
    rates = prices.find_rates("gpt-5-mini", OPENAI, NOVEMBER)
    dollars = {tier: rates.cost(MILLIONS, is_sync=True, tier=tier).spent for tier in ("flex", "default", "priority")}
    assert dollars["flex"] == rates.batch_dollars(MILLIONS)
    assert dollars["flex"] < dollars["default"] < dollars["priority"]
    assert dollars["default"] == rates.sync_dollars(MILLIONS)
    assert rates.cost(MILLIONS, is_sync=True, tier="flex").full_price == dollars["default"]


def test_an_unlisted_tier_costs_the_price_of_a_batch_or_the_synchronous_price():
    rates = Rates(flat_prices(2), flat_prices(1))
    usage = Usage(1_000_000, 0)
    assert [rates.cost(usage, is_sync=False, tier=tier).spent for tier in ("flex", "priority", None)] == [1, 2, 1]


def test_the_tier_of_a_long_prompt_has_the_price_of_its_length():
    above = Rates(flat_prices(20), flat_prices(10), tiers=(("flex", flat_prices(7)),))
    rates = Rates(flat_prices(2), flat_prices(1), above=((200_000, above),), tiers=(("flex", flat_prices(1)),))
    usage = Usage.of_request(1_000_000, 0) + Usage(1_000_000, 0)
    assert rates.cost(usage, is_sync=True, tier="flex").spent == 8


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8000/v1",
        "http://[::1]:8000/v1",
        "http://[FE80::1.2.3.4]/v1",
        "http://localhost/v1",
        "http://vllm",
    ],
)
def test_an_address_or_a_local_name_is_no_listed_host_and_loads_no_list(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "_listed_providers", pytest.fail)
    assert prices.find_price_list(base_url) is None
