"""JSON objects that the commands print with `--json`. Costs are in dollars, `null` if unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing import job_costs
from distilabel_openai_batch.pricing.prices import Cost, sum_known

if TYPE_CHECKING:
    from distilabel_openai_batch.display.timings import Timing
    from distilabel_openai_batch.ledger.entries import JobEntry, RequestTotals, ScopeEntry
    from distilabel_openai_batch.ledger.states import ScopeName
    from distilabel_openai_batch.pricing.job_costs import CostEntry
    from distilabel_openai_batch.pricing.step_estimate import StepEstimate

# Fields of `JobEntry` whose name in the output differs. Scripts read the output, so its names stay.
_JOB_FIELDS = {"pending": "asked"}
_LEFT_OUT = ("long_usages", "prices", "usage_by_tier", "replaced_failures")


def job_json(job: JobEntry, timing: Timing) -> dict[str, Any]:
    """Return all fields of a job with its scope, times in seconds, and cost."""
    seconds = {f"{name}_seconds": value for name, value in asdict(timing).items()}
    fields = {_JOB_FIELDS.get(name, name): value for name, value in asdict(job).items() if name not in _LEFT_OUT}
    fields["billed"] = job.billed and job.billed.counts()
    fields["tokens_by_tier"] = {tier: usage.counts() for tier, usage in job.usage_by_tier}
    fields |= _lost_json(job.unaccounted)
    return fields | _scope_json(job.scope) | seconds | _cost_json(job_costs.cost_of_job(job))


def scope_json(scope: ScopeEntry, totals: RequestTotals, jobs: Sequence[JobEntry], cost: Cost | None) -> dict[str, Any]:
    """Return the sums of a scope."""
    return (
        _scope_json(scope.name)
        | asdict(totals)
        | {"jobs": len(jobs), "open_jobs": sum(job.is_open for job in jobs)}
        | {"tokens_in": scope.tokens_in, "tokens_out": scope.tokens_out}
        | {"tokens_reasoning": sum(job.tokens_reasoning for job in jobs)}
        | _bounded_json(cost)
    )


def costs_json(entries: Sequence[CostEntry]) -> dict[str, Any]:
    """Return the costs by scope and model under `scopes`, and their sum under `total`."""
    scopes = [_scope_json(entry.scope) | {"model": entry.model} | _sum_json([entry]) for entry in entries]
    return {"scopes": scopes, "total": _sum_json(entries)}


def estimates_json(estimates: Sequence[StepEstimate]) -> dict[str, Any]:
    """Return the estimates by step under `steps`, and their cost under `total`.

    `is_complete` is false if the cost of a step is unknown. Output tokens and costs are upper bounds, input tokens an
    approximation.
    """
    independent = [estimate for estimate in estimates if not estimate.depends_on]
    steps = [
        asdict(estimate)
        | {"to_buy": estimate.to_submit}
        | ({"usage": estimate.usage.counts()} if estimate.usage else {})
        | _cost_json(estimate.cost)
        | {"cost_without_retries": _dollars_spent(estimate.cost_without_retries)}
        for estimate in estimates
    ]
    return {
        "steps": steps,
        "is_complete": len(independent) == len(estimates) and all(estimate.cost for estimate in independent),
        "total": _cost_json(sum_known(estimate.cost for estimate in independent)),
    }


def _scope_json(scope: ScopeName) -> dict[str, str]:
    return {"scope": scope.label, "pipeline": scope.pipeline, "task": scope.task, "base_url": scope.base_url}


def _dollars_spent(cost: Cost | None) -> float | None:
    return None if cost is None else float(cost.spent)


def _cost_json(cost: Cost | None) -> dict[str, float | None]:
    if cost is None:
        return {"cost": None, "cost_at_once": None, "saved": None}
    return {"cost": float(cost.spent), "cost_at_once": float(cost.full_price), "saved": float(cost.saved)}


def _bounded_json(cost: Cost | None) -> dict[str, float | bool | None]:
    """Return a sum of costs, and whether the true sum is higher since a part has no price."""
    return {**_cost_json(cost), "is_lower_bound": cost is not None and cost.is_lower_bound}


def _sum_json(entries: Sequence[CostEntry]) -> dict[str, Any]:
    answers, unknown = sum(entry.answers for entry in entries), sum(entry.unknown for entry in entries)
    usage = sum((entry.usage for entry in entries), Usage(0, 0))
    cost = sum_known(entry.cost for entry in entries) if entries else Cost()
    lost = sum((entry.unaccounted for entry in entries), Usage(0, 0))
    return {"answers": answers, "unknown": unknown} | usage.counts() | _lost_json(lost) | _bounded_json(cost)


def _lost_json(lost: Usage) -> dict[str, int]:
    """Return the tokens that the server billed, and that no answer in the ledger has."""
    return {"not_collected_in": lost.tokens_in, "not_collected_out": lost.tokens_out}
