"""Outline of a request's body, which tells the parts in which two requests differ, and holds no text of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import orjson

from distilabel_openai_batch.api.encoding import decode_json, encode_canonical_json

_USER_PROMPT = "user_prompt"

ONLY_PROMPTS_DIFFER = f"{_USER_PROMPT} differs"
"""Difference of requests that differ in the prompts of their rows alone, as requests of new rows do."""

# Fields besides `messages` that hold the texts of a row.
_PROMPT_FIELDS = ("prompt", "input")
# Longer values, such as schemas, are known by their digest.
_LONGEST_VALUE = 40


def outline_body(body: bytes) -> dict[str, str]:
    """Return the parts of a body by name: parameters as JSON, prompts and other long values as a digest.

    The messages of one role are one part: `system_prompt`, `user_prompt`.

    Args:
        body: the body as JSON; a text that is no body has no parts.
    """
    try:
        fields = decode_json(body)
    except ValueError:
        return {}
    if not isinstance(fields, dict):
        return {}
    parts: dict[str, object] = {}
    for name, value in fields.items():
        if name == "messages" or (name == "input" and _is_chat(value)):
            parts |= _split_by_role(value)
        else:
            parts[_USER_PROMPT if name in _PROMPT_FIELDS else str(name)] = value
    return {name: _outline_value(name, value) for name, value in parts.items()}


def describe_difference(earlier: Iterable[Mapping[str, str]], later: Iterable[Mapping[str, str]]) -> str:
    """Return the parts in which requests differ from earlier requests; an empty text if an earlier one is unknown.

    Rows differ in their prompts, so the two most similar requests are compared, and a difference of the user's prompt
    counts only if there is no other one.

    Args:
        earlier: outlines of earlier requests.
        later: outlines of the requests of the run.
    """
    outlines = list(later)
    differences = [_differing_parts(first, second) for first in earlier for second in outlines]
    if not differences:
        return ""
    parts = min(differences, key=len)
    others = {name: change for name, change in parts.items() if name != _USER_PROMPT} or parts
    return ", ".join(f"{name} differs{change}" for name, change in others.items())


def dump_outline(outline: Mapping[str, str]) -> str:
    """Return an outline as JSON."""
    return orjson.dumps(dict(outline)).decode()


def load_outline(text: str) -> dict[str, str]:
    """Return the outline that `dump_outline` wrote."""
    outline: dict[str, str] = orjson.loads(text)
    return outline


def _is_chat(value: object) -> bool:
    """Return whether the input of a request is a chat, as at the Responses API, and no text to embed."""
    return isinstance(value, list) and any(isinstance(item, dict) and "role" in item for item in value)


def _split_by_role(messages: object) -> dict[str, object]:
    """Return the messages by the name of their part, each list without the other roles."""
    parts: dict[str, object] = {}
    for message in messages if isinstance(messages, list) else []:
        role = message.get("role") if isinstance(message, dict) else None
        part = parts.setdefault(f"{role}_prompt" if role in ("system", "user") else f"{role} messages", [])
        assert isinstance(part, list)
        part.append(message)
    return parts


def _outline_value(name: str, value: object) -> str:
    text = encode_canonical_json(value)
    is_private = name.endswith(("_prompt", " messages"))
    if is_private or len(text) > _LONGEST_VALUE:
        return f"#{blake2b(text, digest_size=8).hexdigest()}"
    return text.decode()


def _differing_parts(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the differing parts, each with both values if they are short."""
    names = [*first, *(name for name in second if name not in first)]
    return {name: _change(first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _change(first: str | None, second: str | None) -> str:
    if any(value is not None and value.startswith("#") for value in (first, second)):
        return ""
    return f": {first or 'none'} → {second or 'none'}"
