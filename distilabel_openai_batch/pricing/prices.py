"""List prices of tokens, synchronous and in a batch.

The prices are those of the installed release of `genai-prices` (extra `prices`): no function uses the network. A model
that the list lacks has no price, and no price is guessed.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from distilabel_openai_batch.api.service_tiers import DEFAULT_TIER, FLEX
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage

HOW_TO_INSTALL = "pip install 'distilabel-openai-batch[prices]'"
"""Command that installs the price list."""

# Releases from 0.2 on need Python 3.11: https://pypi.org/project/genai-prices/
_NEWER_LIST = "A newer genai-prices" if sys.version_info >= (3, 11) else "genai-prices 0.2, which needs Python 3.11,"

# Host names of servers whose batches cost half, and the provider in the price list. Gateways and self-hosted servers
# set their own prices, and OpenAI's regional hosts (`eu.api.openai.com`) bill some models above the list price.
_PROVIDERS = (
    (re.compile(r"api\.openai\.com"), "openai"),
    (re.compile(r".+\.(openai|cognitiveservices|services\.ai)\.azure\.com"), "azure"),
)

# Share of the list price that a batch costs if the list has no price for batches: OpenAI and Azure publish half. Other
# providers' batches have a price only where the list has one.
# https://platform.openai.com/docs/guides/batch#overview
# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_BATCH_SHARE = Decimal("0.5")

# Addresses in place of host names: `127.0.0.1`, `::1`.
_IP_ADDRESS = re.compile(r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*", re.IGNORECASE)

_HALF_PRICE_PROVIDERS = frozenset({"openai", "azure"})

_MILLION = Decimal(1_000_000)

# Words by which the description of a model in the price list says that the model is free, as models for moderation are.
_FREE = re.compile(r"\bfree of charge\b", re.IGNORECASE)

# Words by which the description of a model in the price list says that the model reasons before each answer.
_REASONING = re.compile(r"\breasoning model\b|\breasoning_effort\b|\bthink before they answer\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of requests, in dollars.

    Attributes:
        spent: the billed dollars.
        full_price: the dollars that the synchronous endpoint would bill for the same requests.
        is_lower_bound: whether the price of a part is unknown, so that the true dollars are more.
    """

    spent: Decimal = Decimal(0)
    full_price: Decimal = Decimal(0)
    is_lower_bound: bool = False

    @property
    def saved(self) -> Decimal:
        """Dollars below the full price."""
        return self.full_price - self.spent

    def __add__(self, other: Cost) -> Cost:
        is_lower_bound = self.is_lower_bound or other.is_lower_bound
        return Cost(self.spent + other.spent, self.full_price + other.full_price, is_lower_bound)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Prices of the kinds of tokens, in dollars for a million tokens.

    Attributes:
        tokens_in, tokens_out: prices of tokens of prompts and of answers.
        tokens_cached: price of tokens of prompts that the server had in its cache.
        tokens_written: price of tokens of prompts that the server wrote to its cache.
    """

    tokens_in: Decimal
    tokens_out: Decimal
    tokens_cached: Decimal
    tokens_written: Decimal

    def dollars(self, usage: Usage) -> Decimal:
        """Return the dollars that tokens cost, whatever the lengths of their prompts."""
        cached = min(usage.tokens_cached, usage.tokens_in)
        written = min(usage.tokens_written, usage.tokens_in - cached)
        return (
            (usage.tokens_in - cached - written) * self.tokens_in
            + cached * self.tokens_cached
            + written * self.tokens_written
            + usage.tokens_out * self.tokens_out
        ) / _MILLION

    def scaled(self, share: Decimal) -> TokenPrices:
        """Return the prices times a number."""
        return TokenPrices(
            self.tokens_in * share, self.tokens_out * share, self.tokens_cached * share, self.tokens_written * share
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a model.

    Attributes:
        sync: prices at the synchronous endpoint.
        batch: prices in a batch.
        above: prices of long prompts: pairs of a number of prompt tokens and the prices above that number, ascending.
        tiers: prices of synchronous service tiers: pairs of a name and the prices.
    """

    sync: TokenPrices
    batch: TokenPrices
    above: tuple[tuple[int, Rates], ...] = ()
    tiers: tuple[tuple[str, TokenPrices], ...] = ()

    @property
    def is_free(self) -> bool:
        """`True` if no request costs anything, whatever its tokens are."""
        return self == _FREE_RATES

    def sync_dollars(self, usage: Usage) -> Decimal:
        """Return the dollars that the synchronous endpoint bills for tokens."""
        return sum((rates.sync.dollars(part) for rates, part in self._split_by_prompt_length(usage)), Decimal(0))

    def batch_dollars(self, usage: Usage) -> Decimal:
        """Return the dollars that a batch bills for tokens."""
        return sum((rates.batch.dollars(part) for rates, part in self._split_by_prompt_length(usage)), Decimal(0))

    def tier_dollars(self, usage: Usage, tier: str) -> Decimal:
        """Return the dollars that a service tier bills for tokens; an unlisted tier has the synchronous price."""
        return sum(
            (rates._of_tier(tier).dollars(part) for rates, part in self._split_by_prompt_length(usage)), Decimal(0)
        )

    def _of_tier(self, tier: str) -> TokenPrices:
        # Tokens of flex are priced like those of a batch: https://platform.openai.com/docs/guides/flex-processing
        return dict(self.tiers).get(tier) or (self.batch if tier == FLEX else self.sync)

    def _split_by_prompt_length(self, usage: Usage) -> Iterator[tuple[Rates, Usage]]:
        """Yield the parts of the tokens, each with the prices of its prompts' length."""
        rest = usage
        for request in usage.long_prompts if self.above else ():
            rest = rest.beyond(request)
            yield [self, *(rates for start, rates in self.above if request.tokens_in > start)][-1], request
        yield self, rest

    def cost(self, usage: Usage, is_sync: bool, tier: str | None = None) -> Cost:
        """Return the cost of tokens.

        Args:
            usage: the tokens.
            is_sync: whether the synchronous endpoint bills them, at full price.
            tier: the service tier that answered, which decides the price; `None` if no answer names a tier.
        """
        full_price = self.sync_dollars(usage)
        if tier:
            return Cost(self.tier_dollars(usage, tier), full_price)
        return Cost(full_price if is_sync else self.batch_dollars(usage), full_price)


