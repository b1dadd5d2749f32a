"""What tokens cost, at once and in a batch, where that is known.

The list prices are those that the installed release of `genai-prices` (extra `prices`) was shipped with. It is never
asked to fetch newer ones: nothing here uses the network. What it does not list is unknown, and nothing is guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage

HOW_TO_INSTALL = "pip install 'distilabel-openai-batch[prices]'"
"""What installs the price list."""

# Whose prices a server bills, by the name of its host. Gateways and servers of one's own bill their own, and OpenAI's
# regional hosts (`eu.api.openai.com`) bill some models higher than the list says.
_PROVIDERS = (
    (re.compile(r"api\.openai\.com"), "openai"),
    (re.compile(r".+\.(openai|cognitiveservices|services\.ai)\.azure\.com"), "azure"),
)

# What a batch costs of the list price where the list has no price for batches: OpenAI and Azure publish half.
# https://platform.openai.com/docs/guides/batch#overview
# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_BATCH_SHARE = Decimal("0.5")

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """What something costs, in dollars.

    Attributes:
        spent: what is billed.
        at_once: what the synchronous endpoint would bill for all of it.
    """

    spent: Decimal = Decimal(0)
    at_once: Decimal = Decimal(0)

    @property
    def saved(self) -> Decimal:
        """How much less it is than at once."""
        return self.at_once - self.spent

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.spent + other.spent, self.at_once + other.at_once)


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's prices, in dollars for a million tokens.

    Attributes:
        tokens_in, tokens_out, tokens_cached: at the synchronous endpoint.
        batch_in, batch_out, batch_cached: in a batch.
        above: the prices of requests with longer prompts, each by the tokens that these have more than; ascending.
    """

    tokens_in: Decimal
    tokens_out: Decimal
    tokens_cached: Decimal
    batch_in: Decimal
    batch_out: Decimal
    batch_cached: Decimal
    above: tuple[tuple[int, Rates], ...] = ()

    def synchronous(self, usage: Usage) -> Decimal:
        """Dollars at the synchronous endpoint."""
        return sum(
            (_dollars(part, it.tokens_in, it.tokens_out, it.tokens_cached) for it, part in self._parts(usage)),
            Decimal(0),
        )

    def batch(self, usage: Usage) -> Decimal:
        """Dollars in a batch."""
        return sum(
            (_dollars(part, it.batch_in, it.batch_out, it.batch_cached) for it, part in self._parts(usage)),
            Decimal(0),
        )

    def _parts(self, usage: Usage) -> Iterator[tuple[Rates, Usage]]:
        """Each part of the tokens, with the prices that it is billed at."""
        rest = usage
        for request in usage.long_prompts if self.above else ():
            rest = rest + Usage(-request.tokens_in, -request.tokens_out, -request.tokens_cached)
            yield [self, *(rates for start, rates in self.above if request.tokens_in > start)][-1], request
        yield self, rest

    def cost(self, usage: Usage, asked_now: bool) -> Cost:
        """What tokens cost.

        Args:
            usage: the tokens.
            asked_now: whether they were asked at the synchronous endpoint, which bills in full.
        """
        at_once = self.synchronous(usage)
        return Cost(at_once if asked_now else self.batch(usage), at_once)


def _dollars(usage: Usage, tokens_in: Decimal, tokens_out: Decimal, tokens_cached: Decimal) -> Decimal:
    cached = min(usage.tokens_cached, usage.tokens_in)
    return ((usage.tokens_in - cached) * tokens_in + cached * tokens_cached + usage.tokens_out * tokens_out) / _MILLION


def dollars(amount: Decimal) -> str:
    """Money as people write it; of less than a dollar more digits."""
    if 0 < amount < Decimal("0.0001"):
        return "<$0.0001"
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"


def provider(base_url: str) -> str | None:
    """Whose prices a server bills: `"openai"`, `"azure"`, or `None` where nobody publishes them."""
    host = urlsplit(base_url).hostname or ""
    return next((name for pattern, name in _PROVIDERS if pattern.fullmatch(host)), None)


