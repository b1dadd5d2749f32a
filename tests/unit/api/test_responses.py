"""Translation between chat completions and the Responses API, held against the SDK's types."""

from __future__ import annotations

import functools
from typing import Any, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import TypeAdapter

from distilabel_openai_batch.api.outcomes import Answer, Failure, read_answer
from distilabel_openai_batch.api.responses import (
    UntranslatableError,
    identify,
    is_response,
    translate_messages,
    translate_request,
    translate_response,
)
from distilabel_openai_batch.api.truncation import count_reasoning_tokens, find_cut_choices
from tests.support.strategies import BODIES, JSON, TEXT

# The time of an example depends on the machine.
SLOW_MACHINE = functools.partial(settings, deadline=None, suppress_health_check=list(HealthCheck))

CHAT = {"model": "gpt-5-pro", "messages": [{"role": "user", "content": "Hello"}]}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}}
USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 41,
}


@functools.cache
def sdk_type(name: str) -> TypeAdapter[Any] | None:
    """Return the validator of one of the SDK's types; `None` for a release that lacks the type."""
    try:
        from openai.types import responses
        from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
    except ImportError:
        return None
    types = vars(responses) | {"ResponseCreateParams": ResponseCreateParamsNonStreaming}
    return TypeAdapter(types[name])


def check_type(name: str, value: object) -> None:
    """Check a value against one of the SDK's types, if the installed release has the type."""
    if adapter := sdk_type(name):
        adapter.validate_python(value)


def check_request(body: dict[str, Any]) -> None:
    """Check the body of a request: the SDK's type knows each parameter, and the type of its value."""
    check_type("ResponseCreateParams", body)
    if sdk_type("ResponseCreateParams"):
        from openai.types.responses import response_create_params

        assert body.keys() <= get_type_hints(response_create_params.ResponseCreateParamsNonStreaming).keys()


def text(*texts: str, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": part, "annotations": []} for part in texts]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": parts, **fields}


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the body of a response with the fields that every response has."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-5-pro-2025-10-06",
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **fields,
    }


CALL = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "clock", "arguments": '{"zone":"UTC"}'}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
}
REFUSAL = {"type": "refusal", "refusal": "I can't."}
SPENT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}


# The body of a request


@pytest.mark.parametrize(
    ("chat", "fields"),
    [
        ({}, {}),
        ({"max_tokens": 9}, {"max_output_tokens": 9}),
        ({"max_tokens": 9, "max_completion_tokens": 12}, {"max_output_tokens": 12}),
        ({"max_tokens": 9, "max_output_tokens": 16}, {"max_output_tokens": 16}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        (
            {"reasoning_effort": "low", "reasoning": {"summary": "auto"}},
            {"reasoning": {"effort": "low"} | {"summary": "auto"}},
        ),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        ({"response_format": FORMAT}, {"text": {"format": {"type": "json_schema", **FORMAT["json_schema"]}}}),
        ({"tools": [TOOL]}, {"tools": [{"type": "function", "strict": False, **TOOL["function"]}]}),
        ({"tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search"}]}),
        ({"tool_choice": "none"}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        ({"logprobs": True, "top_logprobs": 2}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        ({"logprobs": False, "top_logprobs": None, "stop": None, "n": 1}, {}),
        ({"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}}, {}),
        (
            {"temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}},
            {"temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"}},
        ),
        ({"store": True, "service_tier": "flex"}, {"store": True, "service_tier": "flex"}),
    ],
)
def test_parameters_are_translated(chat, fields):
    body = translate_request(CHAT | chat)

    assert body == {"model": "gpt-5-pro", "input": CHAT["messages"], "store": False} | fields
    check_request(body)


PARTS = {
    "text": st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    "image": st.fixed_dictionaries(
        {
            "type": st.just("image_url"),
            "image_url": st.fixed_dictionaries({"url": TEXT}, optional={"detail": st.just("high")}),
        }
    ),
}
TOOL_CALL = st.fixed_dictionaries(
    {"id": TEXT, "type": st.just("function"), "function": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT})}
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user"]),
            "content": TEXT | st.lists(st.one_of(*PARTS.values()), min_size=1),
        }
    )
    | st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT | st.lists(PARTS["text"], min_size=1)})
    | st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none(), "tool_calls": st.lists(TOOL_CALL, min_size=1, max_size=2)}
    )
    | st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": TEXT, "content": TEXT}),
    min_size=1,
    max_size=4,
)
CHATS = st.fixed_dictionaries(
    {"model": TEXT, "messages": MESSAGES, "n": st.just(1), "stop": st.none(), "max_tokens": st.integers(1, 99)},
    optional={
        "max_completion_tokens": st.integers(1, 99),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "frequency_penalty": st.just(0.0),
        "presence_penalty": st.just(0.0),
        "logprobs": st.booleans(),
        "top_logprobs": st.none() | st.integers(0, 20),
        "reasoning_effort": st.sampled_from(["low", "medium", "high"]),
        "verbosity": st.sampled_from(["low", "high"]),
        "response_format": st.sampled_from([FORMAT, {"type": "json_object"}, {"type": "text"}]),
        "tools": st.just([TOOL]),
        "tool_choice": st.sampled_from(["auto", "required", {"type": "function", "function": {"name": "clock"}}]),
        "metadata": st.dictionaries(TEXT, TEXT, max_size=2),
        "user": TEXT,
    },
)


