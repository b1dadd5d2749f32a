"""Prices that hold at one server: the user's own, and the list prices for all other models.

The user's prices come from the field `prices` or from `$DISTILABEL_OPENAI_BATCH_PRICES`: a name of a provider in the
price list, a JSON file, or a dictionary with the prices of each model:

    {"gpt-6-luna": {"input": 0.4, "cached": 0.04, "output": 3.2, "sync": {"input": 0.8, "output": 6.4}}}

Each number is the price of a million tokens in a batch, in dollars. `cached` and `cache_write` default to `input`, and
the prices of the synchronous endpoint under `sync` to twice the prices in a batch. The model `*` stands for all models
that have no prices of their own.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Rates, TokenPrices
from distilabel_openai_batch.text import did_you_mean

VARIABLE = "DISTILABEL_OPENAI_BATCH_PRICES"
"""Environment variable for runs and commands without `prices`: a provider's name, the path of a file, or JSON."""

ANY_MODEL = "*"
"""Name of a model that stands for each model without prices of its own."""

# A synchronous request costs twice the price of a batch at each provider whose prices are listed.
_SYNC_FACTOR = Decimal(2)

_KINDS = ("input", "output", "cached", "cache_write")


@dataclass(frozen=True, slots=True)
class OwnPrices:
    """Prices that the user states.

    Attributes:
        text: the prices as a text, which `read_own_prices` reads; `None` if the user states none.
        provider: the provider whose list prices the server bills; `None` for the provider of the server's host.
        models: the prices of models by name.
    """

    text: str | None = None
    provider: str | None = None
    models: Mapping[str, Rates] = field(default_factory=dict)


NO_OWN_PRICES = OwnPrices()
"""Prices of a user who states none."""


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices at one server.

    Attributes:
        base_url: the server's address.
        own: the user's prices, which come before list prices.
    """

    base_url: str
    own: OwnPrices = NO_OWN_PRICES

    @property
    def source(self) -> str:
        """Return the kind of the prices, for a text."""
        return "your own prices" if self.own.models else "list prices"

    def find_rates(self, at: float, *models: str) -> Rates | None:
        """Return the prices of the first of some models that has any; `None` if none has.

        Args:
            at: the day of the list prices, in seconds since the epoch.
            models: names of one model: the name in the answer, and the name in the request.
        """
        for model in (*models, ANY_MODEL):
            if rates := self.own.models.get(model):
                return rates
        found = (prices.find_rates(model, self.base_url, at, self.own.provider) for model in models)
        return next((rates for rates in found if rates), None)

    def explain_unknown(self, model: str) -> str:
        """Return the reason why a model has no price, as sentences, with the remedy."""
        return prices.explain_unknown_price(model, self.base_url, self.own.provider)


def default_own_prices() -> OwnPrices:
    """Return the prices that the environment states.

    Raises:
        InvalidSettingError: the variable names no provider and no file with prices.
    """
    return load_own_prices(os.getenv(VARIABLE) or None, f"${VARIABLE}")


def load_own_prices(value: str | Mapping[str, Any] | None, name: str = "prices") -> OwnPrices:
    """Return the prices that a setting states.

    Args:
        value: prices by model, as a dictionary or as JSON; the name of a provider; or the path of a JSON file with
            prices by model.
        name: the setting's name, for errors.

    Raises:
        InvalidSettingError: the value states no prices.
    """
    if not value:
        return NO_OWN_PRICES
    if isinstance(value, str):
        is_json = value.lstrip().startswith("{")
        if not is_json and not value.endswith(".json"):
            return _read_provider(value, name)
        try:
            value = orjson.loads(value if is_json else Path(value).expanduser().read_bytes())
        except (OSError, ValueError) as error:
            source = "The text" if is_json else f"The file {value}"
            raise InvalidSettingError(f"{source} in `{name}` cannot be read as JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise InvalidSettingError(f"`{name}` holds no prices by model, but a {type(value).__name__}.")
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return OwnPrices(text, None, {str(model): _read_rates(model, entry, name) for model, entry in value.items()})


def read_own_prices(text: str | None) -> OwnPrices:
    """Return the prices that a job of the ledger records; those of the environment if the job records none."""
    return default_own_prices() if text is None else _read_text(text)


@functools.lru_cache(maxsize=64)
def _read_text(text: str) -> OwnPrices:
    stored = orjson.loads(text)
    return OwnPrices(text, stored) if isinstance(stored, str) else load_own_prices(stored)


def _read_provider(provider: str, name: str) -> OwnPrices:
    known = prices.provider_names()
    if known and provider not in known:
        raise InvalidSettingError(
            f"`{name}` is neither a provider of the price list nor a file that ends in .json:"
            f" {provider!r}{did_you_mean(provider, known)}"
        )
    return OwnPrices(orjson.dumps(provider).decode(), provider)


def _read_rates(model: object, entry: object, name: str) -> Rates:
    batch = _read_prices(model, entry, name)
    sync = entry.get("sync") if isinstance(entry, Mapping) else None
    return Rates(batch.scaled(_SYNC_FACTOR) if sync is None else _read_prices(model, sync, name), batch)


def _read_prices(model: object, entry: object, name: str) -> TokenPrices:
    if not isinstance(entry, Mapping):
        raise InvalidSettingError(
            f'`{name}` needs the prices of {model} as {{"input": dollars, "output": dollars}} for a million tokens.'
        )
    for key in entry:
        if key not in (*_KINDS, "sync"):
            raise InvalidSettingError(
                f"`{name}` has an unknown price {key!r} of {model}{did_you_mean(str(key), _KINDS)}"
            )
    tokens_in, tokens_out = _read_price(model, entry, "input", name), _read_price(model, entry, "output", name, "0")
    cached, written = (_read_price(model, entry, kind, name, str(tokens_in)) for kind in ("cached", "cache_write"))
    return TokenPrices(tokens_in, tokens_out, cached, written)


def _read_price(model: object, entry: Mapping[str, Any], kind: str, name: str, default: str | None = None) -> Decimal:
    value = entry.get(kind, default)
    price = Decimal(str(value)) if isinstance(value, int | float | str) and _is_number(value) else None
    if price is None:
        raise InvalidSettingError(
            f"`{name}` needs the price `{kind}` of {model} as dollars for a million tokens, not {value!r}."
        )
    return price


def _is_number(value: float | str) -> bool:
    try:
        return not isinstance(value, bool) and 0 <= float(value) < float("inf")
    except ValueError:
        return False
