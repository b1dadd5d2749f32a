"""Estimates of the tokens that a request will be billed. Pure functions.

Tokens in are approximated: four bytes of UTF-8 count as one token, which is close for English text and not far off for
other scripts. An exact count would need a download of tokenizer tables, and servers add tokens that they do not
document. Tokens out are bounded by the limit that the request sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from distilabel_openai_batch.api.model_traits import read_limit
from distilabel_openai_batch.api.usage import Usage

_BYTES_PER_TOKEN = 4

# Tokens that a chat adds to the texts of its messages: three for the chat, and four for each message.
# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
_TOKENS_PER_CHAT = 3
_TOKENS_PER_MESSAGE = 4

# Limit that the legacy endpoint sets for a request without one.
# https://platform.openai.com/docs/api-reference/completions/create#completions-create-max_tokens
_DEFAULT_COMPLETION_TOKENS = 16


def estimate_usage(endpoint: str, body: Mapping[str, Any]) -> Usage | None:
    """Estimate the tokens that a request will be billed.

    Images, audio and files count as zero tokens: their price depends on the model and on their size.

    Args:
        endpoint: the path of the endpoint.
        body: the request's JSON object.

    Returns:
        Approximated tokens in and the upper bound of tokens out; `None` if the request sets no limit on its answer.
    """
    if endpoint.endswith("/embeddings"):
        return Usage(_count_tokens(_texts(body.get("input"))), 0)
    limit = read_limit(body)
    if endpoint.endswith("/chat/completions"):
        messages = body.get("messages") or []
        extras = [orjson.dumps(body[name]).decode() for name in ("tools", "response_format") if body.get(name)]
        texts = [text for message in messages for text in _texts(message.get("content"))]
        tokens_in = _TOKENS_PER_CHAT + _TOKENS_PER_MESSAGE * len(messages) + _count_tokens([*texts, *extras])
    else:
        tokens_in = _count_tokens(_texts(body.get("prompt")))
        limit = limit or _DEFAULT_COMPLETION_TOKENS
    return Usage.of_request(tokens_in, limit * (body.get("n") or 1)) if limit else None


def _texts(content: object) -> Iterable[str]:
    """Yield the texts of a message's content, of an input or of a prompt."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _count_tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN) for text in texts)
