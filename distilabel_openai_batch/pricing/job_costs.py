"""Costs of jobs, by scope and model: list prices times the billed tokens of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from distilabel_openai_batch.api.usage import NO_USAGE, Usage
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.price_book import PriceBook, read_own_prices
from distilabel_openai_batch.pricing.prices import Cost, sum_known


def cost_of_job(job: JobEntry) -> Cost | None:
    """Return the cost of a job's answers; `None` if the cost is unknown.

    Tokens that the server billed for the job's batch, and that no answer in the ledger has, count too. The prices are
    those that the user stated in the run that planned the job, else the list prices of the day of the plan. The model
    is the model that answered: on Azure only the answer names the model behind a deployment. If that model has no
    price, the price of the requested model counts.
    """
    if not job.is_billed:
        return Cost()
    usage = billed_usage(job)
    rates = _price_book(job).find_rates(job.created_at, job.answered_by, job.model)
    if rates is None or not (usage.tokens_in + usage.tokens_out or rates.is_free):
        return None
    return sum((rates.cost(part, job.is_synchronous, tier) for tier, part in _split_by_tier(job, usage)), Cost())


def _split_by_tier(job: JobEntry, usage: Usage) -> list[tuple[str | None, Usage]]:
    """Return the parts of a job's tokens by the service tier that billed them; `None` for no such tier."""
    if not job.usage_by_tier:
        return [(None, usage)]
    in_tiers = sum((part for _, part in job.usage_by_tier), NO_USAGE)
    long_prompts = Counter(usage.long_prompts) - Counter(in_tiers.long_prompts)
    rest = replace(usage.beyond(in_tiers), long_prompts=tuple(long_prompts.elements()))
    return [*job.usage_by_tier, (None, rest)]


def billed_usage(job: JobEntry) -> Usage:
    """Return the tokens billed for a job: those of the answers in the ledger, and those that no answer there has."""
    return job.usage + job.unaccounted


def _price_book(job: JobEntry) -> PriceBook:
    return PriceBook(job.scope.base_url, read_own_prices(job.prices))


def explain_unknown_cost(job: JobEntry) -> str:
    """Return the reason why the cost of a job is unknown, as a sentence."""
    usage = billed_usage(job)
    if not usage.tokens_in + usage.tokens_out:
        return (
            "The tokens of some answers are unknown: the answers are not collected yet, were forgotten, or the server"
            " does not report tokens."
        )
    return _price_book(job).explain_unknown(job.answered_by or job.model)


@dataclass(frozen=True, slots=True)
class CostEntry:
    """Cost of one model in one scope.

    Attributes:
        scope: the scope.
        model: the name of the model in the answers; the requested name if the answers name no model.
        answers: number of answers.
        usage: billed tokens.
        cost: the known part of the cost; `None` if no part is known.
        unknown: number of answers whose cost is unknown.
        unaccounted: the part of `usage` that no answer in the ledger has.
    """

    scope: ScopeName
    model: str
    answers: int
    usage: Usage
    cost: Cost | None
    unknown: int
    unaccounted: Usage = NO_USAGE


def costs_by_model(jobs: Iterable[JobEntry]) -> list[CostEntry]:
    """Return the costs by scope and model, in the order of their first jobs; jobs without answers are left out."""
    found: dict[tuple[ScopeName, str], list[tuple[JobEntry, Cost | None]]] = {}
    for job in jobs:
        if job.is_billed:
            found.setdefault((job.scope, job.answered_by or job.model), []).append((job, cost_of_job(job)))
    return [
        CostEntry(
            *key,
            sum(job.answered for job, _ in priced),
            sum((billed_usage(job) for job, _ in priced), NO_USAGE),
            sum_known(cost for _, cost in priced),
            sum(job.answered for job, cost in priced if cost is None),
            sum((job.unaccounted for job, _ in priced), NO_USAGE),
        )
        for key, priced in found.items()
    ]
