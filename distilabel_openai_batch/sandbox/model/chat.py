"""Answers of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Any

import orjson

from .checks import get_parameter
from .hashing import creation_time, text_seed
from .reasoning import count_reasoning_tokens
from .sampling import ANY_LENGTH, TextLength, cut_text, rank_alternatives, usage
from .schemas import SchemaSampler
from .snapshots import snapshot_name
from .task_formats import write_reply
from .tokens import count_prompt_tokens, count_tokens, split_tokens


def chat_completion(
    body: dict[str, Any], digest: str, model: str, reasoning_tokens: int, length: TextLength = ANY_LENGTH
) -> dict[str, Any]:
    """Return the body of a chat completion.

    Args:
        body: body of the request, already checked.
        digest: SHA-256 of the body, in hexadecimal.
        model: name of the model behind the name in the body.
        reasoning_tokens: tokens that reasoning takes at medium effort.
        length: bounds of the length of a text.

    Raises:
        ApiError: if no value fits the JSON schema that the request names.
    """
    prompt = last_user_text(body["messages"])
    token_limit = get_parameter(body, "max_completion_tokens", body.get("max_tokens"))
    # `stop` and the token limit stay out of the seed, so the same question with a lower limit gives the same text, cut.
    seed = text_seed(body["messages"], body.get("seed"), body.get("temperature"))
    reasoning = count_reasoning_tokens(model, body, reasoning_tokens)
    choices = []
    completion_tokens = spent_on_reasoning = 0
    for index in range(get_parameter(body, "n", 1)):
        if token_limit is not None and reasoning >= token_limit:
            choices.append(_spent_choice(index))
            completion_tokens += token_limit
            spent_on_reasoning += token_limit
            continue
        text_limit = None if token_limit is None else token_limit - reasoning
        choice, tokens = make_choice(body, prompt, seed, index, text_limit, length)
        choices.append(choice)
        completion_tokens += reasoning + tokens
        spent_on_reasoning += reasoning
    return {
        "id": f"chatcmpl-{digest[:29]}",
        "object": "chat.completion",
        "created": creation_time(digest),
        "model": snapshot_name(model),
        "choices": choices,
        "usage": usage(count_prompt_tokens("/v1/chat/completions", body), completion_tokens, spent_on_reasoning),
        "service_tier": "default",
        "system_fingerprint": f"fp_{digest[-10:]}",
    }


def _spent_choice(index: int) -> dict[str, Any]:
    """Return a choice whose limit was spent on reasoning."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": "length"}


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last user message; without one, the last text of any message."""
    last = ""
    for message in reversed(messages):
        content = message.get("content")
        if isinstance(content, list):
            content = "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
        if isinstance(content, str):
            if message["role"] == "user":
                return content
            last = content if last == "" else last
    return last


def make_choice(
    body: dict[str, Any],
    prompt: str,
    seed: int,
    index: int,
    token_limit: int | None,
    length: TextLength = ANY_LENGTH,
) -> tuple[dict[str, Any], int]:
    """Return one choice, whose plain text has a length within bounds, and the number of its tokens."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    call = _choose_function(body, seed + index)
    if call is not None:
        function, finish_reason = call
        schema = get_parameter(function, "parameters", {"type": "object"})
        arguments = SchemaSampler(schema, prompt, seed + index).sample()
        text, cut_reason = cut_text(orjson.dumps(arguments).decode(), {}, token_limit)
        call_id = f"call_{text_seed(seed, index):016x}"
        called_function = {"name": function["name"], "arguments": text}
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": called_function}]
        finish_reason = cut_reason if cut_reason == "length" else finish_reason
    else:
        text, finish_reason = cut_text(_write_content(body, prompt, seed + index, length), body, token_limit)
        message["content"] = text
    logprobs = None
    if body.get("logprobs"):
        logprobs = {"content": _logprobs(text, seed + index, get_parameter(body, "top_logprobs", 0)), "refusal": None}
    choice = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}
    return choice, count_tokens(text)


def _choose_function(body: dict[str, Any], seed: int) -> tuple[dict[str, Any], str] | None:
    """Return the function to call and the finish reason, or `None` if the answer is a text."""
    tools = body.get("tools")
    choice = get_parameter(body, "tool_choice", "auto")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        # If the request names the function, the API finishes with "stop".
        name = get_parameter(choice, "function", {}).get("name")
        return next(tool["function"] for tool in tools if tool["function"]["name"] == name), "stop"
    return tools[seed % len(tools)]["function"], "tool_calls"


def _write_content(body: dict[str, Any], prompt: str, seed: int, length: TextLength) -> str:
    """Return the text of an answer in the requested `response_format`."""
    response_format = get_parameter(body, "response_format", {"type": "text"})
    if response_format["type"] == "json_schema":
        return orjson.dumps(SchemaSampler(response_format["json_schema"]["schema"], prompt, seed).sample()).decode()
    text = length.fit(write_reply(prompt, seed, length.characters))
    return orjson.dumps({"answer": text}).decode() if response_format["type"] == "json_object" else text


def _logprobs(text: str, seed: int, top: int) -> list[dict[str, Any]]:
    """Return one entry per token, with the `top` most probable alternatives."""
    entries = []
    for position, token in enumerate(split_tokens(text)):
        ranked = rank_alternatives(token, seed + position, max(top, 1))
        alternatives = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in ranked]
        entries.append({**alternatives[0], "top_logprobs": alternatives[:top]})
    return entries
