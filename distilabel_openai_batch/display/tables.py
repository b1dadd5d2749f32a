"""How jobs and failures are drawn in a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.entries import INTERRUPTED, FailureReason, JobEntry
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState, ScopeName
from distilabel_openai_batch.pricing import job_costs, prices
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost, dollars
from distilabel_openai_batch.text import duration

if TYPE_CHECKING:
    from distilabel_openai_batch.pricing.step_estimate import StepEstimate

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "canceled": "yellow",
    "cancelling": "yellow",
    INTERRUPTED: "yellow",
    NOT_FOUND: "red",
    "dropped": "red",
}


# Where nobody says how wide the terminal is.
_WIDE = 10_000

# Below that a message beside custom_ids would be broken into a line for each word.
_ROOM_FOR_CUSTOM_IDS = 110


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a job lasts, in seconds.

    Attributes:
        age: since it was planned.
        took: from then to its end; `None` where it has not ended, or came to nothing without an end.
        eta: until it has probably ended; `None` where it has, or nobody can tell.
    """

    age: float
    took: float | None = None
    eta: float | None = None

    def told(self) -> str:
        """How long it took, or else what is left."""
        return f"ETA {duration(self.eta)}" if self.eta is not None else duration(self.took)


def timings(jobs: Sequence[JobEntry], now: float) -> list[Timing]:
    """How long each job lasts.

    Args:
        jobs: all there are: a scope's earlier ones tell how long its later ones take.
        now: seconds since the epoch.
    """
    earlier: dict[ScopeName, list[float]] = {}
    for job in jobs:
        if job.ended_at and not job.is_open and job.state is not JobState.DROPPED:
            earlier.setdefault(job.scope, []).append(job.ended_at - job.created_at)
    return [
        Timing(
            max(0.0, now - job.created_at),
            max(0.0, job.ended_at - job.created_at) if job.ended_at else None,
            remaining(now - job.created_at, job.answered + job.failed, job.requests, earlier.get(job.scope, ()))
            if job.is_open and not job.has_ended
            else None,
        )
        for job in jobs
    ]


def money(cost: Cost | None) -> tuple[str, str]:
    """What something cost and what it saved; `?` where that is not known."""
    return (dollars(cost.spent), dollars(cost.saved)) if cost else ("?", "?")


def _table(*columns: Column) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def _texts(*names: str) -> Iterator[Column]:
    return (Column(name, overflow="fold") for name in names)


def _numbers(*names: str) -> Iterator[Column]:
    return (Column(name, justify="right", no_wrap=True) for name in names)


def jobs_table(jobs: Sequence[tuple[JobEntry, Timing]], room: int = _WIDE) -> Table:
    """A row for each job, and one for all.

    Args:
        jobs: with the time that each takes.
        room: the terminal's columns.
    """
    all_costs = [job_costs.of_job(job) for job, _ in jobs]
    rows = [
        (
            escape(job.scope.label),
            escape(job.batch_id or ("(synchronous)" if job.is_synchronous else "–")),
            _coloured(job.status),
            f"{job.answered:,}/{job.requests:,}",
            f"[red]{job.failed:,}[/]" if job.failed else "0",
            *(("–", "–") if is_to_come(job) else money(cost)),
            duration(timing.age),
            timing.told(),
        )
        for (job, timing), cost in zip(jobs, all_costs, strict=True)
    ]
    sums: tuple[str, ...] = ()
    if len(jobs) > 1:
        answered, failed, requests = (
            sum(getattr(job, name) for job, _ in jobs) for name in ("answered", "failed", "requests")
        )
        due = [cost for (job, _), cost in zip(jobs, all_costs, strict=True) if not is_to_come(job)]
        total = job_costs.total(due)
        known = total if total.at_once or None not in due else None
        sums = (
            *("total", "", "", f"{answered:,}/{requests:,}", f"{failed:,}"),
            *(money(known) if due else ("–", "–")),
            *("", ""),
        )
    names = ("scope", "batch", "status", "answered", "failed", "cost", "saved", "age", "took")
    return _fitting(names, rows, sums, room, is_number=names[3:], spare=("saved", "age", "cost"))


