"""Texts of a request and of its answer, for people. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.outcomes import Answer


def prompt_text(line: bytes) -> str:
    """Return the prompt of a request: the messages with their roles, the prompt, or the input.

    Args:
        line: the request's line of an input file.
    """
    body: Any = decode_json(line).get("body")
    if not isinstance(body, dict):
        return ""
    messages = body.get("messages") if "messages" in body else body.get("input")
    if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
        texts = [(str(message.get("role") or ""), _content_text(message.get("content"))) for message in messages]
        return "\n\n".join(text if role == "user" else f"[{role}] {text}" for role, text in texts)
    return _content_text(body.get("prompt", messages))


def answer_text(answer: Answer) -> str:
    """Return the texts of an answer's choices, or a description of an answer without text."""
    body = answer.body
    choices = body.get("choices")
    if isinstance(choices, list):
        return "\n\n".join(filter(None, map(_choice_text, choices)))
    data = body.get("data")
    if isinstance(data, list) and data and isinstance(data[0], dict):
        vector = data[0].get("embedding")
        return f"a vector of {len(vector):,} numbers" if isinstance(vector, list) else "a vector"
    return _json(body)


def finish_reasons(answer: Answer) -> str:
    """Return the different reasons for which the choices ended: `stop`, `length`."""
    choices = answer.body.get("choices")
    reasons = (choice.get("finish_reason") for choice in choices or () if isinstance(choice, dict))
    return ", ".join(dict.fromkeys(str(reason) for reason in reasons if reason))


def _choice_text(choice: Any) -> str:
    if not isinstance(choice, dict):
        return ""
    message = choice.get("message")
    if not isinstance(message, dict):
        return _content_text(choice.get("text"))
    parts = [_content_text(message.get("content")), _content_text(message.get("refusal"))]
    if calls := message.get("tool_calls"):
        parts.append(_json(calls))
    return "\n".join(filter(None, parts))


def _content_text(content: Any) -> str:
    """Return a content as one text; parts other than texts are named by their type."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(_part_texts(content)) if isinstance(content, list) else _json(content)


def _part_texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, dict):
            text = part.get("text")
            yield text if isinstance(text, str) else f"({part.get('type') or 'part'})"
        else:
            yield str(part)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
