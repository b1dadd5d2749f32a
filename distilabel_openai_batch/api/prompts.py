"""Start of a request's prompt, by which people recognise the request."""

from __future__ import annotations

from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.text import escape_surrogates

_CHARACTERS = 100


def prompt_start(body: bytes) -> str:
    """Return the first 100 characters of the last message, the prompt or the input of a body, in one line.

    Args:
        body: the body as JSON; a text that is no body has an empty prompt.
    """
    try:
        fields = decode_json(body)
    except ValueError:
        return ""
    if not isinstance(fields, dict):
        return ""
    content = fields.get("messages", fields.get("input", fields.get("prompt")))
    line = " ".join(_text_of(content).split())
    return escape_surrogates(line if len(line) <= _CHARACTERS else f"{line[: _CHARACTERS - 1]}…")


def _text_of(content: object) -> str:
    """Return the text of a message, of the last message of a list, or of the text parts of a message."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text_of(content["content"] if "content" in content else content.get("text"))
    if not isinstance(content, list):
        return ""
    if any(isinstance(part, dict) and "role" in part for part in content):
        return _text_of(content[-1])
    return " ".join(filter(None, map(_text_of, content)))
