"""Scripted changes of a completion or a response: a model that refuses, or that leaves generations out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Body = dict[str, Any]


def _refuse(body: Body) -> Body:
    return _with_message(body, {"refusal": "I'm sorry, I can't assist with that."}, "stop")


def _ramble(body: Body) -> Body:
    return _with_message(body, {"content": "I would rather say it in words."}, None)


def _filter(body: Body) -> Body:
    return _with_message(body, {}, "content_filter")


def _spend_limit(body: Body) -> Body:
    return _with_message(body, {"content": ""}, "length")


def _spend_limit_once(body: Body) -> Body:
    if "output" in body:
        return _spend_limit(body)
    spent = _spend_limit(body)
    return body | {"choices": spent["choices"][:1] + body.get("choices", [])[1:]}


def _no_choices(body: Body) -> Body:
    return body | ({"output": []} if "output" in body else {"choices": []})


def _one_choice(body: Body) -> Body:
    if "output" in body:
        return body
    return body | {"choices": body.get("choices", [])[:1]}


SCRIPTS: dict[str, Callable[[Body], Body]] = {
    "refuse": _refuse,
    "ramble": _ramble,
    "filter": _filter,
    "spend_limit": _spend_limit,
    "spend_limit_once": _spend_limit_once,
    "no_choices": _no_choices,
    "one_choice": _one_choice,
}
"""Function that changes the body of an answer, by the kind of `ResultFault`."""


def _with_message(body: Body, message: Body, finish_reason: str | None) -> Body:
    """Return a completion in which every choice has the given message, and the given finish reason unless `None`."""
    if "output" in body:
        return _with_output(body, message, finish_reason)
    ending = {"finish_reason": finish_reason} if finish_reason else {}
    full = {"role": "assistant", "content": None, "refusal": None} | message
    return body | {
        "choices": [
            choice | ending | ({"message": full} if "message" in choice else {"text": message.get("content", "")})
            for choice in body.get("choices", [])
        ]
    }


# Reasons of incomplete responses, by the finish reason of completions.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _with_output(body: Body, message: Body, finish_reason: str | None) -> Body:
    """Return a response whose output is the given message of a completion, and that ended for the given reason."""
    parts: list[Body] = []
    if message.get("content"):
        parts.append({"type": "output_text", "annotations": [], "text": message["content"]})
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    reason = _INCOMPLETE.get(finish_reason or "")
    status = "incomplete" if reason else "completed"
    item = {"id": "msg_scripted", "type": "message", "status": status, "role": "assistant", "content": parts}
    incomplete = {"status": status, "incomplete_details": {"reason": reason} if reason else None}
    return body | incomplete | {"output": [item] if parts else []}
