"""How many dollars a loaded LLM may still spend: asked before anything is bought, and told what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import anyio.lowlevel
import orjson

from distilabel_openai_batch.api.outcomes import Answer, Deliver, Outcome
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.errors import BudgetError
from distilabel_openai_batch.pricing import prices, token_estimates
from distilabel_openai_batch.pricing.prices import Rates, dollars

# Requests whose bodies are read before other tasks have their turn.
_READ_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a request is expected to cost at most.

    Attributes:
        dollars: so many.
        rates: what its tokens cost.
        at_once: whether it is asked synchronously.
    """

    dollars: Decimal
    rates: Rates
    at_once: bool


class Unlimited:
    """No budget: whatever is asked is bought."""

    async def reserve(self, requests: Sequence[Request], at_once: bool) -> None:
        """Makes sure that requests may be bought, and counts them as expected from now on.

        Args:
            requests: all that is about to be bought.
            at_once: whether they are asked synchronously, at full price.

        Raises:
            BudgetError: they may cost more than is left, or it cannot be said what they cost.
        """

    async def expect(self, requests: Sequence[Request]) -> None:
        """Counts requests as expected that were bought by a run that died."""

    def let_go(self, requests: Iterable[Request]) -> None:
        """Another process buys these."""

    def settling(self, take: Deliver) -> Deliver:
        """Counts what requests were billed, as their outcomes are handed over."""
        return take


UNLIMITED = Unlimited()


class Budget(Unlimited):
    """What may be spent, what is spent, and what is expected to be.

    A request counts as expected from when it is about to be bought until it has an outcome, and then with what its
    answer was billed. What an earlier run was answered costs nothing. A job of a dead run that is taken over counts:
    its answers come to this run, and into its log.

    Args:
        limit: the dollars that may be spent.
        base_url: the server's address.
    """

    def __init__(self, limit: float, base_url: str) -> None:
        self._limit = Decimal(str(limit))
        self._base_url = base_url
        self._spent = Decimal(0)
        self._expected: dict[str, _Expected] = {}
        self._expected_sum = Decimal(0)
        # Most requests of a run cost the same: there are few that differ.
        self._alike: dict[tuple[str, Usage, bool], _Expected] = {}

    def check_price(self, model: str) -> None:
        """Makes sure that there is something to reckon with.

        Raises:
            BudgetError: the model's price is not known.
        """
        self._rates(model)

    async def reserve(self, requests: Sequence[Request], at_once: bool) -> None:
        """As declared."""
        expected: dict[str, _Expected] = {}
        for start in range(0, len(requests), _READ_AT_ONCE):
            for request in requests[start : start + _READ_AT_ONCE]:
                expected[request.custom_id] = self._estimate(request, at_once)
            await anyio.lowlevel.checkpoint()
        more = sum((its.dollars for its in expected.values()), Decimal(0))
        held = sum((self._expected[it].dollars for it in expected.keys() & self._expected.keys()), Decimal(0))
        others = self._expected_sum - held
        if requests and self._spent + others + more > self._limit:
            raise BudgetError(
                f"{len(requests):,} requests of {_names(requests)} may cost up to {dollars(more)}"
                f"{' at full price' if at_once else ''}, beside {dollars(self._spent)} that is spent and up to"
                f" {dollars(others)} for what is under way: more than the budget of {dollars(self._limit)}. They were"
                " not submitted. What was answered is kept; run it again with a higher `budget`, or a lower"
                " `max_new_tokens`, which bounds what an answer costs."
            )
        self._expect(expected)

    async def expect(self, requests: Sequence[Request]) -> None:
        """As declared."""
        self._expect({request.custom_id: self._estimate(request, at_once=False) for request in requests})

    def let_go(self, requests: Iterable[Request]) -> None:
        """As declared."""
        for request in requests:
            self._settle(request.custom_id)

    def settling(self, take: Deliver) -> Deliver:
        """As declared."""

        def settle(outcomes: Mapping[str, Outcome]) -> None:
            for custom_id, outcome in outcomes.items():
                if (expected := self._settle(custom_id)) and isinstance(outcome, Answer):
                    # A server that does not say what it billed has billed what was expected.
                    usage = Usage.of_request(*outcome.tokens, outcome.cached_tokens)
                    billed = expected.rates.cost(usage, expected.at_once).spent
                    self._spent += billed if any(outcome.tokens) else expected.dollars
            take(outcomes)

        return settle

    def _estimate(self, request: Request, at_once: bool) -> _Expected:
        rates = self._rates(request.model)
        usage = token_estimates.usage(request.endpoint, orjson.loads(bytes(request.body)))
        if usage is None:
            raise BudgetError(
                f"A request of {request.model} sets its answer no limit, so it cannot be said what it costs at most,"
                " and a budget cannot be kept. Nothing was submitted."
            )
        key = (request.model, usage, at_once)
        if key not in self._alike:
            self._alike[key] = _Expected(rates.cost(usage, at_once).spent, rates, at_once)
        return self._alike[key]

    def _rates(self, model: str) -> Rates:
        rates = prices.rates(model, self._base_url, time.time())
        if rates is None:
            raise BudgetError(
                f"A budget of {dollars(self._limit)} cannot be kept. {prices.why_unknown(model, self._base_url)}"
                " Without `budget` it runs."
            )
        return rates

    def _expect(self, expected: Mapping[str, _Expected]) -> None:
        for custom_id, its in expected.items():
            self._settle(custom_id)
            self._expected[custom_id] = its
            self._expected_sum += its.dollars

    def _settle(self, custom_id: str) -> _Expected | None:
        expected = self._expected.pop(custom_id, None)
        if expected:
            self._expected_sum -= expected.dollars
        return expected


def _names(requests: Sequence[Request]) -> str:
    return ", ".join(model for model, _ in Counter(request.model for request in requests).most_common())
