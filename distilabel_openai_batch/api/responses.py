"""Translation between chat completions and the Responses API. Pure functions.

The engine and `OpenAILLM` read chat completions alone. So the body of a chat becomes the body of a response before the
request gets its digest, and the body of a response becomes a completion where a result is read.

https://platform.openai.com/docs/guides/migrate-to-responses
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

RESPONSES_ENDPOINT = "/v1/responses"

# Parameters of chat completions that the Responses API does not have, with the values that change nothing.
# https://platform.openai.com/docs/api-reference/responses/create
_WITHOUT_COUNTERPART: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "stop": ([], ""),
    "seed": (),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
}

# Parameters that `translate_request` translates, or leaves out.
_TRANSLATED = frozenset(
    {
        *_WITHOUT_COUNTERPART,
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
        "verbosity",
        "response_format",
        "tools",
        "tool_choice",
    }
)

# Value of `include` that asks for log probabilities.
_LOGPROBS = "message.output_text.logprobs"

_ROLES = ("system", "developer", "user", "assistant")

# Parameters that do not change the answer, with their values: `translate_request` sets the first, and models that
# reason refuse the others.
_NEUTRAL = (("store", False), ("temperature", 1), ("top_p", 1))


class UntranslatableError(ValueError):
    """Part of a chat that the Responses API does not have."""


def translate_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a response's request for the body of a chat completion's request.

    Chat completions are not stored on the server by default, so the translated body contains `store: false`.

    Args:
        body: the body of a chat. Parameters that only the Responses API has may be among the others.

    Raises:
        UntranslatableError: the body contains a parameter or a message that the Responses API does not have.
    """
    for name, neutral in _WITHOUT_COUNTERPART.items():
        value = body.get(name)
        if value is not None and value not in neutral:
            raise UntranslatableError(f"the endpoint {RESPONSES_ENDPOINT} has no parameter `{name}`: remove `{name}`")
    translated = {name: value for name, value in body.items() if name not in _TRANSLATED}
    translated.setdefault("store", False)
    if "messages" in body:
        translated["input"] = translate_messages(body["messages"])
    if limit := body.get("max_completion_tokens") or body.get("max_tokens"):
        translated.setdefault("max_output_tokens", limit)
    if body.get("logprobs"):
        translated["include"] = list(dict.fromkeys([*(body.get("include") or ()), _LOGPROBS]))
    if body.get("top_logprobs") is not None:
        translated["top_logprobs"] = body["top_logprobs"]
    if effort := body.get("reasoning_effort"):
        translated["reasoning"] = {"effort": effort, **(body.get("reasoning") or {})}
    if text := _text_config(body):
        translated["text"] = {**text, **(body.get("text") or {})}
    if tools := body.get("tools"):
        translated["tools"] = [_flatten(tool, strict=True) for tool in tools]
    if choice := body.get("tool_choice"):
        translated["tool_choice"] = _flatten(choice) if isinstance(choice, Mapping) else choice
    return translated


def translate_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the input items for the messages of a chat.

    A message of a role and a text is its own input item.

    Raises:
        UntranslatableError: a message has a role or a part that the Responses API does not have.
    """
    return [item for message in messages for item in _input_items(message)]


def names_responses(message: str) -> bool:
    """Return whether a server refuses a chat completion because only the Responses API serves the model."""
    return "only supported in v1/responses" in message


def identify(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a response's request by which the ledger knows the request.

    The part lacks parameters that do not change the answer. Some models refuse these parameters, and other programs
    may have left them out.
    """
    neutral = [name for name, value in _NEUTRAL if name in body and body[name] == value]
    return {name: value for name, value in body.items() if name not in neutral}


def is_response(body: Mapping[str, Any]) -> bool:
    """Return whether the body of an answer comes from the Responses API."""
    return "output" in body and "choices" not in body


