"""Output of the commands: tables, JSON, notes on jobs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.tables import Timing
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import LOST, ScopeName, label
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost
from distilabel_openai_batch.pricing.step_estimate import StepEstimate
from distilabel_openai_batch.text import plural, shortlist

_LOGGER = logging.getLogger(__name__)

# What reads from a pipe, or a file, wants whole lines. Tables take no more than they need.
_PIPE_COLUMNS = 1_000_000


def _may_colour() -> bool | None:
    """`False` where the user wants no colours (https://no-color.org); otherwise the terminal decides."""
    return False if os.getenv("NO_COLOR") else None


def _console() -> Console:
    return Console() if sys.stdout and sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)


def _print_table(table: Callable[[Sequence[Any], int], Table], rows: Sequence[Any]) -> None:
    console = _console()
    console.print(table(rows, console.width))


def _job_json(job: JobEntry, timing: Timing) -> dict[str, Any]:
    from distilabel_openai_batch.pricing.job_costs import of_job

    seconds = {f"{name}_seconds": value for name, value in asdict(timing).items()}
    facts = {name: value for name, value in asdict(job).items() if name != "long"}
    return facts | _scope_json(job.scope) | seconds | _cost_json(of_job(job))


def _scope_json(scope: ScopeName) -> dict[str, str]:
    return {"scope": label(scope), "pipeline": scope.pipeline, "task": scope.task, "base_url": scope.base_url}


def _cost_json(cost: Cost | None) -> dict[str, float | None]:
    """Dollars; null where they are not known."""
    if cost is None:
        return {"cost": None, "cost_at_once": None, "saved": None}
    return {"cost": float(cost.spent), "cost_at_once": float(cost.at_once), "saved": float(cost.saved)}


def _costs_json(entries: Sequence[CostEntry]) -> dict[str, Any]:
    def numbers(some: Sequence[CostEntry]) -> dict[str, Any]:
        answers, unknown = sum(entry.answers for entry in some), sum(entry.unknown for entry in some)
        usage = sum((entry.usage for entry in some), Usage(0, 0))
        known = sum((entry.cost for entry in some), Cost()) if answers > unknown or not answers else None
        return {"answers": answers, "unknown": unknown} | usage.counts() | _cost_json(known)

    scopes = [_scope_json(entry.scope) | {"model": entry.model} | numbers([entry]) for entry in entries]
    return {"scopes": scopes, "total": numbers(entries)}


def _estimates_json(estimates: Sequence[StepEstimate]) -> dict[str, Any]:
    """Costs and tokens out are bounds, tokens in an estimate."""
    known = [estimate for estimate in estimates if not estimate.depends_on]
    steps = [
        asdict(estimate)
        | {"to_buy": estimate.requests - estimate.known}
        | ({"usage": estimate.usage.counts()} if estimate.usage else {})
        | _cost_json(estimate.cost)
        for estimate in estimates
    ]
    total = sum((estimate.cost for estimate in known if estimate.cost), Cost())
    return {
        "steps": steps,
        "is_complete": len(known) == len(estimates) and all(estimate.cost for estimate in known),
        "total": _cost_json(total if any(estimate.cost for estimate in known) else None),
    }


def _say_why_unknown(jobs: Sequence[JobEntry]) -> None:
    """Explains each `?`, so that no sum is taken for more than it is."""
    from distilabel_openai_batch.pricing.job_costs import of_job, why_unknown

    for reason in dict.fromkeys(why_unknown(job) for job in jobs if of_job(job) is None):
        typer.echo(f"? {reason}", err=True)


def _say_interrupted(jobs: Sequence[JobEntry]) -> None:
    """Says what to do about jobs that nobody works on."""
    interrupted = [job for job in jobs if job.is_interrupted]
    if interrupted:
        scopes = shortlist((label(job.scope) for job in interrupted), "")
        typer.echo(
            f"Interrupted: {plural(len(interrupted), 'job')} of {scopes}. The run was gone before it knew of a batch:"
            " run it again, which finds out and carries on, or `forget` the scope.",
            err=True,
        )


def _say_lost(jobs: Sequence[JobEntry]) -> None:
    """Says what to do about jobs whose batches the server does not know."""
    if lost := sorted({label(job.scope) for job in jobs if job.status == LOST}):
        typer.echo(
            f"The server does not know batches of {shortlist(lost, '')}. Is the key another project's? If they are gone"
            " for good, `forget SCOPE --lost` frees their requests, to be bought again.",
            err=True,
        )


def _print_json(value: object) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