_NOTHING = TokenPrices(Decimal(0), Decimal(0), Decimal(0), Decimal(0))
_FREE_RATES = Rates(_NOTHING, _NOTHING)


def format_dollars(amount: Decimal) -> str:
    """Return dollars as a text: two digits after the point from $1 on, four below (`$1,234.57`, `$0.0123`)."""
    if 0 < amount < Decimal("0.0001"):
        return "<$0.0001"
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"


class CostTexts(NamedTuple):
    """Dollars of a cost as texts: `?` if unknown, with `≥` before a sum of which a part has no price."""

    spent: str
    saved: str
    full_price: str


def format_cost(cost: Cost | None) -> CostTexts:
    """Return the dollars of a cost as texts, for every place that shows a cost."""
    if cost is None:
        return CostTexts("?", "?", "?")
    sign = "≥ " if cost.is_lower_bound else ""
    # "≥ <$0.0001" would say nothing.
    smallest = Decimal("0.0001")
    amounts = (cost.spent, cost.saved, cost.full_price)
    return CostTexts(
        *("> $0" if sign and 0 < amount < smallest else f"{sign}{format_dollars(amount)}" for amount in amounts)
    )


def sum_known(costs: Iterable[Cost | None]) -> Cost | None:
    """Return the sum of the known costs, a lower bound if a cost is unknown; `None` if none is known.

    A billed job without any answer has a cost too.
    """
    parts = list(costs)
    known = [cost for cost in parts if cost is not None]
    return sum(known, Cost(is_lower_bound=len(known) < len(parts))) if known else None


def exact_dollars(cost: Cost | None) -> float | None:
    """Return the billed dollars; `None` for an unknown cost and for a lower bound."""
    return None if cost is None or cost.is_lower_bound else float(cost.spent)


def find_provider(base_url: str) -> str | None:
    """Return the provider whose host a server has, `"openai"` or `"azure"`; `None` for any other host."""
    host = urlsplit(base_url).hostname or ""
    return next((name for pattern, name in _PROVIDERS if pattern.fullmatch(host)), None)


def find_price_list(base_url: str) -> str | None:
    """Return the provider in the price list whose prices a server bills; `None` for an unlisted host."""
    return find_provider(base_url) or _find_listed_host(urlsplit(base_url).hostname or "")


def provider_names() -> frozenset[str]:
    """Return the names of the providers in the price list; none without a price list."""
    return frozenset(provider.id for provider in _listed_providers())