def translate_response(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat completion for the body of a response.

    The texts of all output messages become one text. A response without output becomes a completion without choices,
    unless the response is incomplete. Fields without sense count as missing.
    """
    items = _dicts(body.get("output"))
    is_incomplete = body.get("status") == "incomplete"
    choice = {
        "index": 0,
        "message": _message(items),
        "logprobs": _logprobs(items),
        "finish_reason": _finish_reason(body, items),
    }
    return {
        "id": body.get("id"),
        "object": "chat.completion",
        "created": body.get("created_at"),
        "model": body.get("model"),
        "choices": [choice] if items or is_incomplete else [],
        "usage": _usage(body.get("usage")),
        "service_tier": body.get("service_tier"),
    }


def _input_items(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the input items of a message: its text or parts, its tool calls, or the result of a tool."""
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        output = content if isinstance(content, str) else [_part(part) for part in content or ()]
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}
        return
    if role not in _ROLES:
        raise UntranslatableError(f"the endpoint {RESPONSES_ENDPOINT} has no messages of the role {role!r}")
    if isinstance(content, str):
        yield {"role": role, "content": content}
    elif content:
        # Parts of an earlier answer need its id → send their texts as one text.
        parts = "".join(map(_assistant_text, content)) if role == "assistant" else [_part(part) for part in content]
        yield {"role": role, "content": parts}
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        fields = {"name": function.get("name"), "arguments": function.get("arguments")}
        yield {"type": "function_call", "call_id": call.get("id"), **fields}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input part for a part of a chat's message."""
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": part.get("text")}
        case "image_url":
            image = part.get("image_url") or {}
            return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
        case "file":
            return {"type": "input_file", **(part.get("file") or {})}
    raise UntranslatableError(f"the endpoint {RESPONSES_ENDPOINT} has no parts of the type {part.get('type')!r}")


def _assistant_text(part: Mapping[str, Any]) -> str:
    text = part.get("refusal") if part.get("type") == "refusal" else part.get("text")
    if not isinstance(text, str):
        raise UntranslatableError(
            f"the endpoint {RESPONSES_ENDPOINT} has no part of the type {part.get('type')!r} in an assistant's message"
        )
    return text


def _text_config(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameter `text`: the format of the answer, and its verbosity."""
    config: dict[str, Any] = {}
    if response_format := body.get("response_format"):
        config["format"] = _flatten(response_format)
    if verbosity := body.get("verbosity"):
        config["verbosity"] = verbosity
    return config


def _flatten(value: Mapping[str, Any], *, strict: bool = False) -> dict[str, Any]:
    """Return an object `{type, TYPE: {…}}` of chat completions as the Responses API writes it, on one level.

    Args:
        value: a tool, a choice of a tool, or a format of the answer.
        strict: whether to state that a function is not strict: the Responses API has the other default.
    """
    kind = value.get("type")
    inner = value.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, Mapping):
        return dict(value)
    defaults = {"parameters": None, "strict": False} if strict and kind == "function" else {}
    return {"type": kind, **defaults, **inner}


def _message(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message of a completion: text, refusal, tool calls and reasoning of a response's output items."""
    parts = _parts(items)
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "".join(refusals) or None,
    }
    if calls := [_tool_call(item) for item in items if item.get("type") == "function_call"]:
        message["tool_calls"] = calls
    if reasoning := _reasoning(items):
        message["reasoning_content"] = reasoning
    return message


def _parts(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of the output messages; a commentary on the way to an answer is no part of the answer."""
    messages = [item for item in items if item.get("type") == "message"]
    answers = [item for item in messages if item.get("phase") != "commentary"]
    return [part for item in answers or messages for part in _dicts(item.get("content"))]


def _tool_call(item: dict[str, Any]) -> dict[str, Any]:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _reasoning(items: list[dict[str, Any]]) -> str | None:
    """Return the text of the reasoning that a response shows: its summaries and its content, as paragraphs."""
    parts = [
        part
        for item in items
        if item.get("type") == "reasoning"
        for name in ("summary", "content")
        for part in _dicts(item.get(name))
    ]
    return "\n\n".join(part["text"] for part in parts if isinstance(part.get("text"), str)) or None


def _logprobs(items: list[dict[str, Any]]) -> dict[str, Any] | None:
    entries = [entry for part in _parts(items) for entry in _dicts(part.get("logprobs"))]
    return {"content": entries} if entries else None


def _finish_reason(body: Mapping[str, Any], items: list[dict[str, Any]]) -> str | None:
    """Return why a response ended, in the words of chat completions; `None` if the response does not say why."""
    status = body.get("status")
    if status == "incomplete":
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        return "length" if reason in (None, "max_output_tokens") else str(reason)
    if status not in (None, "completed"):
        return str(status)
    return "tool_calls" if any(item.get("type") == "function_call" for item in items) else "stop"


def _usage(usage: object) -> dict[str, Any] | None:
    if not isinstance(usage, Mapping):
        return None
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }


def _dicts(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
