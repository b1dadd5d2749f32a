"""Answers: a pure function of the request body, the same for a line of a batch and for a synchronous call."""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from .errors import ApiError
from .parameters import check, given
from .replies import reply
from .schemas import Instance

# One token is four characters: OpenAI's rule of thumb, https://help.openai.com/en/articles/4936856.
CHARACTERS_PER_TOKEN = 4
# What OpenAI charges for a small image, https://platform.openai.com/docs/guides/images-vision.
_TOKENS_PER_IMAGE = 85
_TOKENS_PER_MESSAGE = 4
# The dated snapshots that these names stand for.
_SNAPSHOTS = {
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
}
_DIMENSIONS = {"text-embedding-3-large": 3_072}


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Attributes:
        status: the HTTP status.
        body: the body of the reply.
        headers: extra headers of the reply, if it is sent by itself.
    """

    status: int
    body: dict[str, Any]
    headers: dict[str, str] | None = None


def canonical(body: Any) -> bytes:
    """Returns a body as JSON with sorted keys and without spaces: the same bytes for the same request."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def snapshot(model: str) -> str:
    """Returns the dated name of a model."""
    return _SNAPSHOTS.get(model, model)


def answer(
    endpoint: str, body: dict[str, Any], knows: Callable[[str], bool], serialised: bytes | None = None
) -> Answer:
    """Answers a request.

    Args:
        endpoint: such as `/v1/chat/completions`.
        body: the request's body.
        knows: says whether a model exists.
        serialised: `canonical(body)`, if it is at hand.
    """
    try:
        check(endpoint, body)
        if not knows(body["model"]):
            message = f"The model `{body['model']}` does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found")
        digest = hashlib.sha256(canonical(body) if serialised is None else serialised).hexdigest()
        return Answer(200, _ENDPOINTS[endpoint](body, digest))
    except ApiError as error:
        return Answer(error.status, error.body())


def count_tokens(text: str) -> int:
    """Returns how many tokens a text is."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def count_prompt_tokens(endpoint: str, body: dict[str, Any]) -> int:
    """Returns how many tokens the prompt of a request is, however malformed it may be."""
    if endpoint == "/v1/chat/completions":
        messages = body.get("messages")
        return sum(map(_count_message, messages)) + 3 if isinstance(messages, list) else 0
    texts = body.get("prompt" if endpoint == "/v1/completions" else "input")
    return _count_input(texts)


def _count_message(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return _TOKENS_PER_MESSAGE + count_tokens(content)
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        return _TOKENS_PER_MESSAGE + sum(
            count_tokens(str(part["text"])) if "text" in part else _TOKENS_PER_IMAGE for part in parts
        )
    return _TOKENS_PER_MESSAGE


def _count_input(texts: Any) -> int:
    if isinstance(texts, str):
        return count_tokens(texts)
    if isinstance(texts, list):
        return sum(1 if isinstance(text, int) else _count_input(text) for text in texts)
    return 0


def _created(digest: str) -> int:
    # Within the year 2025: a time of answering that is a function of the body.
    return 1_735_689_600 + int(digest[:8], 16) % 31_536_000


def _number(*parts: object) -> int:
    """Returns a number that stands for what is asked, so that equal questions are answered alike."""
    return int.from_bytes(hashlib.blake2b(canonical(parts), digest_size=8).digest(), "big")


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _cut(text: str, body: dict[str, Any], most: int | None) -> tuple[str, str]:
    """Returns the text up to a stop sequence and the token limit, and why it ends."""
    stop = given(body, "stop", [])
    for mark in [stop] if isinstance(stop, str) else stop:
        if mark:
            text = text.partition(mark)[0]
    if most is not None and count_tokens(text) > most:
        return text[: most * CHARACTERS_PER_TOKEN], "length"
    return text, "stop"


def _tokens(text: str) -> list[str]:
    return [text[place : place + CHARACTERS_PER_TOKEN] for place in range(0, len(text), CHARACTERS_PER_TOKEN)]


def _logprob(number: int, rank: int) -> float:
    """Returns the log probability of a token: of rank 0 for the one that was chosen, lower for each alternative."""
    return -round((number % 997) / 4_000 + rank * (1.0 + (number % 89) / 100), 6)


def _alternatives(token: str, number: int, count: int) -> list[tuple[str, float]]:
    """Returns `count` tokens with falling probability, the first being the token itself."""
    others = (f" {word}" for word in ("the", "an", "and", "to", "of", "in", "is", "it", "for", "that", "with", "as"))
    spare = (f" {letter}" for letter in "abcdefghijklmnop")
    names = [token, *(name for name in (*others, *spare) if name != token)][:count]
    return [(name, _logprob(number, rank)) for rank, name in enumerate(names)]


def _prompt(messages: list[dict[str, Any]]) -> str:
    """Returns the text of the last message of the user, or of the last one with a text."""
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


def _chat(body: dict[str, Any], digest: str) -> dict[str, Any]:
    prompt = _prompt(body["messages"])
    most = given(body, "max_completion_tokens", body.get("max_tokens"))
    # Not of the whole body: the same question with a stop sequence or a lower limit gives the same text, cut.
    number = _number(body["messages"], body.get("seed"), body.get("temperature"))
    choices = []
    completion_tokens = 0
    for index in range(given(body, "n", 1)):
        choice, tokens = _choice(body, prompt, number, index, most)
        choices.append(choice)
        completion_tokens += tokens
    return {
        "id": f"chatcmpl-{digest[:29]}",
        "object": "chat.completion",
        "created": _created(digest),
        "model": snapshot(body["model"]),
        "choices": choices,
        "usage": _usage(count_prompt_tokens("/v1/chat/completions", body), completion_tokens),
        "service_tier": "default",
        "system_fingerprint": f"fp_{digest[-10:]}",
    }


def _choice(body: dict[str, Any], prompt: str, number: int, index: int, most: int | None) -> tuple[dict[str, Any], int]:
    """Returns one choice and how many tokens it is."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    called = _called(body, number + index)
    if called is not None:
        function, finish = called
        value = Instance(given(function, "parameters", {"type": "object"}), prompt, number + index).value()
        text, cut = _cut(orjson.dumps(value).decode(), {}, most)
        identity = f"call_{_number(number, index):016x}"
        called_function = {"name": function["name"], "arguments": text}
        message["tool_calls"] = [{"id": identity, "type": "function", "function": called_function}]
        finish = cut if cut == "length" else finish
    else:
        text, finish = _cut(_text(body, prompt, number + index), body, most)
        message["content"] = text
    logprobs = None
    if body.get("logprobs"):
        logprobs = {"content": _chat_logprobs(text, number + index, given(body, "top_logprobs", 0)), "refusal": None}
    choice = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}
    return choice, count_tokens(text)