def find_rates(model: str, base_url: str, at: float, provider: str | None = None) -> Rates | None:
    """Return the list prices of a model on a day.

    If the list has prices for batches, these count, including the price of cached tokens: a lower price for some
    models, and the synchronous price for models without one. If the list has none, tokens in and out cost half of their
    list price at OpenAI and Azure, as both publish, and cached tokens the lower of their list price and that half.

    Args:
        model: the model's name in a request or an answer.
        base_url: the server's address.
        at: a time on the day, in seconds since the epoch.
        provider: the provider whose prices the server bills; `None` for the provider of the server's host.

    Returns:
        `None` for an unlisted model, for an unlisted server, for another provider's model without a price for batches,
        and without a price list.
    """
    name = provider or find_price_list(base_url)
    return _find_rates(model, name, datetime.fromtimestamp(at, timezone.utc).date()) if name and model else None


def is_listed_as_reasoning(model: str, base_url: str) -> bool:
    """Return whether the price list says that a model reasons: by a price of reasoning, or by its description.

    Args:
        model: the model's name in a request.
        base_url: the server's address.

    Returns:
        `False` for an unlisted model, for a server without published prices, and without a price list.
    """
    provider = find_provider(base_url)
    price_list = _price_list() if provider and model else None
    if price_list is None:
        return False
    try:
        listed = price_list.calc_price(price_list.Usage(), model, provider_id=provider)
    except (LookupError, ValueError):
        return False
    has_price = getattr(listed.model_price, "output_reasoning_mtok", None) is not None
    return has_price or bool(_REASONING.search(listed.model.description or ""))


def lists_flex(model: str, base_url: str) -> bool | None:
    """Return whether the price list has a price of the flex tier for a model.

    Args:
        model: the model's name in a request.
        base_url: the server's address.

    Returns:
        `None` if the list has no price of any tier or batch for the model, for a server without published prices, and
        without a price list.
    """
    provider = find_provider(base_url)
    return _lists_flex(model, provider) if provider and model else None


def is_installed() -> bool:
    """Return whether the price list is installed."""
    return _price_list() is not None


def explain_unknown_price(model: str, base_url: str, provider: str | None = None) -> str:
    """Return the reason why a model has no price, as sentences, with the remedy if there is one.

    Args:
        model: the model's name.
        base_url: the server's address.
        provider: as for `find_rates`.
    """
    if provider is None and find_price_list(base_url) is None and (is_installed() or find_provider(base_url) is None):
        return f"The prices of {base_url} are not known: the price list lacks this server. State them in `prices`."
    if not is_installed():
        return f"No price is known, because the price list is not installed. Install it: {HOW_TO_INSTALL}"
    return (
        f"The price of {model} is not known: the price list lacks this model, or its price in a batch."
        f" {_NEWER_LIST} may list the model; `prices` takes your own price."
    )


@functools.cache
def _price_list() -> Any:
    # Importing genai_prices takes a third of a second → import when a price is needed.
    try:
        import genai_prices
    except ImportError:
        return None
    return genai_prices


