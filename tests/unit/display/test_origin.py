"""Tests of `display.origin`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distilabel_openai_batch.display.origin import describe_origin, list_batches
from distilabel_openai_batch.display.task_counts import TaskCounts
from tests.support.entries import COLLECTED_JOB, SCOPE

COUNTS = TaskCounts(100, 90, 10, {"400 invalid\nprompt\x1b": 10}, cut=2)
OPENAI_JOB = replace(
    COLLECTED_JOB,
    scope=replace(SCOPE, base_url="https://api.openai.com/v1/"),
    answered_by="gpt-4o-mini-2024-07-18",
    tokens_in=1_000_000,
    tokens_out=1_000_000,
)


def test_the_card_names_package_server_models_failures_batches_tokens_and_costs():
    facts = describe_origin(
        COUNTS, [OPENAI_JOB, replace(OPENAI_JOB, batch_id="batch_2")], "distilabel-openai-batch 1.0"
    )
    assert facts["made by"] == "distilabel-openai-batch 1.0"
    assert facts["server"] == "https://api.openai.com/v1/"
    assert facts["models"] == "gpt-4o-mini-2024-07-18"
    assert (facts["requests"], facts["answered"], facts["failed"]) == (100, 90, 10)
    assert facts["failures by reason"] == "10 × 400 invalid prompt\\x1b"
    assert facts["batches"] == "batch_1, batch_2"
    assert facts["tokens of the batches"] == "2,000,000 in, 2,000,000 out"
    assert "synchronous requests" not in facts


def test_the_card_names_twenty_batches_and_the_file_lists_all():
    jobs = [replace(OPENAI_JOB, batch_id=f"batch_{number}") for number in range(1_021)]
    assert describe_origin(COUNTS, jobs, "p")["batches"].endswith("batch_19 and 1,001 more")
    batches = json.loads(json.dumps(list_batches(jobs)))
    assert len(batches) == 1_021
    assert batches[0]["planned_at"] == "1970-01-01T00:16:40+00:00"
    assert (batches[0]["answered"], batches[0]["tokens_in"], batches[0]["status"]) == (50_000, 1_000_000, "completed")


def test_facts_that_are_unknown_are_left_out():
    assert describe_origin(TaskCounts(1), [], "p") == {"made by": "p", "requests": 1, "answered": 0, "failed": 0}
    unpriced = describe_origin(COUNTS, [replace(OPENAI_JOB, scope=SCOPE)], "p")
    assert "cost of the batches" not in unpriced


def test_cost_of_batches_is_a_lower_bound_beside_a_batch_without_a_price():
    pytest.importorskip("genai_prices")
    facts = describe_origin(COUNTS, [OPENAI_JOB, replace(OPENAI_JOB, scope=SCOPE)], "p")
    assert facts["cost of the batches"].startswith("≥ $")
