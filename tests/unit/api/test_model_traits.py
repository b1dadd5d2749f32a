"""Traits of models, and bodies with the parameters that a model takes."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from distilabel_openai_batch.api.model_traits import (
    ROOM_FOR_REASONING,
    ModelTraits,
    find_refused_parameter,
    fit_body,
    fit_response,
    is_responses_only,
    name_limit,
    read_limit,
    refuses_tools,
    traits_of_refusals,
)
from distilabel_openai_batch.structured_output.options import parse_structured_output
from tests.support.schemas import COUNT

REASONS = ModelTraits("max_completion_tokens", reasons=True)
BODY = {"model": "m", "messages": [], "max_tokens": 128, "temperature": 1.0, "logprobs": False}
TOOLS = parse_structured_output({"schema": COUNT, "mode": "tools"})
JSON_SCHEMA = parse_structured_output({"schema": COUNT, "mode": "json_schema"})


def test_default_limit_of_a_model_that_reasons_leaves_room():
    body = fit_body(BODY, REASONS, has_default_limit=True)

    assert body == {"model": "m", "messages": [], "max_completion_tokens": ROOM_FOR_REASONING}
    assert fit_body(body, REASONS, has_default_limit=True) == body


def test_limit_of_the_user_is_kept():
    assert read_limit(fit_body(BODY, REASONS, has_default_limit=False)) == 128


@pytest.mark.parametrize(
    ("traits", "change"),
    [(ModelTraits(), {}), (ModelTraits("max_tokens"), {}), (REASONS, {"reasoning_effort": "none"})],
    ids=["unknown model", "older model", "no effort"],
)
def test_default_limit_stays_where_nothing_reasons(traits, change):
    assert read_limit(fit_body(BODY | change, traits, has_default_limit=True)) == 128


def test_limit_is_named_both_ways():
    newer = name_limit(BODY, "max_completion_tokens")

    assert newer == {"model": "m", "messages": [], "max_completion_tokens": 128}
    assert name_limit(newer, "max_tokens") == {"model": "m", "messages": [], "max_tokens": 128}
    assert name_limit(BODY, "max_tokens") is BODY


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use another one.", "max_tokens"),
        ("Unrecognized request argument supplied: max_completion_tokens", "max_completion_tokens"),
        (
            "Function tools with reasoning_effort are not supported for gpt-5.6-terra in /v1/chat/completions. To use"
            " function tools, use /v1/responses or set reasoning_effort to 'none'.",
            "tools",
        ),
        ("max_tokens is too large: 200000.", None),
        ("Unsupported value: 'temperature' does not support 0.5 with this model.", None),
    ],
)
def test_refusals_of_parameters_are_read(message, parameter):
    assert find_refused_parameter(message) == parameter


@pytest.mark.parametrize(
    ("refused", "traits"),
    [
        ({"max_tokens"}, REASONS),
        ({"max_completion_tokens"}, ModelTraits("max_tokens")),
        ({"max_tokens", "max_completion_tokens"}, ModelTraits()),
        ({"tools"}, ModelTraits(refuses_tools=True)),
        (set(), ModelTraits()),
    ],
)
def test_refusals_show_traits(refused, traits):
    assert traits_of_refusals(refused) == traits


@pytest.mark.parametrize(
    ("model", "effort", "is_refused"),
    [
        ("gpt-5.6-terra", None, True),
        ("gpt-6-luna", None, True),
        ("openai/gpt-6.1-sol", "low", True),
        ("ft:gpt-6-luna:org::x", None, True),
        ("gpt-5.4", None, False),
        ("gpt-5.4", "medium", True),
        ("gpt-6-luna", "none", False),
        ("gpt-5", "high", False),
        ("gpt-5.1", "high", False),
        ("o3", "high", False),
        ("gpt-4o", None, False),
        ("llama-3", None, False),
    ],
)
def test_model_name_tells_that_function_tools_are_refused(model, effort, is_refused):
    assert refuses_tools(model, effort) is is_refused


@pytest.mark.parametrize(
    ("model", "traits"), [("gpt-6-luna", REASONS), ("my-alias", ModelTraits(refuses_tools=True))], ids=["name", "trait"]
)
def test_schema_moves_from_a_refused_tool_to_the_response_format(model, traits):
    """The body then equals the body of the mode `json_schema`."""
    body = {"model": model, "messages": []}

    fitted = fit_body(TOOLS.apply_to(body), traits, has_default_limit=False)

    assert fitted == JSON_SCHEMA.apply_to(body)


def test_tools_of_the_user_stay():
    """No `response_format` replaces several tools, or a tool that the model may decline."""
    tool = {"type": "function", "function": {"name": "weather"}}
    for tools, choice in (([tool, tool], {"type": "function"}), ([tool], "auto")):
        body = {"model": "gpt-6-luna", "tools": tools, "tool_choice": choice}
        assert fit_body(body, ModelTraits(), has_default_limit=False) == body


@pytest.mark.parametrize(
    ("model", "is_only"),
    [
        ("gpt-5-pro", True),
        ("gpt-5.2-pro-2025-12-11", True),
        ("openai/gpt-5.2-pro", False),
        ("o1-pro", True),
        ("gpt-5.1-codex-max", True),
        ("codex-mini-latest", True),
        ("o4-mini-deep-research", True),
        ("computer-use-preview", True),
        ("gpt-6-luna", False),
        ("gpt-5.4-pros", False),
        ("gpt-4o", False),
        ("ft:gpt-4o:codex:pro", False),
        ("my-codex-deployment", False),
        ("qwen/qwen3-pro", False),
    ],
)
def test_model_name_tells_that_only_the_responses_api_serves_it(model, is_only):
    assert is_responses_only(model) is is_only


def test_models_that_the_sdk_lists_for_the_responses_api_are_found():
    shared = pytest.importorskip("openai.types.shared")
    if not hasattr(shared, "ResponsesModel"):
        pytest.skip("the release of the SDK has no list")
    [*_, listed] = get_args(shared.ResponsesModel)

    assert all(is_responses_only(model) for model in get_args(listed))
    assert not any(
        is_responses_only(model) for model in get_args(shared.ChatModel) if not re.search("pro|codex", model)
    )


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"temperature": 1.0, "top_p": 1.0}, {}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"max_output_tokens": 128}, {"max_output_tokens": ROOM_FOR_REASONING}),
        (
            {"max_output_tokens": 128, "reasoning": {"effort": "none"}},
            {"max_output_tokens": 128, "reasoning": {"effort": "none"}},
        ),
    ],
)
def test_request_of_a_response_fits_a_model_that_reasons(body, changed):
    assert fit_response(body, has_default_limit=True) == changed
    assert fit_response(body, has_default_limit=False).get("max_output_tokens") == body.get("max_output_tokens")