@functools.cache
def _lists_flex(model: str, provider: str) -> bool | None:
    price_list = _price_list()
    if price_list is None:
        return None
    try:
        listed = price_list.calc_price(price_list.Usage(), model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    variants = getattr(listed.model, "price_variants", None)
    return any(variant.when == {"service_tier": "flex"} for variant in variants) if variants else None


@functools.cache
def _find_rates(model: str, provider: str, day: date) -> Rates | None:
    price_list = _price_list()
    if price_list is None:
        return None
    moment = datetime.combine(day, time(12), timezone.utc)
    try:
        listed = price_list.calc_price(price_list.Usage(), model, provider_id=provider, genai_request_timestamp=moment)
    except (LookupError, ValueError):
        return None
    variants = _price_variants(listed.model, moment)
    sync_prices, batch_prices = listed.model_price, variants.pop("batch", None)
    if batch_prices is None and provider not in _HALF_PRICE_PROVIDERS:
        return None
    # The ledger keeps single prompt lengths only above `LONG_PROMPT` → shorter prompts have the price at that length.
    rates = _rates_at(LONG_PROMPT, sync_prices, batch_prices, variants)
    if rates is None:
        return _FREE_RATES if _FREE.search(listed.model.description or "") else None
    starts = set().union(*map(_tier_starts, (sync_prices, batch_prices, *variants.values())))
    above = sorted(start for start in starts if start >= LONG_PROMPT)
    tiers = [(start, tier) for start in above if (tier := _rates_at(start + 1, sync_prices, batch_prices, variants))]
    return replace(rates, above=tuple(tiers))


_TOKEN_KINDS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")


def _rates_at(prompt_tokens: int, sync_prices: Any, batch_prices: Any, variants: Mapping[str, Any]) -> Rates | None:
    """Return the prices of a request with a prompt of `prompt_tokens` tokens.

    Args:
        prompt_tokens: the tokens of the prompt.
        sync_prices: the listed prices.
        batch_prices: the listed prices in a batch; `None` without such prices.
        variants: the listed prices of service tiers by the tier's name.
    """
    listed_in, listed_out, listed_cached, listed_written = _prices_of_kinds(sync_prices, prompt_tokens)
    if listed_in is None:
        return None
    sync = TokenPrices(
        listed_in,
        # A model for embeddings has no price of tokens out.
        _default(listed_out, Decimal(0)),
        _default(listed_cached, listed_in),
        _default(listed_written, listed_in),
    )
    tiers = tuple((tier, _complete(prices, sync, prompt_tokens)) for tier, prices in sorted(variants.items()))
    if batch_prices is None:
        half = sync.scaled(_BATCH_SHARE)
        return Rates(sync, replace(half, tokens_cached=min(sync.tokens_cached, half.tokens_in)), tiers=tiers)
    return Rates(sync, _complete(batch_prices, sync, prompt_tokens), tiers=tiers)


def _complete(listed: Any, sync: TokenPrices, prompt_tokens: int) -> TokenPrices:
    """Return the prices of a batch or of a tier; a kind of tokens without such a price has its synchronous price.

    Args:
        listed: the listed prices.
        sync: the synchronous prices.
        prompt_tokens: the tokens of the prompt.
    """
    tokens_in, tokens_out, tokens_cached, tokens_written = _prices_of_kinds(listed, prompt_tokens)
    tokens_in = _default(tokens_in, sync.tokens_in)
    # OpenAI: a written token costs 1.25 times the price of another token, in batches too.
    # https://platform.openai.com/docs/guides/prompt-caching
    markup = sync.tokens_written / sync.tokens_in if sync.tokens_in else Decimal(1)
    return TokenPrices(
        tokens_in,
        _default(tokens_out, sync.tokens_out),
        _default(tokens_cached, min(sync.tokens_cached, tokens_in)),
        _default(tokens_written, tokens_in * markup),
    )


def _prices_of_kinds(listed: Any, prompt_tokens: int) -> list[Decimal | None]:
    """Return the listed price of each kind in `_TOKEN_KINDS`; the answers of a model of images are images."""
    listed_prices = {kind: getattr(listed, kind, None) for kind in _TOKEN_KINDS}
    if (image_price := getattr(listed, "output_image_mtok", None)) is not None:
        listed_prices["output_mtok"] = image_price
    return [_price(price, prompt_tokens) for price in listed_prices.values()]


@functools.cache
def _find_listed_host(host: str) -> str | None:
    """Return the provider whose API has a host, by the patterns of the price list."""
    # The list takes a twentieth of a second to load, and has no names within a local network, and no addresses.
    if "." not in host or _IP_ADDRESS.fullmatch(host):
        return None
    url = f"https://{host}/"
    for provider in _listed_providers():
        match = re.match(provider.api_pattern, url)
        # Hosts of OpenAI and Azure are in `_PROVIDERS`; the list's patterns contain gateways in front of Azure.
        if match and match.end() >= len(url) - 1 and not provider.id.startswith(tuple(_HALF_PRICE_PROVIDERS)):
            return str(provider.id)
    return None


@functools.cache
def _listed_providers() -> tuple[Any, ...]:
    if _price_list() is None:
        return ()
    from genai_prices.data_snapshot import get_snapshot

    return tuple(get_snapshot().providers)


def _tier_starts(listed: Any) -> set[int]:
    """Return the numbers of prompt tokens above which a price changes."""
    return {tier.start for kind in _TOKEN_KINDS for tier in getattr(getattr(listed, kind, None), "tiers", ())}


def _price_variants(model: Any, moment: datetime) -> dict[str, Any]:
    """Return the listed prices for batches, under `batch`, and of service tiers, under the tier's name.

    Releases before 0.1.12 list no such prices, and later ones none for early days.
    """
    variants: dict[str, Any] = {}
    for variant in getattr(model, "price_variants", None) or ():
        name = "batch" if variant.when == {"processing": "batch"} else variant.when.get("service_tier")
        if name and len(variant.when) == 1 and (variant.constraint is None or variant.constraint.active(moment)):
            variants.setdefault(name, variant.prices)
    variants.pop(DEFAULT_TIER, None)
    return variants


def _price(listed: Any, prompt_tokens: int) -> Decimal | None:
    """Return the listed price for a prompt of `prompt_tokens` tokens."""
    price: Decimal | None = getattr(listed, "base", listed)
    for tier in getattr(listed, "tiers", ()):
        if prompt_tokens > tier.start:
            price = tier.price
    return price


def _default(price: Decimal | None, default: Decimal) -> Decimal:
    return default if price is None else price
