"""Scripted changes of a chat completion: a model that refuses, or that leaves generations out."""

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
    spent = _spend_limit(body)
    return body | {"choices": spent["choices"][:1] + body.get("choices", [])[1:]}


def _no_choices(body: Body) -> Body:
    return body | {"choices": []}


def _one_choice(body: Body) -> Body:
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
    ending = {"finish_reason": finish_reason} if finish_reason else {}
    full = {"role": "assistant", "content": None, "refusal": None} | message
    return body | {
        "choices": [
            choice | ending | ({"message": full} if "message" in choice else {"text": message.get("content", "")})
            for choice in body.get("choices", [])
        ]
    }
