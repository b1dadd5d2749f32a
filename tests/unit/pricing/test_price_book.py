"""Tests of `pricing.price_book`."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.price_book import (
    NO_OWN_PRICES,
    VARIABLE,
    PriceBook,
    load_own_prices,
    read_own_prices,
)

GATEWAY = "https://gateway.example/v1/"
NOVEMBER = 1_793_500_000.0
USAGE = Usage(4_000_000, 1_000_000, 1_000_000, 1_000_000)
OWN = {
    "mine": {"input": 1, "cached": 0.5, "cache_write": "1.5", "output": 4},
    "plain": {"input": 1, "output": 4, "sync": {"input": 3, "output": 5}},
    "vectors": {"input": 1},
}


def test_the_user_s_prices_are_those_of_a_batch():
    """Cached and written tokens default to other tokens in, and synchronous prices to twice the price of a batch."""
    book = PriceBook(GATEWAY, load_own_prices(OWN))
    mine, plain, vectors = (book.find_rates(NOVEMBER, model) for model in OWN)
    assert (mine.batch_dollars(USAGE), mine.sync_dollars(USAGE)) == (Decimal(8), Decimal(16))
    assert (plain.batch_dollars(USAGE), plain.sync_dollars(USAGE)) == (Decimal(8), Decimal(17))
    assert (vectors.batch_dollars(USAGE), vectors.sync_dollars(USAGE)) == (Decimal(4), Decimal(8))


def test_the_user_s_prices_come_before_list_prices():
    """The name in the answer comes first, then the requested name, then `*`, then the price list."""
    pytest.importorskip("genai_prices")
    openai = "https://api.openai.com/v1/"
    own = load_own_prices({"gpt-4o": {"input": 7, "output": 7}})
    assert PriceBook(openai, own).find_rates(NOVEMBER, "gpt-4o-2024-11-20", "gpt-4o").batch.tokens_in == 7
    listed = prices.find_rates("gpt-4o-mini", openai, NOVEMBER)
    assert PriceBook(openai, own).find_rates(NOVEMBER, "gpt-4o-mini") == listed
    every = load_own_prices({"*": {"input": 2, "output": 2}, "gpt-4o": {"input": 7, "output": 7}})
    assert PriceBook(openai, every).find_rates(NOVEMBER, "gpt-4o-mini").batch.tokens_in == 2


def test_a_server_may_bill_the_prices_of_a_listed_provider():
    pytest.importorskip("genai_prices")
    book = PriceBook(GATEWAY, load_own_prices("openai"))
    assert book.find_rates(NOVEMBER, "gpt-6-luna") == prices.find_rates(
        "gpt-6-luna", "https://api.openai.com/v1/", NOVEMBER
    )
    assert book.find_rates(NOVEMBER, "mine") is None
    assert "The price of mine is not known" in book.explain_unknown("mine")
    assert f"The prices of {GATEWAY} are not known" in PriceBook(GATEWAY).explain_unknown("mine")


@pytest.mark.parametrize("value", [OWN, "openai", None])
def test_prices_are_read_from_the_text_that_a_job_records(value):
    own = load_own_prices(value)
    assert read_own_prices(own.text) == own


def test_the_environment_states_a_file_or_a_provider(tmp_path, monkeypatch):
    assert read_own_prices(None) == NO_OWN_PRICES
    path = tmp_path / "prices.json"
    path.write_bytes(orjson.dumps(OWN))
    monkeypatch.setenv(VARIABLE, str(path))
    assert read_own_prices(None) == load_own_prices(str(path)) == load_own_prices(OWN)
    monkeypatch.setenv(VARIABLE, "azure")
    assert read_own_prices(None).provider == "azure"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("opnai", "Did you mean `openai`"),
        ("none.json", "cannot be read as JSON"),
        ({"mine": 3}, "needs the prices of mine as"),
        ({"mine": {"output": 3}}, "needs the price `input` of mine"),
        ({"mine": {"input": -1}}, "not -1"),
        ({"mine": {"input": True}}, "not True"),
        ({"mine": {"input": "cheap"}}, "not 'cheap'"),
        ({"mine": {"input": float("nan")}}, "not nan"),
        ({"mine": {"inputs": 1}}, "Did you mean `input`"),
        ({"mine": {"input": 1, "sync": 2}}, "needs the prices of mine as"),
    ],
)
def test_prices_that_cannot_be_read_are_refused(value, message, tmp_path, monkeypatch):
    pytest.importorskip("genai_prices")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettingError, match=message):
        load_own_prices(value)


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_file_without_prices_by_model_is_refused(content, tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(InvalidSettingError):
        load_own_prices(str(path))