def _fitting(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    sums: Sequence[str],
    room: int,
    is_number: Sequence[str],
    spare: Sequence[str],
) -> Table:
    """A table that breaks no name in two, so that it can be copied, where that can be had.

    Args:
        names: of the columns.
        rows: a text for each column.
        sums: a last row, if there is one.
        room: the terminal's columns. Where they do not do, the second text of each row goes below the first one, and
            then columns are left out.
        is_number: the columns of numbers.
        spare: the columns that can be left out, the least needed one first.
    """
    every = [names, *rows, *([sums] if sums else [])]

    def laid_out(stacked: bool, left_out: Sequence[str]) -> list[list[str]]:
        shown = [place for place, name in enumerate(names) if name not in left_out]
        lines = [[row[place] for place in shown] for row in every]
        return [["\n".join(filter(None, line[:2])), *line[2:]] for line in lines] if stacked else lines

    layouts = [laid_out(False, ()), *(laid_out(True, spare[:count]) for count in range(len(spare) + 1))]
    chosen = next((layout for layout in layouts if _width(layout) <= room), layouts[-1])
    header, *body = chosen
    table = _table(
        *(
            Column(name, justify="right", no_wrap=True) if name in is_number else Column(name, overflow="fold")
            for name in header
        )
    )
    for number, line in enumerate(body):
        table.add_row(*line, style="bold" if sums and number == len(body) - 1 else None)
    return table


def _width(layout: Sequence[Sequence[str]]) -> int:
    """The terminal's columns that a table needs, with two between each of its own."""
    columns = list(zip(*layout, strict=True))
    widest = [
        max(Text.from_markup(line).cell_len for text in column for line in text.split("\n")) for column in columns
    ]
    return sum(widest) + 2 * (len(columns) - 1)


def is_to_come(job: JobEntry) -> bool:
    """Whether a job has no answer here, and so no cost yet."""
    return not job.answered or (job.is_open and not job.tokens_in + job.tokens_out)


def costs_table(entries: Sequence[CostEntry], room: int = _WIDE) -> Table:
    """A row for each scope and model, and one for all.

    Args:
        entries: in the order in which they are shown.
        room: the terminal's columns.
    """
    names = ("scope", "model", "answers", "tokens in", "cached", "tokens out", "cost", "at once", "saved")
    rows = [(escape(entry.scope.label), escape(entry.model or "?"), *_cost_columns([entry])) for entry in entries]
    sums = ("total", "", *_cost_columns(entries)) if len(entries) > 1 else ()
    return _fitting(names, rows, sums, room, is_number=names[2:], spare=("cached", "at once"))


