"""Tests of `display.tables`."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal

import pytest
from rich.console import Console

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.tables import (
    costs_table,
    facts_table,
    format_cost,
    has_no_cost_yet,
    jobs_table,
    reasons_table,
)
from distilabel_openai_batch.display.timings import Timing
from distilabel_openai_batch.ledger.entries import FailureEntry, group_failures
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost
from tests.support.entries import COLLECTED_JOB, OPEN_JOB, SCOPE

JOBS = [(OPEN_JOB, Timing(500.0, eta=60.0)), (COLLECTED_JOB, Timing(9_000.0, took=600.0))]


def render(table, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "first", "second"),
    [
        (180, "scope batch status answered failed cost saved age took", "preferences/text_generation_0 batch_6840f1d7"),
        (120, "scope", "batch status answered failed cost saved age took"),
        (97, "scope", "batch status answered failed cost took"),
        (91, "scope", "batch status answered failed took"),
    ],
)
def test_a_batch_id_stays_in_one_piece_in_a_narrow_terminal(width, first, second):
    lines = render(jobs_table(JOBS, width), width)

    assert " ".join(lines[0].split()) == first
    assert " ".join(lines[1].split()).startswith(second)
    assert all(sum(job.batch_id in line for line in lines) == 1 for job, _ in JOBS)
    assert max(map(len, lines)) <= width
    assert " ".join(lines[-1].split()).startswith("total 62,000/100,000 500")


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
    assert format_cost(None) == ("?", "?")
    assert format_cost(Cost(Decimal(1), Decimal(3))) == ("$1.00", "$2.00")


@pytest.mark.parametrize("width", [80, 120])
def test_a_custom_id_stays_in_one_piece_in_a_narrow_terminal(width):
    custom_id = "5acd45b53d64e0b5cc4b107d9758d5af-0"
    failure = FailureEntry(SCOPE, custom_id, "b", 400, "context_length_exceeded", "Too long, by far. " * 9, 1)

    lines = render(reasons_table(group_failures([failure]), width), width)

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
        CostEntry(SCOPE, "", 2, Usage(500, 10), Cost(), 2),
    ]

    header, known, unknown, total = render(costs_table(entries))

    assert " ".join(header.split()) == "scope model answers tokens in cached tokens out cost full price saved"
    assert known.split()[1:] == ["gpt-4o-mini", "3", "1,000", "5", "20", "$1.00", "$2.00", "$1.00"]
    assert unknown.split()[1:] == ["?", "2", "500", "0", "10", "?", "?", "?"]
    assert total.split() == ["total", "5", "1,500", "5", "30", "$1.00", "$2.00", "$1.00"]
    assert len(render(costs_table(entries[:1]))) == 2


def test_column_of_cut_answers_is_shown_only_if_there_are_some():
    cut = (replace(COLLECTED_JOB, cut=37), JOBS[1][1])

    assert " cut " not in render(jobs_table(JOBS))[0]
    header, *_, total = render(jobs_table([JOBS[0], cut]))
    assert " cut " in header
    assert " 37 " in total
