"""Tests of `pricing.job_costs`."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.job_costs import (
    CostEntry,
    cost_of_job,
    costs_by_model,
    explain_unknown_cost,
)
from distilabel_openai_batch.pricing.prices import Cost, exact_dollars, sum_known
from tests.support.entries import COLLECTED_JOB, SCOPE

pytest.importorskip("genai_prices")

# A million tokens of gpt-4o-mini: 15 cents in, half of that in a batch.
JOB = replace(COLLECTED_JOB, answered=2, tokens_in=1_000_000, answered_by="gpt-4o-mini-2024-07-18")
PRICED = Cost(Decimal("0.075"), Decimal("0.15"))
UNPRICED_JOB = replace(JOB, model="mine", answered_by="mine", answered=3)
OTHER_SCOPE = ScopeName("other", "", SCOPE.base_url)


@pytest.fixture(autouse=True)
def openai_prices(monkeypatch):
    """Give the address of the jobs' server OpenAI's prices."""
    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])


@pytest.mark.parametrize(
    ("job", "cost"),
    [
        pytest.param(JOB, PRICED, id="batch"),
        pytest.param(
            replace(JOB, batch_id=None), Cost(PRICED.full_price, PRICED.full_price), id="synchronous: the full price"
        ),
        pytest.param(replace(JOB, answered_by="gpt-4o-mini-of-mine"), PRICED, id="the requested model has a price"),
        pytest.param(replace(JOB, answered=0, tokens_in=0), Cost(), id="no answers"),
        pytest.param(replace(JOB, tokens_in=0), None, id="no tokens reported"),
        pytest.param(replace(JOB, tokens_in=0, answered_by="omni-moderation-latest"), Cost(), id="free model"),
        pytest.param(UNPRICED_JOB, None, id="no price"),
    ],
)
def test_a_job_costs_the_list_price_of_its_tokens(job, cost):
    assert cost_of_job(job) == cost


def test_the_reason_of_an_unknown_cost_is_missing_tokens_or_a_missing_price():
    assert "are not collected yet, were forgotten" in explain_unknown_cost(replace(JOB, tokens_in=0))
    assert "The price of mine is not known" in explain_unknown_cost(UNPRICED_JOB)
    assert "The price of gpt-4o-mini is not known" in explain_unknown_cost(replace(JOB, answered_by=""))


def test_costs_are_grouped_by_scope_and_model():
    jobs = [
        JOB,
        UNPRICED_JOB,
        replace(JOB, answered=0, tokens_in=0, answered_by="never answered"),
        JOB,
        replace(JOB, scope=OTHER_SCOPE, answered_by=""),
        replace(UNPRICED_JOB, scope=OTHER_SCOPE, answered_by="gpt-4o-mini", tokens_in=0),
    ]
    assert costs_by_model(jobs) == [
        CostEntry(SCOPE, "gpt-4o-mini-2024-07-18", 4, Usage(2_000_000, 0), PRICED + PRICED, 0),
        CostEntry(SCOPE, "mine", 3, Usage(1_000_000, 0), None, 3),
        CostEntry(OTHER_SCOPE, "gpt-4o-mini", 5, Usage(1_000_000, 0), replace(PRICED, is_lower_bound=True), 3),
    ]


@pytest.mark.parametrize(("model", "cost"), [("gpt-4o-mini", PRICED), ("mine", None)])
def test_answers_that_are_all_empty_have_the_cost_of_their_tokens(model, cost):
    """No answer is usable, and all tokens are billed: the rows of `costs` add up to the total."""
    job = replace(JOB, answered=0, failed=2, model=model, answered_by=model)
    [entry] = costs_by_model([job])
    assert (entry.answers, entry.cost) == (0, cost)


def test_sum_with_an_unknown_cost_is_a_lower_bound():
    assert sum_known([PRICED, None, PRICED]) == replace(PRICED + PRICED, is_lower_bound=True)
    assert sum_known([sum_known([PRICED, None]), PRICED]) == replace(PRICED + PRICED, is_lower_bound=True)
    assert sum_known([None, None]) is None
    assert sum_known([]) is None


def test_lower_bound_is_no_number_of_dollars_for_machines():
    assert [exact_dollars(cost) for cost in (PRICED, None, sum_known([PRICED, None]))] == [0.075, None, None]


def test_the_tiers_of_the_answers_decide_the_cost():
    """Half of the tokens is billed by the flex tier, the rest at full price; long prompts count in their tier."""
    long_prompt = Usage.of_request(200_000, 0)
    job = replace(
        JOB,
        batch_id=None,
        long_usages=(Usage(200_000, 0), Usage(200_000, 0)),
        usage_by_tier=(("flex", long_prompt + Usage(300_000, 0)),),
    )
    half = Decimal("0.075")
    assert cost_of_job(job) == Cost(half / 2 + half, 2 * half)
    assert cost_of_job(replace(job, usage_by_tier=(("flex", job.usage),))) == Cost(half, 2 * half)