def _cost_columns(entries: Sequence[CostEntry]) -> list[str]:
    answers, unknown = (sum(getattr(entry, name) for entry in entries) for name in ("answers", "unknown"))
    usage = sum((entry.usage for entry in entries), Usage(0, 0))
    cost = job_costs.total(entry.cost for entry in entries)
    tokens = [f"{count:,}" for count in (usage.tokens_in, usage.tokens_cached, usage.tokens_out)]
    is_known = answers > unknown
    return [
        f"{answers:,}",
        *tokens,
        *(dollars(it) if is_known else "?" for it in (cost.spent, cost.at_once, cost.saved)),
    ]


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """A line for each fact."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, escape(value))
    return table


def reasons_table(reasons: Iterable[FailureReason], room: int = _WIDE) -> Table:
    """A row for each reason.

    Args:
        reasons: the most frequent one first.
        room: the terminal's columns. Where they are few, custom_ids stand below their message.
    """
    texts = ("code", "first message", "first custom_ids")
    if stacked := room < _ROOM_FOR_CUSTOM_IDS:
        texts = ("code", "first message\nfirst custom_ids")  # type: ignore[assignment]
    table = _table(*_numbers("requests", "status"), *_texts(*texts))
    for reason in reasons:
        message, custom_ids = escape(reason.message), "\n".join(map(escape, reason.custom_ids))
        table.add_row(
            f"{reason.count:,}",
            str(reason.status_code or "–"),
            escape(reason.code or "–"),
            *([f"{message}\n{custom_ids}"] if stacked else [message, custom_ids]),
        )
    return table


def estimates_table(estimates: Sequence[StepEstimate], room: int = _WIDE) -> Table:
    """Return a table with a row for each estimated step and a total.

    Args:
        estimates: estimates in the order of the pipeline's steps.
        room: number of columns of the terminal.
    """
    names = ("step", "model", "rows", "requests", "known", "to buy", "tokens in", "tokens out", "cost", "at once")
    known = [estimate for estimate in estimates if not estimate.depends_on]
    rows = [(escape(estimate.step), escape(estimate.model), *_estimate_columns(estimate)) for estimate in estimates]
    sums: tuple[str, ...] = ()
    if len(known) > 1 and all(estimate.cost for estimate in known):
        total = job_costs.total(estimate.cost for estimate in known)
        name = "total" if len(known) == len(estimates) else "total of these"
        sums = (name, *[""] * 7, _at_most(total.spent), _at_most(total.at_once))
    return _fitting(names, rows, sums, room, is_number=names[2:], spare=("rows", "at once", "known", "tokens in"))


def _estimate_columns(estimate: StepEstimate) -> list[str]:
    if estimate.depends_on:
        return ["?"] * 8
    numbers = (estimate.rows, estimate.requests, estimate.known, estimate.requests - estimate.known)
    usage, cost = estimate.usage, estimate.cost
    return [
        *(f"{number:,}" for number in numbers),
        _about("~", f"{usage.tokens_in:,}", "0") if usage else "?",
        _about("≤ ", f"{usage.tokens_out:,}", "0") if usage else "?",
        *(map(_at_most, (cost.spent, cost.at_once)) if cost else ["?", "?"]),
    ]


def _about(sign: str, number: str, zero: str) -> str:
    """Return a number with the sign of an estimate or a bound; zero has no sign."""
    return number if number == zero else f"{sign}{number}"


def _at_most(amount: Decimal) -> str:
    return _about("≤ ", dollars(amount), dollars(Decimal(0)))


def estimate_notes(estimates: Sequence[StepEstimate]) -> Iterator[str]:
    """Yield a sentence for each limit on the meaning of the numbers.

    Args:
        estimates: estimates in the order of the pipeline's steps.
    """
    yield (
        "Tokens in (~) are estimated from the lengths of the texts. Tokens out and costs (≤) are upper bounds for"
        " answers as long as their requests allow: most answers are shorter."
    )
    if any(estimate.known for estimate in estimates):
        yield "Known requests are answered or in progress in the ledger: a run does not submit them again."
    for estimate in estimates:
        yield from _step_notes(estimate)
    unpriced_models = {
        (estimate.model, estimate.base_url): None
        for estimate in estimates
        if not estimate.depends_on and estimate.cost is None
    }
    for model, base_url in unpriced_models:
        if not prices.rates(model, base_url, time.time()):
            yield f"? {prices.why_unknown(model, base_url)}"
        else:
            yield f"? Some requests of {model} set no limit for their answers."


def _step_notes(estimate: StepEstimate) -> Iterator[str]:
    if estimate.depends_on == (estimate.step,):
        yield f"Not in the estimate: {estimate.step}, whose requests depend on its own answers."
    elif estimate.depends_on:
        yield (
            f"Not in the estimate: {estimate.step}, whose requests depend on the answers of"
            f" {', '.join(estimate.depends_on)}."
        )
    if estimate.asks_in_rounds:
        yield (
            f"{estimate.step} submits requests in rounds that depend on its answers: the real number of requests may be"
            " higher or lower. Each later request is estimated with one answer of full length in its prompt."
        )
    if estimate.is_parted:
        yield f"A routing function gives {estimate.step} only a part of these rows: the numbers are upper bounds."


def _coloured(status: str) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{escape(status)}[/]" if colour else escape(status)


def remaining(age: float, done: int, total: int, earlier: Sequence[float] = ()) -> float | None:
    """Seconds until a job has probably ended.

    Args:
        age: seconds since it was planned.
        done: requests that it is done with.
        total: requests that it has.
        earlier: the seconds that earlier jobs of its scope took.

    Returns:
        What is left at the pace so far; before there is one, what is left of the time that half of the earlier jobs
        took. `None` where neither says anything.
    """
    if done:
        return age / done * max(0, total - done)
    middle = sorted(earlier)[len(earlier) // 2] if earlier else 0.0
    return middle - age if middle > age else None
