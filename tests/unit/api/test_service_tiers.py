"""Service tiers: names of models, refusals, and the tier that an answer names."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import read_answer
from distilabel_openai_batch.api.service_tiers import is_flex_name, is_tier_refused, lacks_capacity, read_tier


@pytest.mark.parametrize(
    "model",
    ["o3", "o3-2025-04-16", "o4-mini", "gpt-5", "gpt-5-nano", "gpt-5.4-pro", "gpt-6.1-terra", "gpt-12", "openai/gpt-5"],
)
def test_names_of_models_with_flex_are_known(model):
    assert is_flex_name(model)


@pytest.mark.parametrize(
    "model",
    [
        *("", "o1", "o3-mini", "o3-pro", "gpt-4o-mini", "gpt-3.5-turbo", "gpt-35-turbo", "gpt-5-chat-latest"),
        *("gpt-5-codex", "gpt-5-image", "gpt-realtime", "gpt-oss-120b", "my-gpt-5x", "text-embedding-3-small"),
    ],
)
def test_other_names_have_no_flex(model):
    assert not is_flex_name(model)


@pytest.mark.parametrize(
    ("status_code", "message", "is_refused"),
    [
        (400, "Unsupported service_tier: flex", True),
        (400, "Flex is not available for this model.", True),
        (422, "Extra inputs are not permitted: service_tier", True),
        (400, "Unsupported parameter: max_tokens", False),
        (400, "Please be flexible.", False),
        (429, "No capacity for flex.", False),
        (None, "flex", False),
    ],
)
def test_a_refused_tier_is_told_from_other_refusals(status_code, message, is_refused):
    assert is_tier_refused(status_code, message) is is_refused


@pytest.mark.parametrize(
    ("status_code", "code", "message", "lacks"),
    [
        (429, "resource_unavailable", "Resource unavailable.", True),
        (429, None, "Resource Unavailable", True),
        (429, "rate_limit_exceeded", "Slow down.", False),
        (429, "429", "Rate limit reached for gpt-5-mini.", False),
        (498, "capacity_exceeded", "Try later.", True),
        (503, "server_error", "Overloaded.", False),
    ],
)
def test_a_lack_of_capacity_is_told_from_a_rate_limit(status_code, code, message, lacks):
    assert lacks_capacity(status_code, code, message) is lacks


@pytest.mark.parametrize(
    ("tier", "read"),
    [(tier, tier) for tier in ("flex", "priority", "fast", "default")]
    + [(tier, "default") for tier in ("auto", "", None, 3, "flex;drop", ["flex"])],
)
def test_the_tier_of_an_answer_is_read(tier, read):
    body = {"service_tier": tier, "choices": [{"message": {"content": "Hi"}}]}
    assert read_tier(body) == read
    assert read_answer(body).tier == read
    spent = {**body, "choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    assert read_answer(spent).tier == read