def rates(model: str, base_url: str, at: float) -> Rates | None:
    """A model's prices.

    Where the list has prices for batches they are taken from there, cached tokens included: for some models OpenAI
    lists a lower price for these, for others none, and then they cost what they cost at once. Where it has none, input
    and output cost half of their list price, which is what OpenAI and Azure publish, and cached tokens their list
    price, if that is less.

    Args:
        model: its name, as it was asked for or as the answer has it.
        base_url: the server's address.
        at: when it is asked, in seconds since the epoch: prices change.

    Returns:
        `None` where they are not known: the model is not listed, the server is not OpenAI's or Azure's, or there is no
        list.
    """
    name = provider(base_url)
    return _rates(model, name, datetime.fromtimestamp(at, timezone.utc).date()) if name and model else None


def is_installed() -> bool:
    """Whether there is a price list."""
    return _price_list() is not None


def why_unknown(model: str, base_url: str) -> str:
    """Why a model has no price, in a sentence that says what to do where something can be done."""
    if provider(base_url) is None:
        return f"What {base_url} bills is not known: prices are those of OpenAI and Azure alone."
    if not is_installed():
        return f"No price is known, since there is no price list. Install it: {HOW_TO_INSTALL}"
    return f"The price of {model} is not known: the price list has no such model. A newer genai-prices may have it."


@functools.cache
def _price_list() -> Any:
    # Imported where it is needed: it takes a third of a second.
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices


@functools.cache
def _rates(model: str, provider: str, day: date) -> Rates | None:
    price_list = _price_list()
    if price_list is None:
        return None
    moment = datetime.combine(day, time(12), timezone.utc)
    try:
        listed = price_list.calc_price(price_list.Usage(), model, provider_id=provider, genai_request_timestamp=moment)
    except (LookupError, ValueError):
        return None
    at_once, batch = listed.model_price, _batch_prices(listed.model, moment)
    # Shorter prompts are not told apart: where they should be, all of them have the price of the longest.
    rates = _rates_at(LONG_PROMPT, at_once, batch)
    if rates is None:
        return None
    starts = sorted(start for start in _starts(at_once) | _starts(batch) if start >= LONG_PROMPT)
    above = [(start, it) for start in starts if (it := _rates_at(start + 1, at_once, batch))]
    return replace(rates, above=tuple(above))


_KINDS = ("input_mtok", "output_mtok", "cache_read_mtok")


def _rates_at(prompt: int, at_once: Any, batch: Any) -> Rates | None:
    """The prices of a request whose prompt has so many tokens."""
    tokens_in, tokens_out, tokens_cached = (_price(getattr(at_once, kind), prompt) for kind in _KINDS)
    if tokens_in is None:
        return None
    # A model for embeddings has no output.
    tokens_out, tokens_cached = _or(tokens_out, Decimal(0)), _or(tokens_cached, tokens_in)
    if batch is None:
        half = tokens_in * _BATCH_SHARE
        return Rates(tokens_in, tokens_out, tokens_cached, half, tokens_out * _BATCH_SHARE, min(tokens_cached, half))
    # What it does not list has the price that it has at once.
    batch_in, batch_out, batch_cached = (_price(getattr(batch, kind), prompt) for kind in _KINDS)
    batch_in = _or(batch_in, tokens_in)
    return Rates(
        tokens_in,
        tokens_out,
        tokens_cached,
        batch_in,
        _or(batch_out, tokens_out),
        _or(batch_cached, min(tokens_cached, batch_in)),
    )


def _starts(listed: Any) -> set[int]:
    """The lengths of prompts, in tokens, above which prices are others."""
    return {tier.start for kind in _KINDS for tier in getattr(getattr(listed, kind, None), "tiers", ())}


def _batch_prices(model: Any, moment: datetime) -> Any:
    """What the list says of batches: releases before 0.1.12 say nothing, and others nothing of early days."""
    for variant in getattr(model, "price_variants", None) or ():
        if variant.when == {"processing": "batch"} and (
            variant.constraint is None or variant.constraint.active(moment)
        ):
            return variant.prices
    return None


def _price(listed: Any, prompt: int) -> Decimal | None:
    """What the list says for a prompt of so many tokens."""
    price: Decimal | None = getattr(listed, "base", listed)
    for tier in getattr(listed, "tiers", ()):
        if prompt > tier.start:
            price = tier.price
    return price


def _or(price: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if price is None else price
