"""What jobs have cost, by scope and model: list prices times the tokens that their answers were billed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Cost


def of_job(job: JobEntry) -> Cost | None:
    """What the answers of a job have cost that are here; `None` where that is not known.

    The model is the one that answered, which on Azure alone tells what a deployment is; the price that of the day when
    the job was planned.
    """
    if not job.answered:
        return Cost()
    if not job.tokens_in + job.tokens_out:
        return None
    for model in (job.answered_by, job.model):
        if rates := prices.rates(model, job.scope.base_url, job.created_at):
            return rates.cost(_usage(job), job.is_synchronous)
    return None


def _usage(job: JobEntry) -> Usage:
    return Usage(job.tokens_in, job.tokens_out, job.tokens_cached, job.long_usages)


def why_unknown(job: JobEntry) -> str:
    """Why it is not known what a job has cost."""
    if not job.tokens_in + job.tokens_out:
        return (
            "The tokens of some answers are not known: they are not collected yet, were forgotten, or the server does"
            " not say."
        )
    return prices.why_unknown(job.answered_by or job.model, job.scope.base_url)


@dataclass(frozen=True, slots=True)
class CostEntry:
    """What one model has cost one scope.

    Attributes:
        scope: who asked whom.
        model: the one that answered, by the name that its answers have for it.
        answers: how many there are.
        usage: the tokens billed for them.
        cost: what they cost, as far as it is known.
        unknown: the answers whose cost is not known.
    """

    scope: ScopeName
    model: str
    answers: int
    usage: Usage
    cost: Cost
    unknown: int


def by_model(jobs: Iterable[JobEntry]) -> list[CostEntry]:
    """The costs of jobs by scope and model, in the order in which these were first asked.

    Jobs without answers have cost nothing, and are left out.
    """
    found: dict[tuple[ScopeName, str], CostEntry] = {}
    for job in jobs:
        if not job.answered:
            continue
        key = (job.scope, job.answered_by or job.model)
        entry = found.get(key, CostEntry(*key, 0, Usage(0, 0), Cost(), 0))
        cost = of_job(job)
        found[key] = CostEntry(
            *key,
            entry.answers + job.answered,
            entry.usage + _usage(job),
            entry.cost + (cost or Cost()),
            entry.unknown + (0 if cost else job.answered),
        )
    return list(found.values())


def total(costs: Iterable[Cost | None]) -> Cost:
    """The sum of what is known."""
    return sum((cost for cost in costs if cost), Cost())
