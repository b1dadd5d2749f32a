"""Bodies for models that refuse some of the parameters that `OpenAILLM` sends."""

import pytest

from distilabel_openai_batch.plugin.model_parameters import adapt_body, token_limit_parameter

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
        ("ft:gpt-4o:my-org:o1-data:AbC", "max_tokens"),
        ("ft:gpt-4o-mini:o3:gpt-5:x", "max_tokens"),
        ("ft:o4-mini-2025-04-16:gpt-4o::x", "max_completion_tokens"),
        ("openai/ft:gpt-5:org:chat:x", "max_completion_tokens"),
        ("openai/ft:gpt-4.1:org/o1:x", "max_tokens"),
        ("openai:o3-mini", "max_completion_tokens"),
        ("openai/gpt-5-nano", "max_completion_tokens"),
        ("olmo", "max_tokens"),
        ("o", "max_tokens"),
    ],
)
def test_model_name_decides_the_name_of_the_token_limit(model, parameter):
    assert token_limit_parameter(model) == parameter


def test_body_for_an_older_model_stays_unchanged():
    assert adapt_body({"model": "gpt-4o", **SENT}) == {"model": "gpt-4o", **SENT}


def test_body_for_a_reasoning_model_has_accepted_parameters_only():
    """The token limit gets its newer name; parameters with neutral values, which the model refuses, are left out."""
    body = adapt_body({"model": "o3-mini", **SENT})

    assert body == {"model": "o3-mini", "messages": [], "max_completion_tokens": 128}


def test_parameter_with_another_value_than_the_default_is_kept():
    """The server then refuses the request with its own message."""
    body = adapt_body({"model": "o3-mini", **SENT, "temperature": 0.5, "logprobs": True})

    assert body["temperature"] == 0.5
    assert body["logprobs"] is True


@pytest.mark.parametrize(
    ("model", "limit"),
    [("gpt-5", None), ("my-alias", None), ("gpt-5", "max_tokens"), ("my-alias", "max_completion_tokens")],
)
def test_token_limit_of_extra_body_replaces_the_other_one(model, limit):
    """Both names are never sent, because a server refuses both."""
    body = adapt_body({"model": model, **SENT, "max_completion_tokens": 7}, limit)

    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


@pytest.mark.parametrize(("limit", "model"), [("max_tokens", "gpt-5"), ("max_completion_tokens", "my-deployment")])
def test_field_overrides_the_name_of_the_token_limit(limit, model):
    """Names of deployments and of other servers' models say nothing about the parameter."""
    assert adapt_body({"model": model, **SENT}, limit)[limit] == 128
