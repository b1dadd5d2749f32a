"""Tables of jobs, costs, facts and failure reasons, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.table import Table

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.layout import (
    UNLIMITED_WIDTH,
    coloured_status,
    create_table,
    fit_lines,
    fit_table,
    markup,
    number_columns,
    text_columns,
)
from distilabel_openai_batch.display.timings import Timing, short_time
from distilabel_openai_batch.ledger.entries import FailureReason, JobEntry, RequestTotals
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import job_costs
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost, format_cost, sum_known

# Characters at the end of a batch id that tell the batches of a ledger apart.
_ID_END = 8

# Characters of a prompt beside its `custom_id`.
_PROMPT_CHARACTERS = 40

# Below this width a message beside a column of custom_ids would break into one line for each word.
_STACKING_WIDTH = 124


def has_no_cost_yet(job: JobEntry) -> bool:
    """Return whether the ledger has no billed answer of a job."""
    return not job.is_billed or (job.is_open and not job.tokens_in + job.tokens_out)


@dataclass(frozen=True, slots=True)
class JobTotals:
    """Last row of the table of jobs.

    Attributes:
        requests: numbers of requests.
        cut: number of cut answers, except replaced ones.
        cost: cost of all jobs, a lower bound if the cost of a job is unknown; `None` if no cost is known.
        has_cost: whether any job has a cost yet.
    """

    requests: RequestTotals
    cut: int
    cost: Cost | None
    has_cost: bool

    @classmethod
    def of(cls, jobs: Sequence[JobEntry], requests: RequestTotals) -> JobTotals:
        """Return the totals of jobs.

        Args:
            jobs: all jobs, whether the table shows them or not.
            requests: numbers of their requests.
        """
        costs = [job_costs.cost_of_job(job) for job in jobs if not has_no_cost_yet(job)]
        return cls(requests, sum(job.cut for job in jobs), sum_known(costs), bool(costs))


def jobs_table(
    jobs: Sequence[tuple[JobEntry, Timing]], width: int = UNLIMITED_WIDTH, totals: JobTotals | None = None
) -> Table:
    """Create a table with a line for each job, and a line with totals.

    Args:
        jobs: jobs with their timings, in the order of the lines.
        width: the number of terminal columns.
        totals: the totals; `None` for no such line.
    """
    # Few runs have cut answers, or retries with other requests → a column is shown only if there are some.
    rare = [name for name in ("cut", "replaced") if any(getattr(job, name) for job, _ in jobs)]
    rows = [_job_cells(job, timing, rare) for job, timing in jobs]
    sums = [_total_cells(totals, rare)] if totals else []
    names = ("scope", "batch", "status", "answered", "failed", *rare, "cost", "saved", "planned", "took")
    short_rows = [(scope, _short_id(job), *others) for (job, _), (scope, _, *others) in zip(jobs, rows, strict=True)]
    return fit_lines(
        names,
        rows + sums,
        short_rows + sums,
        width,
        number_names=names[3:],
        droppable=("replaced", "saved", "cost", "took"),
    )


def _job_cells(job: JobEntry, timing: Timing, rare: Sequence[str]) -> tuple[str, ...]:
    return (
        markup(job.scope.label),
        markup(job.batch_id or _name_way(job)),
        coloured_status(job.status),
        f"{job.answered:,}/{job.requests:,}",
        f"[red]{job.failed:,}[/]" if job.failed else "0",
        *(f"[yellow]{number:,}[/]" if (number := getattr(job, name)) else "0" for name in rare),
        *(("–", "–") if has_no_cost_yet(job) else format_cost(job_costs.cost_of_job(job))[:2]),
        short_time(job.created_at),
        timing.label,
    )


def _total_cells(totals: JobTotals, rare: Sequence[str]) -> tuple[str, ...]:
    requests = totals.requests
    sums = {"cut": totals.cut, "replaced": requests.replaced}
    cells = (
        *("total", "", "", f"{requests.answered:,}/{requests.requests:,}", f"{requests.failed:,}"),
        *(f"{sums[name]:,}" for name in rare),
        *(format_cost(totals.cost)[:2] if totals.has_cost else ("–", "–")),
        *("", ""),
    )
    return tuple(cell and f"[bold]{cell}[/]" for cell in cells)


def _name_way(job: JobEntry) -> str:
    """Return the way of a job without a batch; a dash for a job that was never submitted."""
    return f"({'flex' if job.is_flex else 'synchronous'})" if job.is_synchronous else "–"


def _short_id(job: JobEntry) -> str:
    """Return the end of a batch id, which the commands accept in place of the id."""
    if not job.batch_id:
        return _name_way(job).replace("synchronous", "sync.")
    return markup(f"…{job.batch_id[-_ID_END:]}" if len(job.batch_id) > _ID_END else job.batch_id)


def costs_table(entries: Sequence[CostEntry], width: int = UNLIMITED_WIDTH) -> Table:
    """Create a table with a row for each scope and model, and a row with the sums of several entries.

    Args:
        entries: the entries in the order of the rows.
        width: the number of terminal columns.
    """
    kinds = _shown_kinds(entries)
    names = ("scope", "model", "answers", *(_KINDS[kind] for kind in kinds), "cost", "full price", "saved")
    rows = [(markup(entry.scope.label), markup(entry.model or "?"), *_cost_cells([entry], kinds)) for entry in entries]
    sums = ("total", "", *_cost_cells(entries, kinds)) if len(entries) > 1 else ()
    return fit_table(
        names, rows, sums, width, number_names=names[2:], droppable=("written", "reasoning", "cached", "full price")
    )


# Kinds of tokens in the table of costs, with the headers of their columns.
_KINDS = {
    "tokens_in": "tokens in",
    "tokens_cached": "cached",
    "tokens_written": "written",
    "tokens_out": "tokens out",
    "tokens_reasoning": "reasoning",
}


def _shown_kinds(entries: Sequence[CostEntry]) -> list[str]:
    """Return the kinds of tokens that get a column: tokens written and of reasoning only where there are any."""
    rare = ("tokens_written", "tokens_reasoning")
    return [kind for kind in _KINDS if kind not in rare or any(getattr(entry.usage, kind) for entry in entries)]


def _cost_cells(entries: Sequence[CostEntry], kinds: Sequence[str]) -> list[str]:
    answers = sum(entry.answers for entry in entries)
    usage = sum((entry.usage for entry in entries), Usage(0, 0))
    texts = format_cost(sum_known(entry.cost for entry in entries))
    return [
        f"{answers:,}",
        *(f"{getattr(usage, kind):,}" for kind in kinds),
        *(texts.spent, texts.full_price, texts.saved),
    ]


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Create a table with a line for each pair of a name and a value."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, markup(value))
    return table


def reasons_table(reasons: Iterable[tuple[ScopeName, FailureReason]], width: int = UNLIMITED_WIDTH) -> Table:
    """Create a table with a row for each failure reason of each scope, and a column of scopes if there are several.

    Args:
        reasons: the scopes and their reasons in the order of the rows.
        width: the number of terminal columns; in a narrow terminal the time stands below the code, and the `custom_id`s
            stand below the message.
    """
    reasons = list(reasons)
    is_stacked = width < _STACKING_WIDTH
    has_scopes = len({scope for scope, _ in reasons}) > 1
    has_prompts = any(any(reason.prompts) for _, reason in reasons)
    custom_ids_name = "first custom_ids" + (", prompts" if has_prompts else "")
    names = ("code", "last", "first message", custom_ids_name)
    stacked_names = ("code\nlast", f"first message\n{custom_ids_name}")
    table = create_table(
        *(text_columns("scope") if has_scopes else ()),
        *number_columns("requests", "status"),
        *text_columns(*(stacked_names if is_stacked else names)),
    )
    for scope, reason in reasons:
        code = markup(reason.code or "–") + (" (replaced)" if reason.is_replaced else "")
        last = short_time(reason.last_at)
        message, custom_ids = markup(reason.message), "\n".join(map(markup, _name_requests(reason)))
        cells = [f"{code}\n{last}", f"{message}\n{custom_ids}"] if is_stacked else [code, last, message, custom_ids]
        label = [markup(scope.label)] if has_scopes else []
        table.add_row(*label, f"{reason.count:,}", str(reason.status_code or "–"), *cells)
    return table


def _name_requests(reason: FailureReason) -> list[str]:
    """Return the first `custom_id`s of a reason, each with the start of its prompt."""
    pairs = zip_longest(reason.custom_ids, reason.prompts, fillvalue="")
    return [f"{custom_id} {_shorten(prompt)}".rstrip() for custom_id, prompt in pairs]


def _shorten(prompt: str) -> str:
    return prompt if len(prompt) <= _PROMPT_CHARACTERS else f"{prompt[: _PROMPT_CHARACTERS - 1]}…"
