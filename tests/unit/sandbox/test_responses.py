"""`/v1/responses` of the sandbox: answers, limits, and refusals in OpenAI's words."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.sandbox.model.answers import answer_request
from distilabel_openai_batch.sandbox.settings import Settings

from .conftest import CHAT

RESPONSES = "/v1/responses"
SETTINGS = Settings(reasoning_tokens=100)
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}},
    "required": ["count"],
    "additionalProperties": False,
}


REFUSALS = [
    ("gpt-5-pro", {"messages": MESSAGES}, "unsupported_parameter", "this parameter has moved to 'input'"),
    ("gpt-5-pro", {"response_format": {}}, "unsupported_parameter", "has moved to 'text.format'"),
    ("gpt-5-pro", {"reasoning_effort": "low"}, "unsupported_parameter", "has moved to 'reasoning.effort'"),
    ("gpt-5-pro", {"max_completion_tokens": 99}, "unsupported_parameter", "has moved to 'max_output_tokens'"),
    ("gpt-5-pro", {"max_tokens": 99}, "unknown_parameter", "Unknown parameter: 'max_tokens'."),
    ("gpt-5-pro", {"stop": ["a"]}, "unknown_parameter", "Unknown parameter: 'stop'."),
    ("gpt-5-pro", {"n": 1}, "unknown_parameter", "Unknown parameter: 'n'."),
    ("gpt-5-pro", {"max_output_tokens": 5}, "integer_below_min_value", "Expected a value >= 16, but got 5"),
    ("gpt-5-pro", {"temperature": 0.5}, None, "'temperature' is not supported with this model"),
    ("gpt-5-pro", {"top_p": 1.0}, None, "'top_p' is not supported with this model"),
    ("gpt-5-pro", {"reasoning": {"effort": "hihg"}}, "invalid_value", "Invalid value: 'hihg'."),
    ("gpt-4o", {"reasoning": {"effort": "low"}}, "unsupported_parameter", "'reasoning.effort' is not supported"),
    ("gpt-4o", {"reasoning": 1}, "invalid_type", "'reasoning'"),
    ("gpt-4o", {"stream": True}, "unsupported_parameter", "does not stream"),
    ("gpt-4o", {"input": []}, "missing_required_parameter", 'One of "input" or'),
    ("gpt-4o", {"input": {}}, "missing_required_parameter", 'One of "input" or'),
    ("gpt-4o", {"input": 1}, "invalid_type", "Invalid type for 'input'"),
    ("gpt-4o", {"input": ["a"]}, "invalid_type", "Invalid type for 'input[0]'"),
    ("gpt-4o", {"input": [{"type": "riddle"}]}, "invalid_value", "Invalid value: 'riddle'."),
    ("gpt-4o", {"input": [{"role": "tool", "content": "a"}]}, "invalid_value", "and 'user'."),
    ("gpt-4o", {"input": [{"role": "user"}]}, "invalid_type", "input[0].content"),
    ("gpt-4o", {"input": [{**MESSAGES[0], "name": "a"}]}, "unknown_parameter", "'input[0].name'"),
    (
        "gpt-4o",
        {"input": [{"type": "function_call_output", "output": "a"}]},
        "missing_required_parameter",
        "input[0].call_id",
    ),
    (
        "gpt-4o",
        {"input": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        "invalid_value",
        "'input_text'",
    ),
    (
        "gpt-4o",
        {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "a"}]}]},
        "invalid_value",
        "Supported values are: 'output_text' and 'refusal'.",
    ),
    ("gpt-4o", {"tools": 1}, "invalid_type", "'tools'"),
    ("gpt-4o", {"tools": [1]}, "invalid_type", "'tools[0]'"),
    (
        "gpt-4o",
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "missing_required_parameter",
        "'tools[0].name'",
    ),
    ("gpt-4o", {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"name": "g"}}, None, "'g' not found"),
    ("gpt-4o", {"text": 1}, "invalid_type", "'text'"),
    ("gpt-4o", {"text": {"format": 1}}, "invalid_type", "'text.format'"),
    ("gpt-4o", {"text": {"format": {"type": "xml"}}}, "invalid_value", "Invalid value: 'xml'."),
    ("gpt-4o", {"text": {"format": {"type": "json_object"}}}, None, "must contain the word 'json'"),
    (
        "gpt-4o",
        {"text": {"format": {"type": "json_schema", "name": "a"}}},
        "missing_required_parameter",
        "text.format.schema",
    ),
    (
        "gpt-4o",
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": 1}}},
        "invalid_type",
        "text.format.schema",
    ),
    (
        "gpt-4o",
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}}},
        None,
        "additionalProperties",
    ),
]


def reply(model="gpt-4o-mini", **fields):
    return answer_request(RESPONSES, {"model": model, "input": MESSAGES, **fields}, SETTINGS)


def texts(body) -> list[str]:
    return [part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]]


def test_answers_are_those_of_chats_and_fit_the_sdk():
    responses = pytest.importorskip("openai.types.responses")
    answer = reply().body
    completion = answer_request(CHAT, {"model": "gpt-4o-mini", "messages": MESSAGES}, SETTINGS).body

    responses.Response.model_validate(answer)
    assert texts(answer) == [completion["choices"][0]["message"]["content"]]
    assert answer["status"] == "completed"
    assert answer["usage"]["output_tokens"] == completion["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "value",
    ["Why is the sky blue?", [{"role": "user", "content": [{"type": "input_text", "text": "Why is the sky blue?"}]}]],
)
def test_input_is_a_text_or_a_list_of_items(value):
    assert reply(input=value).status == 200


def test_small_limit_is_spent_on_reasoning():
    body = reply("gpt-5-pro", max_output_tokens=50).body

    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["type"] for item in body["output"]] == ["reasoning"]
    assert body["usage"]["output_tokens"] == body["usage"]["output_tokens_details"]["reasoning_tokens"] == 50


def test_limit_cuts_the_text():
    body = reply("gpt-5-pro", max_output_tokens=104).body

    assert body["status"] == "incomplete"
    assert [len(text) for text in texts(body)] == [16]


@pytest.mark.parametrize(("reasoning", "parts"), [({}, 0), ({"summary": "auto"}, 1)])
def test_summary_of_the_reasoning_is_shown_on_request(reasoning, parts):
    assert len(reply("gpt-5-pro", reasoning=reasoning).body["output"][0]["summary"]) == parts


def test_function_is_called():
    tool = {"type": "function", "name": "count", "parameters": SCHEMA, "strict": True}
    body = reply(tools=[tool], tool_choice={"type": "function", "name": "count"}).body

    [call] = body["output"]
    assert (call["type"], call["name"]) == ("function_call", "count")
    assert '"count":' in call["arguments"]


def test_schema_is_kept():
    format = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}

    assert '"count":' in texts(reply(text={"format": format}).body)[0]


@pytest.mark.parametrize(("model", "fields", "code", "message"), REFUSALS)
def test_refusals_are_openais(model, fields, code, message):
    answer = reply(model, **fields)

    assert (answer.status, answer.body["error"]["code"]) == (400, code)
    assert message in answer.body["error"]["message"]


@pytest.mark.parametrize("model", ["gpt-5-pro", "gpt-5.1-codex-mini", "o3-pro", "o4-mini-deep-research"])
def test_chat_completions_do_not_serve_every_model(model):
    answer = answer_request(CHAT, {"model": model, "messages": MESSAGES}, SETTINGS)

    assert answer.status == 404
    assert answer.body["error"]["message"].startswith("This model is only supported in v1/responses")
    assert reply(model).status == 200


async def test_batch_of_responses_is_answered_and_counted(api):
    lines = [
        {
            "custom_id": f"r{index}",
            "method": "POST",
            "url": RESPONSES,
            "body": {"model": "gpt-4o", "input": f"Say {index}."},
        }
        for index in range(3)
    ]
    batch = await api.run_batch(lines, endpoint=RESPONSES)
    results = await api.read_lines(batch["output_file_id"])

    assert len(results) == 3
    assert {line["response"]["body"]["object"] for line in results} == {"response"}
    assert batch["usage"]["output_tokens"] == sum(
        line["response"]["body"]["usage"]["output_tokens"] for line in results
    )
    assert batch["usage"]["input_tokens"] > 0
