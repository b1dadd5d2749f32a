"""Reasoning models of the sandbox: tokens that reasoning takes, and parameters that these models refuse."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.sandbox.model.answers import answer_request
from distilabel_openai_batch.sandbox.settings import Settings

from .conftest import CHAT, chat_body

TOOL = {"type": "function", "function": {"name": "clock"}}
SETTINGS = Settings(aliases={"deployment": "gpt-6-luna"}, reasoning_tokens=100)


def reply(model="gpt-6-luna", **more):
    return answer_request(CHAT, chat_body(**more) | {"model": model}, SETTINGS)


def spent(body) -> tuple[int, int]:
    """Return the tokens of an answer, and the part of reasoning."""
    return body["usage"]["completion_tokens"], body["usage"]["completion_tokens_details"]["reasoning_tokens"]


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-5", "o3", "deployment"])
def test_small_limit_is_spent_on_reasoning(model):
    """The answer has status 200, no text and the finish reason `length`, and all tokens are billed."""
    answer = reply(model, max_completion_tokens=100, n=2)

    assert answer.status == 200
    for choice in answer.body["choices"]:
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert spent(answer.body) == (200, 200)


def test_reasoning_counts_against_the_limit():
    cut = reply(max_completion_tokens=102).body
    whole = reply(max_completion_tokens=5_000).body

    assert cut["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["message"]["content"].startswith(cut["choices"][0]["message"]["content"])
    assert spent(cut) == (102, 100)
    assert spent(whole)[1] == 100


@pytest.mark.parametrize(
    ("model", "effort", "tokens"),
    [
        ("gpt-6-luna", "none", 0),
        ("gpt-6-luna", "low", 25),
        ("gpt-6-luna", "high", 400),
        ("gpt-5.1", None, 0),
        ("gpt-5.1", "medium", 100),
        ("gpt-4o", None, 0),
        ("gpt-5-chat-latest", None, 0),
    ],
)
def test_effort_and_model_decide_the_tokens_of_reasoning(model, effort, tokens):
    assert spent(reply(model, reasoning_effort=effort).body)[1] == tokens


@pytest.mark.parametrize(
    ("model", "change", "code", "message"),
    [
        ("gpt-6-luna", {"max_tokens": 9}, "unsupported_parameter", "'max_tokens' is not supported with this model"),
        ("deployment", {"max_tokens": 9}, "unsupported_parameter", "'max_tokens' is not supported with this model"),
        ("gpt-6-luna", {"temperature": 0.5}, "unsupported_value", "'temperature' does not support 0.5"),
        ("gpt-6-luna", {"tools": [TOOL]}, None, "Function tools with reasoning_effort are not supported"),
        ("gpt-5.4", {"tools": [TOOL], "reasoning_effort": "low"}, None, "Function tools with reasoning_effort"),
        ("gpt-6-luna", {"reasoning_effort": "hihg"}, "invalid_value", "Invalid value: 'hihg'."),
        ("gpt-4o", {"reasoning_effort": "low"}, None, "Unrecognized request argument supplied: reasoning_effort"),
    ],
)
def test_reasoning_models_refuse_parameters_as_openai_does(model, change, code, message):
    answer = reply(model, **change)

    assert (answer.status, answer.body["error"]["code"]) == (400, code)
    assert message in answer.body["error"]["message"]


@pytest.mark.parametrize(
    "change", [{"tools": [TOOL], "reasoning_effort": "none"}, {"temperature": 0.5, "reasoning_effort": "none"}]
)
def test_model_that_does_not_reason_takes_the_same_parameters(change):
    assert reply(**change).status == 200


def test_model_behind_an_alias_is_named_in_the_answer():
    assert reply("deployment").body["model"] == "gpt-6-luna"
