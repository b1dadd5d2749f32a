"""Costs of jobs, by scope and model: list prices times the billed tokens of the answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Cost


def cost_of_job(job: JobEntry) -> Cost | None:
    """Return the cost of a job's answers in the ledger; `None` if the cost is unknown.

    The price is the price of the day on which the job was planned. The model is the model that answered: on Azure only
    the answer names the model behind a deployment. If that model has no price, the price of the requested model counts.
    """
    if not job.is_billed:
        return Cost()
    if not job.tokens_in + job.tokens_out:
        return None
    for model in (job.answered_by, job.model):
        if rates := prices.find_rates(model, job.scope.base_url, job.created_at):
            return rates.cost(_usage(job), job.is_synchronous)
    return None


def _usage(job: JobEntry) -> Usage:
    return Usage(job.tokens_in, job.tokens_out, job.tokens_cached, job.long_usages)


def explain_unknown_cost(job: JobEntry) -> str:
    """Return the reason why the cost of a job is unknown, as a sentence."""
    if not job.tokens_in + job.tokens_out:
        return (
            "The tokens of some answers are unknown: the answers are not collected yet, were forgotten, or the server"
            " does not report tokens."
        )
    return prices.explain_unknown_price(job.answered_by or job.model, job.scope.base_url)


@dataclass(frozen=True, slots=True)
class CostEntry:
    """Cost of one model in one scope.

    Attributes:
        scope: the scope.
        model: the name of the model in the answers; the requested name if the answers name no model.
        answers: number of answers.
        usage: billed tokens.
        cost: the known part of the cost.
        unknown: number of answers whose cost is unknown.
    """

    scope: ScopeName
    model: str
    answers: int
    usage: Usage
    cost: Cost
    unknown: int


def costs_by_model(jobs: Iterable[JobEntry]) -> list[CostEntry]:
    """Return the costs by scope and model, in the order of their first jobs; jobs without answers are left out."""
    found: dict[tuple[ScopeName, str], CostEntry] = {}
    for job in jobs:
        if not job.is_billed:
            continue
        key = (job.scope, job.answered_by or job.model)
        entry = found.get(key, CostEntry(*key, 0, Usage(0, 0), Cost(), 0))
        cost = cost_of_job(job)
        found[key] = CostEntry(
            *key,
            entry.answers + job.answered,
            entry.usage + _usage(job),
            entry.cost + (cost or Cost()),
            entry.unknown + (0 if cost else job.answered),
        )
    return list(found.values())


def sum_costs(costs: Iterable[Cost | None]) -> Cost:
    """Return the sum of the known costs."""
    return sum((cost for cost in costs if cost), Cost())
