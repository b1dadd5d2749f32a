"""Table of the estimates of a pipeline's steps, and the notes on how exact their numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.table import Table

from distilabel_openai_batch.display.advice import describe_small_limit
from distilabel_openai_batch.display.layout import UNLIMITED_WIDTH, fit_table, markup
from distilabel_openai_batch.display.timings import describe_past_jobs
from distilabel_openai_batch.pricing.prices import Cost, format_dollars
from distilabel_openai_batch.pricing.step_estimate import StepEstimate
from distilabel_openai_batch.text import plural


def estimates_table(estimates: Sequence[StepEstimate], width: int = UNLIMITED_WIDTH) -> Table:
    """Create a table with a row for each step that submits requests, and a row with the total cost.

    The total is left out for a single step, and if a cost is unknown. Steps that depend on answers count in no total.

    Args:
        estimates: the estimates in the order of the pipeline.
        width: the number of terminal columns.
    """
    names = ("step", "model", "rows", "requests", "known", "to submit", "tokens in", "tokens out", "cost", "full price")
    independent = [estimate for estimate in estimates if not estimate.depends_on]
    rows = [(markup(estimate.step), markup(estimate.model), *_estimate_cells(estimate)) for estimate in estimates]
    sums: tuple[str, ...] = ()
    if len(independent) > 1 and all(estimate.cost for estimate in independent):
        total = sum((estimate.cost for estimate in independent if estimate.cost), Cost())
        name = "total" if len(independent) == len(estimates) else "partial total"
        sums = (name, *[""] * 7, _at_most(total.spent), _at_most(total.full_price))
    droppable = ("rows", "full price", "known", "tokens in")
    return fit_table(names, rows, sums, width, number_names=names[2:], droppable=droppable)


def estimate_notes(estimates: Sequence[StepEstimate]) -> Iterator[str]:
    """Yield a sentence for each limit on the meaning of the numbers: approximations, bounds, steps without an estimate.

    Args:
        estimates: the estimates in the order of the pipeline.
    """
    yield (
        "Tokens in (~) are estimated from the lengths of the texts. Tokens out and costs (≤) are upper bounds for"
        " answers as long as their requests allow: most answers are shorter."
    )
    if any(estimate.known for estimate in estimates):
        yield (
            "Known requests are answered or in progress in the ledger: a run does not submit them again"
            f"{', except for those with cut answers' if any(each.resubmitted for each in estimates) else ''}."
        )
    for estimate in estimates:
        yield from _step_notes(estimate)
    for past in dict.fromkeys(estimate.past_jobs for estimate in estimates if estimate.to_submit):
        if past:
            yield describe_past_jobs(past)
    unpriced = [estimate for estimate in estimates if not estimate.depends_on and estimate.cost is None]
    yield from dict.fromkeys(f"? {_explain_unknown_cost(estimate)}" for estimate in unpriced)


def _explain_unknown_cost(estimate: StepEstimate) -> str:
    return estimate.unknown_price or (
        f"Some requests of {estimate.model} set no limit on the tokens of their answers, or contain images or files"
        " whose tokens nobody can count, so the cost is unknown."
    )


def _step_notes(estimate: StepEstimate) -> Iterator[str]:
    if estimate.depends_on == (estimate.step,):
        yield f"Not in the estimate: {estimate.step}, whose requests depend on its own answers."
    elif estimate.depends_on:
        yield (
            f"Not in the estimate: {estimate.step}, whose requests depend on the answers of"
            f" {', '.join(estimate.depends_on)}."
        )
    if estimate.behind:
        yield (
            f"{estimate.step} is behind {', '.join(estimate.behind)}: each of its prompts is counted with all answers"
            " before at full length, and with the rows that placeholder answers leave."
        )
    if estimate.behind and estimate.earlier_answers and estimate.to_submit:
        yield (
            f"The requests of {estimate.step} depend on the answers of {', '.join(estimate.behind)}; the ledger has"
            f" {plural(estimate.earlier_answers, 'answer')} of {estimate.step} from earlier runs, which a run uses for"
            " equal requests."
        )
    if elsewhere := estimate.answers_elsewhere:
        yield (
            f"⚠️ Another scope of the ledger, '{elsewhere.name}', has {elsewhere.known:,} of {elsewhere.sampled:,}"
            f" sampled requests of {estimate.step}. To use the answers instead of a new bill, set"
            f' `reuse_from="{elsewhere.name}"` on the LLM.'
        )
    if estimate.asks_in_rounds:
        yield (
            f"{estimate.step} submits requests in rounds that depend on its answers: the real number of requests may be"
            " higher or lower. Each later request is estimated with one answer of full length in its prompt."
        )
    if estimate.cost_without_retries:
        yield (
            f'{estimate.step} submits cut and empty answers again (`on_truncated="retry"`): tokens and cost count each'
            f" request with 1, 2, 4 and 8 times its limit. If no new answer is cut, the cost is at most"
            f" {format_dollars(estimate.cost_without_retries.spent)}."
        )
    if estimate.resubmitted:
        yield (
            f"The token limit cut {plural(estimate.resubmitted, 'known answer')} of {estimate.step}: the requests are"
            " submitted again with higher limits, and are counted in the cost."
        )
    if estimate.small_limit:
        yield f"⚠️ {estimate.step}: {describe_small_limit(estimate.model, estimate.small_limit)}"
    if estimate.is_parted:
        yield f"A routing function gives {estimate.step} only a part of these rows: the numbers are upper bounds."


def _estimate_cells(estimate: StepEstimate) -> list[str]:
    if estimate.depends_on:
        return ["?"] * 8
    counts = (estimate.rows, estimate.requests, estimate.known, estimate.to_submit)
    usage, cost = estimate.usage, estimate.cost
    return [
        *(f"{count:,}" for count in counts),
        _mark("≤ " if estimate.behind else "~", f"{usage.tokens_in:,}", zero="0") if usage else "?",
        _mark("≤ ", f"{usage.tokens_out:,}", zero="0") if usage else "?",
        *(map(_at_most, (cost.spent, cost.full_price)) if cost else ["?", "?"]),
    ]


def _at_most(amount: Decimal) -> str:
    return _mark("≤ ", format_dollars(amount), zero=format_dollars(Decimal(0)))


def _mark(sign: str, number: str, zero: str) -> str:
    """Return a number behind a sign; zero is exact and gets no sign."""
    return number if number == zero else f"{sign}{number}"