def _called(body: dict[str, Any], number: int) -> tuple[dict[str, Any], str] | None:
    """Returns the function that is called and the finish reason, or `None` for an answer in words."""
    tools = body.get("tools")
    choice = given(body, "tool_choice", "auto")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        # The API finishes with "stop" where the caller chose the function.
        name = given(choice, "function", {}).get("name")
        return next(tool["function"] for tool in tools if tool["function"]["name"] == name), "stop"
    return tools[number % len(tools)]["function"], "tool_calls"


def _text(body: dict[str, Any], prompt: str, number: int) -> str:
    wanted = given(body, "response_format", {"type": "text"})
    if wanted["type"] == "json_schema":
        return orjson.dumps(Instance(wanted["json_schema"]["schema"], prompt, number).value()).decode()
    text = reply(prompt, number)
    return orjson.dumps({"answer": text}).decode() if wanted["type"] == "json_object" else text


def _chat_logprobs(text: str, number: int, top: int) -> list[dict[str, Any]]:
    entries = []
    for place, token in enumerate(_tokens(text)):
        ranked = _alternatives(token, number + place, max(top, 1))
        listed = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in ranked]
        entries.append({**listed[0], "top_logprobs": listed[:top]})
    return entries


def _completion(body: dict[str, Any], digest: str) -> dict[str, Any]:
    prompt = given(body, "prompt", "")
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = prompt if several else [prompt]
    choices: list[dict[str, Any]] = []
    completion_tokens = 0
    for asked in prompts:
        # A prompt may be given as token numbers, which no one can read back.
        words = asked if isinstance(asked, str) else f"a prompt of {len(asked)} tokens"
        number = _number(words, body.get("seed"), body.get("temperature"))
        for turn in range(given(body, "n", 1)):
            text, finish = _cut(" " + reply(words, number + turn), body, given(body, "max_tokens", 16))
            completion_tokens += count_tokens(text)
            echoed = words if body.get("echo") else ""
            logprobs = None
            if body.get("logprobs") is not None:
                logprobs = _legacy_logprobs(echoed, text, number + turn, body["logprobs"])
            choice = {"text": echoed + text, "index": len(choices), "logprobs": logprobs, "finish_reason": finish}
            choices.append(choice)
    prompt_tokens = count_prompt_tokens("/v1/completions", body)
    return {
        "id": f"cmpl-{digest[:29]}",
        "object": "text_completion",
        "created": _created(digest),
        "model": snapshot(body["model"]),
        "choices": choices,
        "usage": _usage(prompt_tokens, completion_tokens),
    }


def _legacy_logprobs(echoed: str, text: str, number: int, top: int) -> dict[str, Any]:
    """Returns logprobs in the shape of the completions endpoint; the first token of an echoed prompt has none."""
    tokens = _tokens(echoed) + _tokens(text)
    ranked = [_alternatives(token, number + place, max(top, 1)) for place, token in enumerate(tokens)]
    values: list[float | None] = [entry[0][1] for entry in ranked]
    tops: list[dict[str, float] | None] = [dict(entry[:top]) for entry in ranked]
    if echoed:
        values[0] = tops[0] = None
    offsets = []
    offset = 0
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops if top else None, "text_offset": offsets}


def _embedding(body: dict[str, Any], digest: str) -> dict[str, Any]:
    asked = body["input"]
    inputs = [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked
    dimensions = given(body, "dimensions", _DIMENSIONS.get(body["model"], 1_536))
    data = []
    for index, text in enumerate(inputs):
        vector: Any = _vector(canonical(text), dimensions)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(array("f", vector).tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = count_prompt_tokens("/v1/embeddings", body)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": snapshot(body["model"]), "usage": usage}


def _vector(text: bytes, dimensions: int) -> list[float]:
    """Returns a vector of length 1 that stands for a text."""
    numbers = array("h", hashlib.shake_256(text).digest(2 * dimensions))
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


_ENDPOINTS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embedding,
}
