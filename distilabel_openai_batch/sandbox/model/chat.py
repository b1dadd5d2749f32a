"""Answers of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Any

import orjson

from .checks import get_parameter
from .hashing import creation_time, text_seed
from .reasoning import count_reasoning_tokens
from .sampling import ANY_LENGTH, TextLength, cut_text, rank_alternatives, stop_sequences, usage
from .schemas import SchemaSampler
from .snapshots import snapshot_name
from .task_formats import write_reply
from .tokens import count_chat_tokens, count_tokens, split_tokens


class Chat:
    """Chat whose requests share every parameter but the messages, so that the parameters are read once.

    Args:
        parameters: parameters of the requests, already checked.
        model: name of the model behind the name in the parameters.
        reasoning_tokens: tokens that reasoning takes at medium effort.
        length: bounds of the length of a text.
    """

    def __init__(
        self, parameters: dict[str, Any], model: str, reasoning_tokens: int, length: TextLength = ANY_LENGTH
    ) -> None:
        self._snapshot = snapshot_name(model)
        self._choice_count: int = get_parameter(parameters, "n", 1)
        # `stop` and the token limit stay out of the seed, so the same question with a lower limit gives the same text,
        # cut.
        self._seed_parts = (parameters.get("seed"), parameters.get("temperature"))
        self._token_limit = get_parameter(parameters, "max_completion_tokens", parameters.get("max_tokens"))
        self._reasoning = count_reasoning_tokens(model, parameters, reasoning_tokens)
        self._writer = ChoiceWriter(parameters, length)

    def complete(self, messages: list[dict[str, Any]], digest: str) -> dict[str, Any]:
        """Return the body of a chat completion.

        Args:
            messages: messages of the request, already checked.
            digest: SHA-256 of the request's body, in hexadecimal.

        Raises:
            ApiError: if no value fits the JSON schema that the request names.
        """
        choices, completion_tokens, reasoning = self._choose(messages)
        return {
            "id": f"chatcmpl-{digest[:29]}",
            "object": "chat.completion",
            "created": creation_time(digest),
            "model": self._snapshot,
            "choices": choices,
            "usage": usage(count_chat_tokens(messages), completion_tokens, reasoning),
            "service_tier": "default",
            "system_fingerprint": f"fp_{digest[-10:]}",
        }

    def _choose(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
        """Return the choices, the number of their tokens, and the number of these that reasoning took."""
        limit, reasoning, count = self._token_limit, self._reasoning, self._choice_count
        if limit is not None and reasoning >= limit:
            return [_spent_choice(index) for index in range(count)], count * limit, count * limit
        prompt = last_user_text(messages)
        seed = text_seed(messages, *self._seed_parts)
        text_limit = None if limit is None else limit - reasoning
        choices = []
        text_tokens = 0
        for index in range(count):
            choice, tokens = self._writer.write(prompt, seed, index, text_limit)
            choices.append(choice)
            text_tokens += tokens
        return choices, count * reasoning + text_tokens, count * reasoning


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


class ChoiceWriter:
    """Writer of the choices of a chat, in the form that the parameters demand.

    Args:
        parameters: parameters of a chat, already checked.
        length: bounds of the length of a plain text.
    """

    def __init__(self, parameters: dict[str, Any], length: TextLength = ANY_LENGTH) -> None:
        self._length = length
        self._functions: list[dict[str, Any]] = []
        self._call_finish_reason = "tool_calls"
        tool_choice = get_parameter(parameters, "tool_choice", "auto")
        if tool_choice != "none":
            self._functions = [tool["function"] for tool in get_parameter(parameters, "tools", [])]
        if isinstance(tool_choice, dict):
            # If the request names the function, the API finishes with "stop".
            name = get_parameter(tool_choice, "function", {}).get("name")
            self._functions = [function for function in self._functions if function["name"] == name][:1]
            self._call_finish_reason = "stop"
        self._format = get_parameter(parameters, "response_format", {"type": "text"})
        self._format_type: str = self._format["type"]
        self._stops = stop_sequences(parameters)
        self._wants_logprobs = bool(parameters.get("logprobs"))
        self._top_logprobs: int = get_parameter(parameters, "top_logprobs", 0)

    def write(self, prompt: str, seed: int, index: int, token_limit: int | None) -> tuple[dict[str, Any], int]:
        """Return one choice and the number of its tokens.

        Args:
            prompt: text of the last user message.
            seed: seed of the texts of all choices.
            index: number of the choice.
            token_limit: maximum number of tokens; `None` for no limit.

        Raises:
            ApiError: if no value fits the JSON schema that the request names.
        """
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        if self._functions:
            function = self._functions[(seed + index) % len(self._functions)]
            schema = get_parameter(function, "parameters", {"type": "object"})
            arguments = SchemaSampler(schema, prompt, seed + index).sample()
            text, finish_reason = cut_text(orjson.dumps(arguments).decode(), (), token_limit)
            call_id = f"call_{text_seed(seed, index):016x}"
            called_function = {"name": function["name"], "arguments": text}
            message["tool_calls"] = [{"id": call_id, "type": "function", "function": called_function}]
            finish_reason = "length" if finish_reason == "length" else self._call_finish_reason
        else:
            text, finish_reason = cut_text(self._write_content(prompt, seed + index), self._stops, token_limit)
            message["content"] = text
        logprobs = None
        if self._wants_logprobs:
            logprobs = {"content": _logprobs(text, seed + index, self._top_logprobs), "refusal": None}
        choice = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}
        return choice, count_tokens(text)

    def _write_content(self, prompt: str, seed: int) -> str:
        """Return the text of an answer in the requested `response_format`."""
        if self._format_type == "json_schema":
            return orjson.dumps(SchemaSampler(self._format["json_schema"]["schema"], prompt, seed).sample()).decode()
        text = self._length.fit(write_reply(prompt, seed, self._length.characters))
        return orjson.dumps({"answer": text}).decode() if self._format_type == "json_object" else text


def _logprobs(text: str, seed: int, top: int) -> list[dict[str, Any]]:
    """Return one entry per token, with the `top` most probable alternatives."""
    entries = []
    for position, token in enumerate(split_tokens(text)):
        ranked = rank_alternatives(token, seed + position, max(top, 1))
        alternatives = [{"token": name, "logprob": value, "bytes": list(name.encode())} for name, value in ranked]
        entries.append({**alternatives[0], "top_logprobs": alternatives[:top]})
    return entries
