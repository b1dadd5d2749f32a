"""Fields of the lanes: defaults, YAML, runtime parameters, and wrong values."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distilabel_openai_batch import AzureOpenAIBatchLLM, OpenAIBatchLLM
from distilabel_openai_batch.engine.lanes import LaneSettings
from tests.unit.plugin.stubs import CONNECTION

FIELDS = {"lane": "auto", "flex_below": 9, "flex_fallback": True, "supports_flex": True, "max_concurrency": 3}


@pytest.mark.parametrize("model", [OpenAIBatchLLM, AzureOpenAIBatchLLM])
def test_without_fields_all_requests_go_into_batches(model):
    assert model(**CONNECTION).lane_settings(wait=True) == LaneSettings()


def test_the_fields_pass_through_a_dump_and_runtime_parameters():
    """YAML holds the dump."""
    llm = OpenAIBatchLLM(**CONNECTION, **FIELDS)
    expected = LaneSettings("auto", 0, 9, flex_fallback=True, supports_flex=True, max_concurrency=3)
    assert OpenAIBatchLLM.from_dict(llm.dump()).lane_settings(wait=True) == expected
    other = OpenAIBatchLLM(**CONNECTION)
    other.set_runtime_parameters(FIELDS)
    assert other.lane_settings(wait=True) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("lane", "fast"), ("lane", None), ("flex_below", -1), ("flex_below", None), ("max_concurrency", 0)],
        *[("max_concurrency", 10_001), ("flex_fallback", "sometimes"), ("supports_flex", 7)],
    ],
)
def test_wrong_values_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        OpenAIBatchLLM(**CONNECTION, **{name: value})


@pytest.mark.parametrize(
    ("fields", "requests", "may"),
    [
        ({}, 1, False),
        ({"sync_below": 5}, 4, True),
        ({"sync_below": 5}, 5, False),
        ({"lane": "sync"}, 9_000, True),
        ({"lane": "flex"}, 1, False),
        ({"lane": "flex", "flex_fallback": True}, 1, True),
        ({"flex_fallback": True}, 1, False),
    ],
)
def test_an_estimate_counts_the_full_price_where_it_may_be_billed(fields, requests, may):
    llm = OpenAIBatchLLM(**CONNECTION, **fields)
    assert llm.lane_settings(wait=True).may_cost_full_price(requests) is may
