"""Preflight: a request of each model is tried before the others are submitted."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.encoding import decode_json, read_count
from distilabel_openai_batch.api.failure_codes import LENGTH_LIMIT
from distilabel_openai_batch.api.model_traits import read_limit
from distilabel_openai_batch.api.outcomes import Deliver, Failure, Outcome, is_billed
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.sync_api import NoSuchEndpointError
from distilabel_openai_batch.api.truncation import count_reasoning_tokens, find_cut_choices
from distilabel_openai_batch.engine.lanes import LaneChoice
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.sync_runner import SyncRunner
from distilabel_openai_batch.pricing.budget import NoBudget

# Equal refusals in a preflight after which all requests of a model count as refused.
_TRIALS = 3


class Preflight:
    """Try the models of requests, each once.

    Args:
        sync_runner: submits requests synchronously.
        lanes: chooses the tier of a trial.
        traits: traits of the server's models.
        budget: the limit of spending.
        observer: receives the events of the run.
    """

    def __init__(
        self,
        sync_runner: SyncRunner,
        lanes: LaneChoice,
        traits: LearnedTraits,
        budget: NoBudget,
        observer: Observer,
    ) -> None:
        self._sync_runner = sync_runner
        self._lanes = lanes
        self._traits = traits
        self._budget = budget
        self._observer = observer
        self._tried_models: set[tuple[str, str]] = set()

    async def try_models(self, requests: Sequence[Request], deliver: Deliver) -> list[Request]:
        """Submit one request of each model synchronously, and a few more if the first ones are refused.

        Returns:
            The requests without an outcome, with the parameters that the trials have shown.

        Raises:
            RequestsFailedError: the server refuses all tried requests of a model alike.
        """
        by_model: dict[tuple[str, str], list[Request]] = {}
        for request in requests:
            by_model.setdefault((request.endpoint, request.model), []).append(request)
        outcomes: dict[str, Outcome] = {}
        for model in by_model.keys() - self._tried_models:
            self._tried_models.add(model)
            await self._try_model(by_model[model], outcomes)
        deliver(outcomes)
        return [self._traits.fit(request) for request in requests if request.custom_id not in outcomes]

    async def _try_model(self, requests: Sequence[Request], outcomes: dict[str, Outcome]) -> None:
        """Submit the first requests of a model synchronously, and add their outcomes to `outcomes`."""
        refusals: list[Failure] = []
        for request in requests[:_TRIALS]:
            outcome = await self._try_request(request, outcomes)
            if not isinstance(outcome, Failure) or outcome.is_transient:
                return
            refusals.append(outcome)
        if len(refusals) == _TRIALS and len({(refusal.status_code, refusal.code) for refusal in refusals}) == 1:
            has_bill = any(map(is_billed, refusals))
            end = "Only the preflight's requests were billed." if has_bill else "Nothing was submitted."
            raise errors.RequestsFailedError(
                f"The preflight tried the first {_TRIALS} of {len(requests):,} requests, and all failed: {refusals[0]}"
                f" {end}",
                status_code=refusals[0].status_code,
                code=refusals[0].code,
            )

    async def _try_request(self, request: Request, outcomes: dict[str, Outcome]) -> Outcome | None:
        """Submit a request synchronously, once more for each parameter that its model refuses.

        Args:
            request: the request.
            outcomes: receives the outcome.

        Returns:
            The outcome; `None` if the server cannot be tried, or if another process has submitted the request.
        """
        route = self._lanes.choose_for_trial(request.endpoint, request.model)
        while True:
            await self._budget.reserve([request], is_sync=route.may_cost_full_price)
            try:
                end = await self._sync_runner.submit(Shard.of([request]), outcomes.update, route)
            except (NoSuchEndpointError, errors.AuthenticationError) as error:
                # A key may be restricted to batches.
                self._observer.on_preflight_skipped(str(error))
                return None
            if end.others:
                self._budget.release(end.others.requests)
            if end.unsent:
                self._observer.on_preflight_skipped(end.reason)
                return None
            outcome = outcomes.get(request.custom_id)
            revised = self._traits.revise(request, outcome) if isinstance(outcome, Failure) else None
            if revised is None:
                self._report_spent_limit(request, outcome)
                return outcome
            del outcomes[request.custom_id]
            request = revised

    def _report_spent_limit(self, request: Request, outcome: Outcome | None) -> None:
        """Report a trial whose answer was cut, or spent more than half of its limit on reasoning."""
        if outcome is None or not is_billed(outcome):
            return
        body = decode_json(bytes(request.body))
        limit, generations = read_limit(body), max(1, read_count(body.get("n")))
        if isinstance(outcome, Failure):
            reasoning, is_cut = outcome.tokens[1], outcome.code == LENGTH_LIMIT
        else:
            reasoning, is_cut = count_reasoning_tokens(outcome), bool(find_cut_choices(outcome))
        reasoning = ceil(reasoning / generations)
        if limit and (is_cut or reasoning > limit / 2):
            self._observer.on_limit_spent(request.model, limit, ceil(outcome.tokens[1] / generations), reasoning)
