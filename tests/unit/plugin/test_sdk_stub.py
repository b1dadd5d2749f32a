"""The stub of the SDK's client, and views of completions."""

from __future__ import annotations

import asyncio

from distilabel_openai_batch.plugin.sdk_stub import (
    CHAT_ENDPOINT,
    COMPLETIONS_ENDPOINT,
    ClientStub,
    CompletionView,
    view,
)
from distilabel_openai_batch.structured_output.options import parse_structured_output


def test_view_reads_nested_json_through_attributes():
    completion = view({"id": "1", "choices": [{"message": {"content": "fine"}}], "usage": {"prompt_tokens": 3}})

    assert completion.id == "1"
    assert completion.choices[0].message.content == "fine"
    assert completion.usage.prompt_tokens == 3


def test_view_of_a_missing_field_is_none():
    assert view({"id": "1"}).usage is None


def test_view_keeps_the_method_items_beside_a_field_of_that_name():
    """Log probabilities of the legacy endpoint are a dictionary of tokens, and `items` is a token."""
    logprobs = view({"top_logprobs": [{"items": -0.5, "b": -1.0}]}).top_logprobs[0]

    assert dict(logprobs.items()) == {"items": -0.5, "b": -1.0}


def test_view_leaves_the_parts_of_a_message_as_json():
    """The content becomes a generation, and a dataset cannot hold views."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "text", "text": "Blue."}]
    completion = view({"choices": [{"message": {"content": parts}}, {"message": {"role": "assistant", "content": {}}}]})

    assert completion.choices[0].message.content == parts
    assert completion.choices[1].message.content == {}


def test_view_reads_the_content_of_log_probabilities_through_attributes():
    logprobs = view({"logprobs": {"content": [{"token": "a", "top_logprobs": [{"token": "b"}]}]}}).logprobs

    assert logprobs.content[0].token == "a"
    assert logprobs.content[0].top_logprobs[0].token == "b"


def test_client_passes_each_call_to_the_function():
    """`extra_body` overrides other parameters, as in the SDK."""
    calls = []

    async def answer(call):
        calls.append(call)
        return CompletionView()

    async def run():
        client = ClientStub(answer)
        await client.chat.completions.create(model="m", messages=[], seed=1, extra_body={"seed": 2})
        await client.completions.create(model="m", prompt="Once")

    asyncio.run(run())

    assert [(call.endpoint, call.body) for call in calls] == [
        (CHAT_ENDPOINT, {"model": "m", "messages": [], "seed": 2}),
        (COMPLETIONS_ENDPOINT, {"model": "m", "prompt": "Once"}),
    ]


def test_client_adds_the_structured_output_to_chats():
    """The legacy endpoint has no structured output."""
    calls = []

    async def answer(call):
        calls.append(call)
        return CompletionView()

    async def run():
        client = ClientStub(
            answer, parse_structured_output({"schema": {"type": "object", "properties": {"x": {"type": "string"}}}})
        )
        await client.chat.completions.create(model="m", messages=[])
        await client.completions.create(model="m", prompt="Once")

    asyncio.run(run())

    assert ["response_format" in call.body for call in calls] == [True, False]
