"""Origin of a Task's answers, for the card and the artifacts of a dataset. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from distilabel_openai_batch.api.usage import NO_USAGE
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.pricing.job_costs import billed_usage, cost_of_job
from distilabel_openai_batch.pricing.prices import format_cost, sum_known
from distilabel_openai_batch.text import printable

# Batches that a card names; the artifact's file lists all.
_BATCHES_NAMED = 20


def describe_origin(counts: TaskCounts, jobs: Sequence[JobEntry], package: str) -> dict[str, str | int]:
    """Return the facts about a Task's answers by name, in the order of the card's lines.

    Args:
        counts: the numbers of the run that made the dataset.
        jobs: the jobs whose answers the run used, of earlier runs too.
        package: name and version of this package.
    """
    usage = sum(map(billed_usage, jobs), NO_USAGE)
    cost = sum_known(cost_of_job(job) for job in jobs)
    texts = format_cost(cost)
    batch_ids = [job.batch_id for job in jobs if job.batch_id]
    others = len(batch_ids) - _BATCHES_NAMED
    facts: dict[str, str | int] = {
        "made by": package,
        "server": ", ".join(dict.fromkeys(job.scope.base_url for job in jobs)),
        "models": ", ".join(dict.fromkeys(job.answered_by or job.model for job in jobs)),
        "requests": counts.requests,
        "answered": counts.answered,
        "failed": counts.failed,
        "failures by reason": ", ".join(f"{count:,} × {reason}" for reason, count in counts.reasons.items()),
        "cut at the limit of tokens": counts.cut,
        "synchronous requests": counts.synchronous,
        "batches": ", ".join(batch_ids[:_BATCHES_NAMED]) + (f" and {others:,} more" if others > 0 else ""),
        "tokens of the batches": f"{usage.tokens_in:,} in, {usage.tokens_out:,} out" if jobs else "",
        "cost of the batches": (f"{texts.spent}, {texts.saved} less than synchronous" if cost else ""),
    }
    always_shown = ("requests", "answered", "failed")
    return {
        name: printable(" ".join(fact.split())) if isinstance(fact, str) else fact
        for name, fact in facts.items()
        if fact or name in always_shown
    }


def list_batches(jobs: Sequence[JobEntry]) -> list[dict[str, Any]]:
    """Return the facts about each batch, as JSON holds them; times are ISO 8601 in UTC."""
    return [
        {
            "batch_id": job.batch_id,
            "scope": job.scope.label,
            "server": job.scope.base_url,
            "endpoint": job.endpoint,
            "model": job.model,
            "answered_by": job.answered_by or None,
            "status": job.status,
            "requests": job.requests,
            "answered": job.answered,
            "failed": job.failed,
            "cut": job.cut,
            "replaced": job.replaced,
            **billed_usage(job).counts(),
            "dollars": float(cost.spent) if (cost := cost_of_job(job)) else None,
            "planned_at": _iso(job.created_at),
            "ended_at": _iso(job.end_at) if job.end_at else None,
        }
        for job in jobs
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
