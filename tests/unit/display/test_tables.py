"""Tests of `display.tables`."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from rich.console import Console

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.tables import (
    JobTotals,
    costs_table,
    facts_table,
    has_no_cost_yet,
    jobs_table,
    reasons_table,
)
from distilabel_openai_batch.display.timings import Timing
from distilabel_openai_batch.ledger.entries import FailureEntry, RequestTotals, group_failures
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import job_costs
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost, format_cost
from tests.support.entries import COLLECTED_JOB, OPEN_JOB, SCOPE

JOBS = [(OPEN_JOB, Timing(500.0, eta=60.0)), (COLLECTED_JOB, Timing(9_000.0, took=600.0))]


def render(table, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


JOB_ENTRIES = [job for job, _ in JOBS]
TOTALS = JobTotals.of(JOB_ENTRIES, RequestTotals(99_000, 62_000, 500))


@pytest.mark.parametrize(
    ("width", "columns", "scope", "batch"),
    [
        (180, "cost saved planned took", "preferences/text_generation_0", "batch_6840f1d7c2ac8190b1d2f4a5c6e7f809"),
        (130, "cost saved planned took", "preferences/text_generation_0", "…c6e7f809"),
        (110, "cost planned took", "preferences/text_generation_0", "…c6e7f809"),
        (100, "planned", "preferences/text_generation_0", "…c6e7f809"),
        # rich 13.5 leaves the scope one more character than newer releases.
        (80, "planned", "preferences/text_gen", "…c6e7f809"),
    ],
)
def test_each_job_has_one_line_in_any_terminal(width, columns, scope, batch):
    """A terminal without room for the ids gets their ends, and then fewer columns."""
    lines = render(jobs_table(JOBS, width, TOTALS), width)

    assert " ".join(lines[0].split()) == f"scope batch status answered failed {columns}"
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    assert lines[1].startswith(scope)
    assert lines[1].split()[1] == batch
    assert " ".join(lines[-1].split()).startswith("total 62,000/99,000 500")


def test_job_is_listed_with_its_local_day():
    moment = datetime.now().replace(month=3, day=4, hour=5, minute=6)
    [_, line] = render(jobs_table([(replace(OPEN_JOB, created_at=moment.timestamp()), Timing(1.0))]))
    assert "03-04 05:06" in line
    [_, line] = render(jobs_table([(replace(OPEN_JOB, created_at=86_400.0 * 400), Timing(1.0))]))
    assert "1971-02-0" in line


def test_one_job_needs_no_sum():
    lines = render(jobs_table(JOBS[:1]))
    assert len(lines) == 2


def test_a_job_without_a_billed_answer_has_no_cost_yet():
    assert has_no_cost_yet(OPEN_JOB)
    assert has_no_cost_yet(replace(COLLECTED_JOB, answered=0))
    assert not has_no_cost_yet(replace(OPEN_JOB, tokens_in=1))
    assert not has_no_cost_yet(COLLECTED_JOB)
    assert render(jobs_table(JOBS[:1]))[1].split()[5:7] == ["–", "–"]


def test_an_unknown_cost_is_a_question_mark():
    assert format_cost(None) == ("?", "?", "?")
    assert format_cost(Cost(Decimal(1), Decimal(3))) == ("$1.00", "$2.00", "$3.00")


def test_sum_with_an_unknown_part_is_a_lower_bound():
    assert format_cost(Cost(Decimal(1), Decimal(3), is_lower_bound=True)) == ("≥ $1.00", "≥ $2.00", "≥ $3.00")
    assert format_cost(Cost(Decimal("0.00001"), Decimal(0), is_lower_bound=True)).spent == "> $0"


def test_total_of_jobs_is_a_lower_bound_beside_a_job_without_a_price(monkeypatch):
    """A job without a cost so far makes no sum a lower bound."""
    monkeypatch.setattr(job_costs, "cost_of_job", lambda job: Cost(Decimal(1), Decimal(3)) if job.model else None)
    priced = replace(COLLECTED_JOB, tokens_in=10)
    unpriced, waiting = replace(priced, model=""), replace(OPEN_JOB, answered=0, failed=0)
    costs = [
        JobTotals.of(jobs, RequestTotals(1, 1, 0)).cost for jobs in ([priced, unpriced], [priced, waiting], [unpriced])
    ]
    assert [format_cost(cost).spent for cost in costs] == ["≥ $1.00", "$1.00", "?"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_custom_id_stays_in_one_piece_in_a_narrow_terminal(width):
    custom_id = "5acd45b53d64e0b5cc4b107d9758d5af-0"
    failure = FailureEntry(SCOPE, custom_id, "b", 400, "context_length_exceeded", "Too long, by far. " * 9, 1)

    lines = render(reasons_table([(SCOPE, reason) for reason in group_failures([failure])], width), width)

    assert any(custom_id in line for line in lines)


def test_names_are_not_read_as_markup():
    scope = ScopeName("[red]odd[/]", "[/]", SCOPE.base_url)
    text = "\n".join(render(jobs_table([(replace(OPEN_JOB, scope=scope, status="[/x]"), Timing(1.0))])))
    assert "[red]odd[/]/[/]" in text
    assert "[/x]" in text
    assert render(facts_table([("name", "[b]value[/b]")])) == ["name  [b]value[/b]"]


def test_costs_have_a_row_for_each_model_and_a_sum():
    """A model without a price has a question mark, and the sum contains the known costs."""
    entries = [
        CostEntry(SCOPE, "gpt-4o-mini", 3, Usage(1_000, 20, 5), Cost(Decimal(1), Decimal(2)), 0),
        CostEntry(SCOPE, "", 2, Usage(500, 10), None, 2),
    ]

    header, known, unknown, total = render(costs_table(entries))

    assert " ".join(header.split()) == "scope model answers tokens in cached tokens out cost full price saved"
    assert known.split()[1:] == ["gpt-4o-mini", "3", "1,000", "5", "20", "$1.00", "$2.00", "$1.00"]
    assert unknown.split()[1:] == ["?", "2", "500", "0", "10", "?", "?", "?"]
    assert total.split() == ["total", "5", "1,500", "5", "30", *["≥", "$1.00", "≥", "$2.00", "≥", "$1.00"]]
    assert len(render(costs_table(entries[:1]))) == 2


def test_a_task_of_empty_answers_has_its_cost_in_its_row():
    empty = CostEntry(SCOPE, "gpt-6-luna", 0, Usage(10, 320), Cost(Decimal(1), Decimal(2)), 0)
    assert render(costs_table([empty]))[1].split()[2:] == ["0", "10", "0", "320", "$1.00", "$2.00", "$1.00"]


def test_costs_have_columns_for_written_and_reasoning_tokens_only_where_there_are_some():
    entry = CostEntry(SCOPE, "gpt-6-luna", 3, Usage(1_000, 20, 5, 600, 7), Cost(Decimal(1), Decimal(2)), 0)
    header, line = render(costs_table([entry]))
    assert "cached  written  tokens out  reasoning" in header
    assert line.split()[3:8] == ["1,000", "5", "600", "20", "7"]


def test_column_of_cut_answers_is_shown_only_if_there_are_some():
    cut = (replace(COLLECTED_JOB, cut=37), JOBS[1][1])

    assert " cut " not in render(jobs_table(JOBS))[0]
    totals = JobTotals.of([JOBS[0][0], cut[0]], RequestTotals(2, 1, 0))
    header, *_, total = render(jobs_table([JOBS[0], cut], totals=totals))
    assert " cut " in header
    assert " 37 " in total
