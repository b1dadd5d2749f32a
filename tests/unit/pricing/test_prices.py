"""What tokens cost."""

from __future__ import annotations

import importlib
import socket
import sys
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Cost

pytest.importorskip("genai_prices")

OPENAI = "https://api.openai.com/v1/"
AZURE = "https://acme.openai.azure.com/openai/"

# A day of which the price list knows what batches cost, and one of which it does not.
NOVEMBER = datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()
LONG_AGO = datetime(2025, 6, 1, tzinfo=timezone.utc).timestamp()

MILLIONS = Usage(tokens_in=2_000_000, tokens_out=1_000_000)


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Each test sees the price list as it is installed."""
    prices._price_list.cache_clear()
    prices._rates.cache_clear()
    yield
    prices._price_list.cache_clear()
    prices._rates.cache_clear()


@pytest.mark.parametrize(
    ("model", "base_url", "usage", "synchronous", "batch"),
    [
        ("gpt-4o-mini", OPENAI, MILLIONS, "0.9", "0.45"),
        ("gpt-4o-mini-2024-07-18", OPENAI, MILLIONS, "0.9", "0.45"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", OPENAI, MILLIONS, "1.8", "0.9"),
        # Not in the list of prices for batches: half.
        ("text-embedding-3-small", OPENAI, Usage(1_000_000, 0), "0.02", "0.01"),
        ("gpt-4o-mini", AZURE, MILLIONS, "0.9", "0.45"),
        # In it, at the full price.
        ("gpt-3.5-turbo-1106", OPENAI, MILLIONS, "4", "4"),
        # Cached tokens: a lower price in a batch, or the same.
        ("gpt-5-mini", OPENAI, Usage(1_000_000, 0, 1_000_000), "0.025", "0.0125"),
        ("gpt-4.1", OPENAI, Usage(1_000_000, 0, 1_000_000), "0.5", "0.5"),
        ("gpt-4.1", AZURE, Usage(1_000_000, 0, 1_000_000), "0.5", "0.5"),
        # None is listed: they are as dear as any other.
        ("gpt-4-turbo", OPENAI, Usage(1_000_000, 0, 1_000_000), "10", "5"),
        # More were cached than there were.
        ("gpt-4o-mini", OPENAI, Usage(0, 0, 5), "0", "0"),
        # The price rises with the length of a prompt, for all tokens of its request, cached ones and the answer's too.
        ("gpt-5.4", OPENAI, Usage(1_000_000, 0), "2.5", "1.25"),
        ("gpt-5.4", OPENAI, Usage.of_request(272_000, 0), "0.68", "0.34"),
        ("gpt-5.4", OPENAI, Usage.of_request(272_001, 1_000_000), "23.860005", "11.9300025"),
        ("gpt-5.4", OPENAI, Usage.of_request(300_000, 0, 300_000), "0.15", "0.075"),
        ("gpt-5.4", OPENAI, Usage(700_000, 0) + Usage.of_request(300_000, 0), "3.25", "1.625"),
        ("gpt-4o-mini", OPENAI, Usage.of_request(1_000_000, 0), "0.15", "0.075"),
    ],
)
def test_list_prices(model, base_url, usage, synchronous, batch):
    """Of OpenAI's and Azure's models, by their names and those of their snapshots."""
    rates = prices.rates(model, base_url, NOVEMBER)
    assert rates.synchronous(usage) == Decimal(synchronous)
    assert rates.batch(usage) == Decimal(batch)


def test_a_job_of_long_ago_costs_what_it_cost_then():
    """A list price of its day, and half of it for a batch."""
    rates = prices.rates("gpt-4.1", OPENAI, LONG_AGO)
    assert (rates.tokens_in, rates.batch_in, rates.batch_out) == (2, 1, 4)
    before, after = prices.rates("o3", OPENAI, LONG_AGO), prices.rates("o3", OPENAI, NOVEMBER)
    assert (before.tokens_in, after.tokens_in) == (10, 2)


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
    ],
)
def test_what_is_not_listed_is_unknown(model, base_url):
    """No model is taken for another, and no server for OpenAI's."""
    assert prices.rates(model, base_url, NOVEMBER) is None
    why = prices.why_unknown(model, base_url)
    assert f"The price of {model} is not known" in why or f"What {base_url} bills is not known" in why


def test_without_the_price_list_everything_is_unknown(monkeypatch):
    """The extra is not installed: it is said how to."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert not prices.is_installed()
    assert prices.rates("gpt-4o-mini", OPENAI, NOVEMBER) is None
    assert "pip install 'distilabel-openai-batch[prices]'" in prices.why_unknown("gpt-4o-mini", OPENAI)


def test_the_network_is_not_used(monkeypatch):
    """Prices are those of the day when the list was installed."""

    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert prices.rates("gpt-4o-mini", OPENAI, NOVEMBER)


def test_every_listed_model_has_a_price_or_none():
    """Whatever is billed by something else than tokens is unknown, and no error; a batch is never dearer."""
    get_snapshot = importlib.import_module("genai_prices.data_snapshot").get_snapshot
    models = [
        (model.id, url)
        for provider in get_snapshot().providers
        for url in [{"openai": OPENAI, "azure": AZURE}.get(provider.id)]
        if url
        for model in provider.models
    ]
    found = [rates for model, url in models if (rates := prices.rates(model, url, NOVEMBER))]
    assert len(found) > 50
    assert all(
        rates.batch(usage) <= rates.synchronous(usage) for rates in found for usage in (MILLIONS, Usage(9, 9, 9))
    )


def test_costs_add_up():
    """What was asked at once saves nothing."""
    rates = prices.rates("gpt-4o-mini", OPENAI, NOVEMBER)
    total = rates.cost(MILLIONS, asked_now=False) + rates.cost(MILLIONS, asked_now=True)
    assert total == Cost(Decimal("1.35"), Decimal("1.8"))
    assert total.saved == Decimal("0.45")
    assert Usage(1, 2, 3) + Usage(10, 20, 30) == Usage(11, 22, 33)
