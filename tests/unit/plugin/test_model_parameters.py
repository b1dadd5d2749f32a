"""What a request says to models that refuse some of what `OpenAILLM` sends."""

import pytest

from distilabel_openai_batch.plugin.model_parameters import fitted, token_limit_parameter

SENT = {
    "messages": [],
    "logprobs": False,
    "max_tokens": 128,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "temperature": 1.0,
    "top_p": 1.0,
}


@pytest.mark.parametrize(
    ("model", "parameter"),
    [
        ("gpt-4o-mini", "max_tokens"),
        ("gpt-4.1", "max_tokens"),
        ("gpt-35-turbo-16k", "max_tokens"),
        ("gpt-5-chat-latest", "max_tokens"),
        ("meta-llama/Llama-3", "max_tokens"),
        ("qwen2.5:7b", "max_tokens"),
        ("o1", "max_completion_tokens"),
        ("o3-mini-2025-01-31", "max_completion_tokens"),
        ("gpt-5", "max_completion_tokens"),
        ("gpt-5.1-mini", "max_completion_tokens"),
        ("gpt-10", "max_completion_tokens"),
        ("ft:o4-mini:us::x", "max_completion_tokens"),
        ("openai/gpt-5-nano", "max_completion_tokens"),
        ("olmo", "max_tokens"),
        ("o", "max_tokens"),
    ],
)
def test_the_models_name_says_what_the_limit_is_called(model, parameter):
    """As of today's models."""
    assert token_limit_parameter(model) == parameter


def test_an_older_model_is_sent_what_openaillm_sends():
    """Nothing is changed for it."""
    assert fitted({"model": "gpt-4o", **SENT}) == {"model": "gpt-4o", **SENT}


def test_a_reasoning_model_is_sent_what_it_takes():
    """The limit under its new name, and nothing that it would refuse and that says nothing."""
    assert fitted({"model": "o3-mini", **SENT}) == {"model": "o3-mini", "messages": [], "max_completion_tokens": 128}


def test_what_says_something_is_kept():
    """The server refuses it in its own words."""
    body = fitted({"model": "o3-mini", **SENT, "temperature": 0.5, "logprobs": True})
    assert body["temperature"] == 0.5
    assert body["logprobs"] is True


def test_a_limit_of_ones_own_counts():
    """From `extra_body`, beside which the other one may not stand."""
    assert fitted({"model": "gpt-5", **SENT, "max_completion_tokens": 7})["max_completion_tokens"] == 7
    assert "max_tokens" not in fitted({"model": "gpt-5", **SENT, "max_completion_tokens": 7})


@pytest.mark.parametrize(("limit", "other"), [("max_tokens", "gpt-5"), ("max_completion_tokens", "my-deployment")])
def test_the_field_overrides_the_name(limit, other):
    """For deployments, and for models that are not OpenAI's."""
    assert fitted({"model": other, **SENT}, limit)[limit] == 128
