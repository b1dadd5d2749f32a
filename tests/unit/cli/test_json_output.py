"""Tests of the JSON objects that commands print; their keys are part of the interface."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal

import orjson

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.cli.json_output import costs_json, estimates_json, job_json
from distilabel_openai_batch.display.timings import Timing
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost
from distilabel_openai_batch.pricing.step_estimate import StepEstimate
from tests.support.ledgers import LedgerWriter

SCOPE = ScopeName("preferences", "generate", "http://one/v1/")
COST = Cost(Decimal("1.5"), Decimal(3))


def test_job_json_has_scope_times_and_cost(tmp_path):
    with closing(LedgerWriter(tmp_path)) as writer:
        writer.job(writer.scope(SCOPE.pipeline, SCOPE.task, SCOPE.base_url), 0.0, requests=3)
    [job] = LedgerReader(tmp_path).jobs()
    fields = job_json(job, Timing(age=9.0, took=2.0))
    assert (fields["scope"], fields["task"], fields["base_url"]) == ("preferences/generate", "generate", SCOPE.base_url)
    assert (fields["age_seconds"], fields["took_seconds"], fields["eta_seconds"]) == (9.0, 2.0, None)
    assert (fields["cost"], fields["cost_at_once"], fields["saved"]) == (None, None, None)
    assert "long" not in fields


def test_costs_json_sums_known_costs():
    entries = [
        CostEntry(SCOPE, "known", 2, Usage(10, 5), COST, 0),
        CostEntry(SCOPE, "unknown", 1, Usage(1, 1), None, 1),
    ]
    costs = costs_json(entries)
    assert [scope["cost"] for scope in costs["scopes"]] == [1.5, None]
    assert costs["scopes"][0]["scope"] == "preferences/generate"
    assert costs["total"] == {
        "answers": 3,
        "unknown": 1,
        "tokens_in": 11,
        "tokens_out": 6,
        "tokens_cached": 0,
        "tokens_written": 0,
        "tokens_reasoning": 0,
        "not_collected_in": 0,
        "not_collected_out": 0,
        "cost": 1.5,
        "cost_at_once": 3.0,
        "saved": 1.5,
        "is_lower_bound": True,
    }


def test_costs_json_of_nothing_is_zero():
    assert costs_json([])["total"]["cost"] == 0.0


def test_the_cost_without_retries_is_a_number_in_json():
    estimate = StepEstimate("a", "m", SCOPE.base_url, cost=COST, cost_without_retries=COST)
    [step] = orjson.loads(orjson.dumps(estimates_json([estimate])))["steps"]
    assert step["cost_without_retries"] == step["cost"] == 1.5


def test_estimates_json_is_complete_only_if_every_step_has_a_cost():
    priced = StepEstimate("generate", "m", "u", rows=4, requests=4, known=1, usage=Usage(30, 90), cost=COST)
    unpriced = StepEstimate("judge", "m", "u", rows=4, requests=4)
    dependent = StepEstimate("evolve", "m", "u", depends_on=("generate",))
    estimates = estimates_json([priced])
    assert estimates["is_complete"] is True
    assert estimates["total"]["cost"] == 1.5
    [step] = estimates["steps"]
    assert (step["to_buy"], step["cost"], step["saved"]) == (3, 1.5, 1.5)
    assert step["usage"] == Usage(30, 90).counts()
    assert estimates_json([priced, unpriced])["is_complete"] is False
    assert estimates_json([priced, dependent])["is_complete"] is False
    assert estimates_json([unpriced])["total"]["cost"] is None
