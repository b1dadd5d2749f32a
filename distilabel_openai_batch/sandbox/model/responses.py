"""Answers of `/v1/responses`: the same texts that `/v1/chat/completions` gives to the same messages."""

from __future__ import annotations

from typing import Any

from .chat import ChoiceWriter, last_user_text
from .checks import get_parameter
from .hashing import creation_time, text_seed
from .reasoning import count_reasoning_tokens
from .sampling import ANY_LENGTH, TextLength
from .snapshots import snapshot_name
from .tokens import count_prompt_tokens


def response(
    body: dict[str, Any], digest: str, model: str, reasoning_tokens: int, length: TextLength = ANY_LENGTH
) -> dict[str, Any]:
    """Return the body of a response.

    Args:
        body: body of the request, already checked.
        digest: SHA-256 of the body, in hexadecimal.
        model: name of the model behind the name in the body.
        reasoning_tokens: tokens that reasoning takes at medium effort.
        length: bounds of the length of a text.

    Raises:
        ApiError: if no value fits the JSON schema that the request names.
    """
    chat = _as_chat(body)
    limit = body.get("max_output_tokens")
    reasoning = count_reasoning_tokens(model, chat, reasoning_tokens)
    output = [_reasoning_item(body, digest)] if reasoning else []
    if limit is not None and reasoning >= limit:
        tokens, reasoning, is_cut = limit, limit, True
    else:
        seed = text_seed(chat["messages"], None, body.get("temperature"))
        text_limit = None if limit is None else limit - reasoning
        choice, tokens = ChoiceWriter(chat, length).write(last_user_text(chat["messages"]), seed, 0, text_limit)
        is_cut = choice["finish_reason"] == "length"
        tokens += reasoning
        output += _output_items(choice, digest, is_cut)
    prompt_tokens = count_prompt_tokens("/v1/responses", body)
    return {
        "id": f"resp_{digest[:48]}",
        "object": "response",
        "created_at": creation_time(digest),
        "status": "incomplete" if is_cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "model": snapshot_name(model),
        "output": output,
        **_echo(body),
        "service_tier": "default",
        "usage": {
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": tokens,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": prompt_tokens + tokens,
        },
    }


def _echo(body: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the request that a response repeats."""
    defaults: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    return {name: get_parameter(body, name, default) for name, default in defaults.items()}


def _reasoning_item(body: dict[str, Any], digest: str) -> dict[str, Any]:
    wants_summary = get_parameter(body, "reasoning", {}).get("summary")
    summary = [{"type": "summary_text", "text": "**Weighing the question**\n\nThe user asks; the model thinks."}]
    return {"id": f"rs_{digest[:48]}", "type": "reasoning", "summary": summary if wants_summary else []}


def _output_items(choice: dict[str, Any], digest: str, is_cut: bool) -> list[dict[str, Any]]:
    """Return the output items of a choice: a message, or calls of functions."""
    message, status = choice["message"], "incomplete" if is_cut else "completed"
    calls = [
        {
            "id": f"fc_{digest[:48]}",
            "type": "function_call",
            "status": status,
            "call_id": call["id"],
            **call["function"],
        }
        for call in message.get("tool_calls", ())
    ]
    if calls:
        return calls
    logprobs = choice["logprobs"]["content"] if choice["logprobs"] else []
    part = {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": message["content"]}
    item = {"id": f"msg_{digest[:48]}", "type": "message", "status": status, "role": "assistant", "content": [part]}
    return [item]


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a chat completion for the body of a response's request."""
    value = body["input"]
    items = [{"role": "user", "content": value}] if isinstance(value, str) else value
    if instructions := body.get("instructions"):
        items = [{"role": "system", "content": instructions}, *items]
    chat: dict[str, Any] = {
        "messages": [message for item in items for message in _messages(item)],
        "temperature": body.get("temperature"),
        "top_logprobs": body.get("top_logprobs"),
        "logprobs": "message.output_text.logprobs" in get_parameter(body, "include", []),
        "reasoning_effort": get_parameter(body, "reasoning", {}).get("effort"),
    }
    if tools := [tool for tool in get_parameter(body, "tools", []) if tool.get("type") == "function"]:
        chat["tools"] = [{"type": "function", "function": tool} for tool in tools]
        choice = get_parameter(body, "tool_choice", "auto")
        chat["tool_choice"] = {"function": choice} if isinstance(choice, dict) else choice
    format = get_parameter(body, "text", {}).get("format")
    if format is not None:
        chat["response_format"] = {"type": format["type"], "json_schema": format}
    return chat


def _messages(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a chat for an input item; reasoning of earlier answers has no message."""
    kind = item.get("type", "message")
    if kind == "function_call":
        call = {"id": item["call_id"], "function": {"name": item["name"], "arguments": item["arguments"]}}
        return [{"role": "assistant", "content": None, "tool_calls": [call]}]
    if kind == "function_call_output":
        return [{"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}]
    return [{"role": item["role"], "content": item["content"]}] if kind == "message" else []
