"""Budget of a loaded LLM: dollars are reserved before requests are submitted, and settled when answers arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import anyio.lowlevel
import orjson

from distilabel_openai_batch.api.outcomes import Deliver, Outcome, is_billed, usage_of
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.errors import BudgetError
from distilabel_openai_batch.pricing import token_estimates
from distilabel_openai_batch.pricing.price_book import PriceBook
from distilabel_openai_batch.pricing.prices import Rates, format_dollars
from distilabel_openai_batch.text import plural

# Bodies parsed before the event loop runs other tasks.
_BODIES_PER_CHECKPOINT = 1_000


@dataclass(frozen=True, slots=True)
class _Bound:
    """Upper bound of the cost of one request.

    Attributes:
        dollars: the bound.
        rates: the prices of the tokens.
        is_sync: whether the request is synchronous.
    """

    dollars: Decimal
    rates: Rates
    is_sync: bool


class NoBudget:
    """Budget without a limit: every request may be submitted."""

    async def reserve(self, requests: Sequence[Request], is_sync: bool) -> None:
        """Reserve dollars for requests that are about to be submitted.

        Args:
            requests: the requests.
            is_sync: whether they are synchronous, at full price.

        Raises:
            BudgetError: the requests may cost more than the rest of the budget, or their cost is unknown.
        """

    async def reserve_some(self, requests: Sequence[Request], is_sync: bool) -> int:
        """Reserve dollars for as many of the first requests as the budget allows.

        Args:
            requests: the requests.
            is_sync: whether they are synchronous, at full price.

        Returns:
            The number of requests whose dollars are reserved.
        """
        return len(requests)

    async def expect(self, requests: Sequence[Request]) -> None:
        """Reserve dollars for requests that a dead run submitted, and whose answers this run collects."""

    def release(self, requests: Iterable[Request]) -> None:
        """Release the dollars of requests that another process submits."""

    def settle_on_delivery(self, deliver: Deliver) -> Deliver:
        """Return a `deliver` that replaces the reserved dollars of each outcome by the billed dollars."""
        return deliver


NO_BUDGET = NoBudget()
"""Budget of an LLM without the field `budget`."""


class Budget(NoBudget):
    """Budget with a limit: billed dollars plus reserved dollars never exceed the limit.

    Dollars are reserved from just before the submission of a request to its outcome; then the billed dollars of an
    answer count. An answer of an earlier run costs nothing. A job of a dead run counts when this run continues the job:
    the answers come to this run, and into its log.

    Args:
        limit: the limit, in dollars.
        price_book: the prices at the server.
    """

    def __init__(self, limit: float, price_book: PriceBook) -> None:
        self._limit = Decimal(str(limit))
        self._price_book = price_book
        self._spent = Decimal(0)
        self._reserved: dict[str, _Bound] = {}
        self._reserved_sum = Decimal(0)
        # Most requests of a run have the same model and token counts → they share one bound.
        self._shared_bounds: dict[tuple[str, Usage, bool], _Bound] = {}

    def check_price(self, model: str) -> None:
        """Check that a model has a known price.

        Raises:
            BudgetError: the price is unknown.
        """
        self._find_rates(model)

    async def reserve(self, requests: Sequence[Request], is_sync: bool) -> None:
        """Reserve the upper bound of the requests' cost, or raise `BudgetError` and reserve nothing."""
        bounds = await self._bounds(requests, is_sync)
        needed = sum((bound.dollars for bound in bounds.values()), Decimal(0))
        # A request that is submitted again replaces its own reservation.
        replaced = sum(
            (self._reserved[custom_id].dollars for custom_id in bounds.keys() & self._reserved.keys()), Decimal(0)
        )
        reserved = self._reserved_sum - replaced
        if requests and self._spent + reserved + needed > self._limit:
            raise BudgetError(
                f"{plural(len(requests), 'request')} of {_model_names(requests)} may cost up to"
                f" {format_dollars(needed)}{' at full price' if is_sync else ''}. With {format_dollars(self._spent)}"
                f" spent and up to {format_dollars(reserved)} for requests in progress, the total exceeds the budget of"
                f" {format_dollars(self._limit)}. These requests were not submitted. All answers so far are kept: run"
                " again with a higher `budget`, or with a lower `max_new_tokens`, which bounds the cost of an answer."
            )
        self._reserve(bounds)

    async def reserve_some(self, requests: Sequence[Request], is_sync: bool) -> int:
        """Reserve the upper bound of the cost of the first requests, as long as the limit allows."""
        number = 0
        for custom_id, bound in (await self._bounds(requests, is_sync)).items():
            if self._spent + self._reserved_sum + bound.dollars > self._limit:
                break
            self._reserve({custom_id: bound})
            number += 1
        return number

    async def expect(self, requests: Sequence[Request]) -> None:
        """Reserve the upper bound of the requests' cost, even above the limit."""
        self._reserve({request.custom_id: self._bound(request, is_sync=False) for request in requests})

    def release(self, requests: Iterable[Request]) -> None:
        """Release the reserved dollars of the requests."""
        for request in requests:
            self._release(request.custom_id)

    def settle_on_delivery(self, deliver: Deliver) -> Deliver:
        """Return a `deliver` that first adds the billed dollars of answers and releases their reservations."""

        def deliver_and_settle(outcomes: Mapping[str, Outcome]) -> None:
            for custom_id, outcome in outcomes.items():
                if (bound := self._release(custom_id)) and is_billed(outcome):
                    billed = bound.rates.cost(usage_of(outcome), bound.is_sync, outcome.tier).spent
                    # The server reports no usage → charge the upper bound.
                    self._spent += billed if any(outcome.tokens) else bound.dollars
            deliver(outcomes)

        return deliver_and_settle

    async def _bounds(self, requests: Sequence[Request], is_sync: bool) -> dict[str, _Bound]:
        bounds: dict[str, _Bound] = {}
        for start in range(0, len(requests), _BODIES_PER_CHECKPOINT):
            for request in requests[start : start + _BODIES_PER_CHECKPOINT]:
                bounds[request.custom_id] = self._bound(request, is_sync)
            await anyio.lowlevel.checkpoint()
        return bounds

    def _bound(self, request: Request, is_sync: bool) -> _Bound:
        rates = self._find_rates(request.model)
        body = orjson.loads(bytes(request.body))
        usage = token_estimates.estimate_usage(request.endpoint, body)
        if usage is None:
            raise BudgetError(
                f"A request of {request.model} {token_estimates.explain_no_bound(body)}, so its cost has no upper"
                " bound, and the budget cannot be kept. No request was submitted."
            )
        key = (request.model, usage, is_sync)
        if key not in self._shared_bounds:
            self._shared_bounds[key] = _Bound(rates.cost(usage, is_sync).spent, rates, is_sync)
        return self._shared_bounds[key]

    def _find_rates(self, model: str) -> Rates:
        rates = self._price_book.find_rates(time.time(), model)
        if rates is None:
            raise BudgetError(
                f"The budget of {format_dollars(self._limit)} cannot be kept."
                f" {self._price_book.explain_unknown(model)} Remove `budget` to run without a limit."
            )
        return rates

    def _reserve(self, bounds: Mapping[str, _Bound]) -> None:
        for custom_id, bound in bounds.items():
            self._release(custom_id)
            self._reserved[custom_id] = bound
            self._reserved_sum += bound.dollars

    def _release(self, custom_id: str) -> _Bound | None:
        bound = self._reserved.pop(custom_id, None)
        if bound:
            self._reserved_sum -= bound.dollars
        return bound


def _model_names(requests: Sequence[Request]) -> str:
    return ", ".join(model for model, _ in Counter(request.model for request in requests).most_common())