@given(CHATS)
@SLOW_MACHINE(max_examples=20)
def test_each_chat_becomes_a_request_of_the_sdk(chat):
    check_request(translate_request(chat))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("stop", "\n"),
        ("stop", ["a"]),
        ("seed", 0),
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("modalities", ["text", "audio"]),
        ("functions", [{"name": "f"}]),
    ],
)
def test_parameters_without_a_counterpart_are_refused(name, value):
    with pytest.raises(UntranslatableError, match=f"no parameter `{name}`"):
        translate_request(CHAT | {name: value})


@pytest.mark.parametrize(
    ("messages", "items"),
    [
        (
            [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}],
            [{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}]}],
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.org/b.png"}}]}],
            [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "https://a.org/b.png", "detail": "auto"}],
                }
            ],
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]}],
            [{"role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "low"}]}],
        ),
        (
            [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
            [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}],
        ),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            [{"role": "assistant", "content": "ab"}],
        ),
        (
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "12:00"},
            ],
            [
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "12:00"},
            ],
        ),
    ],
)
def test_messages_are_translated(messages, items):
    assert translate_messages(messages) == items
    check_type("ResponseInputParam", items)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "function", "content": "12:00"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}]},
        {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
    ],
)
def test_messages_without_a_counterpart_are_refused(message):
    with pytest.raises(UntranslatableError, match="/v1/responses has no"):
        translate_messages([message])


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT})))
@SLOW_MACHINE(max_examples=10)
def test_messages_of_text_are_input_items(messages):
    """All chats of one shape share a template."""
    assert translate_messages(messages) == messages


def test_identity_lacks_parameters_that_models_refuse_or_programs_leave_out():
    body = {"model": "m", "input": [], "temperature": 1.0, "top_p": 1.0, "store": False}

    assert identify(body) == {"model": "m", "input": []}
    assert identify(body | {"temperature": 0.5, "store": True}) == {
        "model": "m",
        "input": [],
        "temperature": 0.5,
        "store": True,
    }


# The body of an answer


