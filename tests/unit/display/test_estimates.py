"""Tests of `display.estimates`."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal

from rich.console import Console

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.estimates import estimate_notes, estimates_table
from distilabel_openai_batch.pricing.prices import Cost
from distilabel_openai_batch.pricing.step_estimate import AnswersElsewhere, StepEstimate

SERVER = "https://gateway.example/v1/"
GENERATE = StepEstimate(
    "generate",
    "gpt-4o-mini",
    SERVER,
    rows=7,
    requests=10,
    known=4,
    usage=Usage(1_000, 2_000),
    cost=Cost(Decimal(1), Decimal(2)),
)
EVOLVE = StepEstimate(
    "evolve", "gpt-4o", SERVER, rows=7, requests=7, usage=Usage(0, 0), cost=Cost(), asks_in_rounds=True, is_parted=True
)
JUDGE = StepEstimate("judge", "gpt-4o", SERVER, depends_on=("generate", "evolve"))
MAGPIE = StepEstimate("magpie", "gpt-4o", SERVER, depends_on=("magpie",))
UNPRICED = StepEstimate("unpriced", "mine", SERVER, rows=1, requests=1, unknown_price=f"{SERVER} has no prices.")


def render(*estimates: StepEstimate) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=160)
    console.print(estimates_table(estimates, 160))
    return [line.replace("≤ ", "≤").split() for line in console.file.getvalue().splitlines()]


def test_bounds_have_a_sign_and_zero_has_none():
    _, generate, evolve, total = render(GENERATE, EVOLVE)
    assert generate == ["generate", "gpt-4o-mini", "7", "10", "4", "6", "~1,000", "≤2,000", "≤$1.00", "≤$2.00"]
    assert evolve == ["evolve", "gpt-4o", "7", "7", "0", "7", "0", "0", "$0.00", "$0.00"]
    assert total == ["total", "≤$1.00", "≤$2.00"]


def test_a_step_that_depends_on_answers_has_no_numbers_and_makes_the_total_partial():
    *_, judge, total = render(GENERATE, EVOLVE, JUDGE)
    assert judge == ["judge", "gpt-4o", *"????????"]
    assert total[:2] == ["partial", "total"]


def test_an_unknown_cost_leaves_out_the_total():
    assert len(render(GENERATE, UNPRICED)) == 3
    assert render(UNPRICED)[1][-4:] == ["?", "?", "?", "?"]


def test_the_notes_say_which_numbers_are_bounds_or_missing():
    notes = list(estimate_notes([GENERATE, EVOLVE, JUDGE, MAGPIE, UNPRICED]))
    assert notes[0].startswith("Tokens in (~) are estimated")
    assert notes[1].startswith("Known requests are answered or in progress")
    assert notes[2].startswith("evolve submits requests in rounds")
    assert notes[3] == "A routing function gives evolve only a part of these rows: the numbers are upper bounds."
    assert notes[4] == "Not in the estimate: judge, whose requests depend on the answers of generate, evolve."
    assert notes[5] == "Not in the estimate: magpie, whose requests depend on its own answers."
    assert SERVER in notes[6]
    assert len(notes) == 7


def test_the_retries_of_cut_answers_have_a_note():
    first = replace(GENERATE, cost=Cost(Decimal(15), Decimal(30)), cost_without_retries=Cost(Decimal(1), Decimal(2)))
    assert "cut, the cost is at most $1.00" in list(estimate_notes([first]))[2]
    assert render(first)[1][-2:] == ["≤$15.00", "≤$30.00"]


def test_known_requests_with_cut_answers_are_counted_and_have_a_note():
    cut = replace(GENERATE, resubmitted=3, cost_without_retries=Cost(Decimal(1), Decimal(2)))
    notes = list(estimate_notes([cut]))
    assert notes[1].endswith("a run does not submit them again, except for those with cut answers.")
    assert notes[2].endswith("If no new answer is cut, the cost is at most $1.00.")
    assert notes[3].startswith("The token limit cut 3 known answers of generate: the requests are submitted again")
    assert render(cut)[1][3:6] == ["10", "4", "9"]


def test_answers_that_are_not_counted_have_a_note():
    judge = replace(GENERATE, step="judge", known=0, behind=("generate",), earlier_answers=100)
    note = (
        "The requests of judge depend on the answers of generate; the ledger has 100 answers of judge from earlier"
        " runs, which a run uses for equal requests."
    )
    assert note in list(estimate_notes([judge]))
    assert note not in list(estimate_notes([replace(judge, known=judge.requests)]))
    renamed = replace(GENERATE, answers_elsewhere=AnswersElsewhere("old/generate", 48, 50))
    [hint] = [each for each in estimate_notes([renamed]) if each.startswith("⚠️")]
    assert "'old/generate', has 48 of 50 sampled requests of generate" in hint
    assert 'set `reuse_from="old/generate"` on the LLM' in hint


def test_requests_without_a_bound_have_a_note():
    *_, note = estimate_notes([replace(UNPRICED, unknown_price=None)])
    assert note.startswith("? Some requests of mine set no limit on the tokens of their answers, or contain images")
