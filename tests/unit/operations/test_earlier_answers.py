"""Tests of `operations.earlier_answers`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.operations.earlier_answers import count_earlier_answers, find_elsewhere
from distilabel_openai_batch.pricing.step_estimate import AnswersElsewhere
from tests.unit.ledger.samples import SCOPE, make_answer, plan_ended_job, record

DIGESTS = [f"{number:032x}" for number in range(4)]
NAMES = [f"{digest}-0" for digest in DIGESTS]


@pytest.fixture
def reader(tmp_path):
    """Reader of a ledger that has two answers and two pending requests of the scope `pipeline/task`."""
    ledger = Ledger(tmp_path, SCOPE)
    record(ledger, plan_ended_job(ledger, *NAMES), **{digest: make_answer("a") for digest in DIGESTS[:2]})
    ledger.close()
    return LedgerReader(tmp_path)


def test_only_answers_of_the_scope_are_counted(reader, tmp_path):
    assert count_earlier_answers(reader, SCOPE) == 2
    assert count_earlier_answers(reader, replace(SCOPE, task="other")) == 0
    assert count_earlier_answers(LedgerReader(tmp_path / "none"), SCOPE) == 0


@pytest.mark.parametrize("renamed", [{"pipeline": "new"}, {"task": "new"}])
def test_a_renamed_scope_finds_its_answers(reader, renamed):
    scope = replace(SCOPE, **renamed)
    assert find_elsewhere(reader, scope, ["new"], NAMES) == AnswersElsewhere("pipeline/task", 4, 4)
    assert find_elsewhere(reader, scope, ["new"], [NAMES[0], "none-0"]) == AnswersElsewhere("pipeline/task", 1, 2)


def test_fewer_answers_siblings_other_servers_and_known_requests_have_no_hint(reader, tmp_path):
    scope = replace(SCOPE, task="new")
    assert find_elsewhere(reader, scope, [], [NAMES[0], "x-0", "y-0"]) is None
    assert find_elsewhere(reader, scope, ["task"], NAMES) is None
    assert find_elsewhere(reader, replace(scope, base_url="https://other.example/v1/"), [], NAMES) is None
    assert find_elsewhere(reader, SCOPE, [], NAMES) is None
    assert find_elsewhere(reader, scope, [], []) is None
    assert find_elsewhere(LedgerReader(tmp_path / "none"), scope, [], NAMES) is None