@pytest.mark.parametrize(
    ("body", "message", "finish_reason"),
    [
        (response(text("Hello")), {"content": "Hello"}, "stop"),
        (response(text("")), {"content": ""}, "stop"),
        (
            response(REASONING, text("Hel", "lo"), text("!")),
            {"content": "Hello!", "reasoning_content": "First.\n\nThen."},
            "stop",
        ),
        (
            response(text("Let me look.", phase="commentary"), text("Yes.", phase="final_answer")),
            {"content": "Yes."},
            "stop",
        ),
        (response(text("Looking.", phase="commentary")), {"content": "Looking."}, "stop"),
        (response(text() | {"content": [REFUSAL]}), {"content": None, "refusal": "I can't."}, "stop"),
        (response(REASONING, CALL), {"content": None}, "tool_calls"),
        (response(REASONING), {"content": None}, "stop"),
        (response(REASONING, **SPENT), {"content": None}, "length"),
        (response(**SPENT), {"content": None}, "length"),
        (response(text("Hel"), **SPENT), {"content": "Hel"}, "length"),
        (
            response(text("H"), status="incomplete", incomplete_details={"reason": "content_filter"}),
            {"content": "H"},
            "content_filter",
        ),
        (response(text("H"), status="incomplete"), {"content": "H"}, "length"),
    ],
)
def test_response_becomes_a_completion(body, message, finish_reason):
    assert is_response(body)
    check_type("Response", body)
    completion = translate_response(body)

    [choice] = completion["choices"]
    assert choice["message"] == choice["message"] | message
    assert choice["finish_reason"] == finish_reason
    assert completion["usage"]["completion_tokens_details"] == {"reasoning_tokens": 20}
    ChatCompletion.model_validate(completion)


def test_function_calls_become_tool_calls():
    [choice] = translate_response(response(CALL, CALL | {"call_id": "call_2"}))["choices"]

    [first, second] = choice["message"]["tool_calls"]
    assert first == {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}}
    assert second["id"] == "call_2"


def test_log_probabilities_keep_their_form():
    entry = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    item = text("Hi")
    item["content"][0]["logprobs"] = [entry]

    assert translate_response(response(item))["choices"][0]["logprobs"] == {"content": [entry]}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "queued", "in_progress"])
def test_response_without_output_has_no_choices(status):
    assert translate_response(response(status=status))["choices"] == []


@given(BODIES, JSON, JSON, JSON)
@SLOW_MACHINE(max_examples=25)
def test_senseless_responses_are_read(body, output, usage, item):
    """No body raises an error; `OpenAILLM` finds a list of choices."""
    items = [output, {"type": "message", "content": item}, {"type": "reasoning", "summary": output, "content": item}]
    for value in (output, items):
        completion = translate_response(body | {"output": value, "usage": usage, "incomplete_details": item})
        assert isinstance(completion["choices"], list)
        read_answer(body | {"output": value, "usage": usage, "status": item})


# Outcomes


def test_answer_counts_the_tokens_of_a_response():
    outcome = read_answer(response(text("Hello")))

    assert isinstance(outcome, Answer)
    assert (outcome.tokens, outcome.token_details, count_reasoning_tokens(outcome)) == ((11, 30), (4, 2, 20), 20)
    assert outcome.received_body["output"] == [text("Hello")]
    assert outcome.body["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize(
    ("body", "cut"),
    [(response(text("Hel"), **SPENT), [0]), (response(text("Hello")), []), (response(REASONING, CALL), [])],
)
def test_cut_responses_are_found(body, cut):
    outcome = read_answer(body)

    assert isinstance(outcome, Answer)
    assert find_cut_choices(outcome) == cut


@pytest.mark.parametrize(
    ("body", "code", "is_transient"),
    [
        (response(REASONING, **SPENT), "length", False),
        (response(), "missing_choice", False),
        (response(status="failed", error={"code": "server_error", "message": "No."}), "server_error", True),
        (
            response(status="failed", error={"code": "rate_limit_exceeded", "message": "No."}),
            "rate_limit_exceeded",
            True,
        ),
        (response(status="failed", error={"code": "invalid_prompt", "message": "No."}), "invalid_prompt", False),
    ],
)
def test_response_without_an_answer_is_a_failure(body, code, is_transient):
    outcome = read_answer(body)

    assert isinstance(outcome, Failure)
    assert (outcome.code, outcome.is_transient) == (code, is_transient)
