"""Lanes: the ways by which requests reach the server, and the choice between them.

- `batch`: jobs of the Batch API, at half price.
- `flex`: the synchronous endpoint at the price of a batch, more slowly than the default tier, if there is capacity.
- `auto`: `flex` for small rounds, `batch` for others.
- `sync`: the synchronous endpoint at full price, for servers without a Batch API.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from distilabel_openai_batch.api.outcomes import Answer, Outcome
from distilabel_openai_batch.api.service_tiers import DEFAULT_TIER, FLEX, TIER_PARAMETER, is_flex_name, serves_flex
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.refusals import RefusalStore
from distilabel_openai_batch.pricing.prices import lists_flex

Lane = Literal["batch", "flex", "auto", "sync"]
"""Value of the field `lane`."""


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """Settings of the choice.

    Attributes:
        lane: the lane.
        sync_below: number of requests. Rounds with fewer requests are synchronous.
        flex_below: number of requests. With `auto`, rounds with fewer requests go to flex.
        flex_fallback: whether a request for which flex has no capacity is sent at full price; `None`: only if the
            request would be sent at full price without flex.
        supports_flex: whether the model has the flex tier; `None` if the price list, the name and refusals decide.
        max_concurrency: synchronous requests in flight, at most.
    """

    lane: Lane = "batch"
    sync_below: float = 0
    flex_below: int = 2_000
    flex_fallback: bool | None = None
    supports_flex: bool | None = None
    max_concurrency: int = 100

    def may_cost_full_price(self, requests: int) -> bool:
        """Return whether a round of requests that are not late may be billed at full price.

        Args:
            requests: number of the requests.
        """
        return requests < self.sync_below or self.lane == "sync" or bool(self.flex_fallback and self.lane != "batch")


DEFAULT_LANES = LaneSettings()
"""Settings of a run whose requests all go into batches."""


@dataclass(frozen=True, slots=True)
class Route:
    """Way of the requests of one model.

    Attributes:
        is_synchronous: whether the requests go to the synchronous endpoint.
        tries_flex: whether they are sent with the flex tier first.
        falls_back: whether they may be sent at full price.
        by_lane: whether the field `lane` chose the way, and no deadline, small round or trial.
    """

    is_synchronous: bool = False
    tries_flex: bool = False
    falls_back: bool = False
    by_lane: bool = True

    @property
    def may_cost_full_price(self) -> bool:
        """Return whether the server may bill the full price."""
        return self.is_synchronous and (self.falls_back or not self.tries_flex)


BATCH_ROUTE = Route()


class FlexSupport:
    """Models of one server with the flex tier, as far as is known.

    Args:
        settings: the settings of the choice.
        base_url: the server's address, which decides the price list.
        refusals: the refusals of earlier runs; receives each new refusal.
        observer: receives each new refusal.
    """

    def __init__(self, settings: LaneSettings, base_url: str, refusals: RefusalStore, observer: Observer) -> None:
        self._setting = settings.supports_flex
        self._base_url = base_url
        self._refusals = refusals
        self._observer = observer
        self._models_without = {model for model, parameter in refusals.load() if parameter == TIER_PARAMETER}
        self._ignored: set[str] = set()

    def has_flex(self, endpoint: str, model: str) -> bool:
        """Return whether requests of a model can be sent with the flex tier.

        Args:
            endpoint: the server's path of the endpoint.
            model: name of the model.
        """
        if not serves_flex(endpoint) or model in self._models_without:
            return False
        if self._setting is not None:
            return self._setting
        listed = lists_flex(model, self._base_url)
        return is_flex_name(model) if listed is None else listed

    def note_refusal(self, model: str, reason: str) -> None:
        """Note that the server refuses the tier for a model; later runs know."""
        if model not in self._models_without:
            self._models_without.add(model)
            self._observer.on_flex_refused(model, reason)
            self._refusals.record(model, TIER_PARAMETER)

    def note_answer(self, model: str, outcome: Outcome) -> None:
        """Compare the tier of an answer with flex, and use flex no more in this run if another tier answered."""
        if outcome.tier == FLEX or not (isinstance(outcome, Answer) or outcome.is_billed) or model in self._ignored:
            return
        self._ignored.add(model)
        self._observer.on_flex_ignored(model, outcome.tier or DEFAULT_TIER)
        if self._setting is None:
            self._models_without.add(model)


class LaneChoice:
    """Choice of the route of requests.

    Args:
        settings: the settings of the choice.
        has_flex: returns whether an endpoint and a model have the flex tier.
    """

    def __init__(self, settings: LaneSettings, has_flex: Callable[[str, str], bool]) -> None:
        self._settings = settings
        self._has_flex = has_flex

    def choose(self, endpoint: str, model: str, requests: int, *, is_late: bool) -> Route:
        """Return the route of requests.

        Args:
            endpoint: the server's path of the endpoint.
            model: name of the model.
            requests: number of the requests of the round, of all models.
            is_late: whether their deadline has passed.
        """
        settings = self._settings
        has_flex = self._has_flex(endpoint, model)
        if is_late or requests < settings.sync_below:
            return self._full_price_route(has_flex=has_flex)
        if settings.lane == "sync":
            return Route(is_synchronous=True, falls_back=True)
        if settings.lane == "flex" or (settings.lane == "auto" and requests < settings.flex_below):
            if has_flex:
                return Route(is_synchronous=True, tries_flex=True, falls_back=bool(settings.flex_fallback))
            if settings.lane == "flex" and settings.flex_fallback:
                return Route(is_synchronous=True, falls_back=True)
        return BATCH_ROUTE

    def choose_for_trial(self, endpoint: str, model: str) -> Route:
        """Return the route of a request that is tried before the others are submitted."""
        return self._full_price_route(has_flex=self._has_flex(endpoint, model))

    def _full_price_route(self, *, has_flex: bool) -> Route:
        falls_back = self._settings.flex_fallback is not False or not has_flex
        return Route(is_synchronous=True, tries_flex=has_flex, falls_back=falls_back, by_lane=False)
