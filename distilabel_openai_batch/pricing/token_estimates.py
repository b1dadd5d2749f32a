"""How many tokens a request will be billed, before it is asked. Pure.

What goes in is an estimate: four bytes of UTF-8 are taken for a token, which English text comes close to, and texts in
other scripts are not far from. A tokenizer's tables would have to be downloaded, and what servers add they do not tell.
What comes out is a bound: the request's own limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from distilabel_openai_batch.api.usage import Usage

_BYTES_PER_TOKEN = 4

# What a chat adds to the texts of its messages: its own three, and four for each message.
# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
_TOKENS_PER_CHAT = 3
_TOKENS_PER_MESSAGE = 4

# The legacy endpoint's own limit, where a request has none.
# https://platform.openai.com/docs/api-reference/completions/create#completions-create-max_tokens
_DEFAULT_COMPLETION_TOKENS = 16


def usage(endpoint: str, body: Mapping[str, Any]) -> Usage | None:
    """The tokens that a request will be billed.

    Images, audio and files count as nothing: what they are billed depends on the model and on their size.

    Args:
        endpoint: the path that it goes to.
        body: what goes there.

    Returns:
        Those in, estimated, and those out, at most; `None` where the request sets its answer no limit.
    """
    if endpoint.endswith("/embeddings"):
        return Usage(_tokens(_texts(body.get("input"))), 0)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if endpoint.endswith("/chat/completions"):
        messages = body.get("messages") or []
        extras = [orjson.dumps(body[name]).decode() for name in ("tools", "response_format") if body.get(name)]
        texts = [text for message in messages for text in _texts(message.get("content"))]
        tokens_in = _TOKENS_PER_CHAT + _TOKENS_PER_MESSAGE * len(messages) + _tokens([*texts, *extras])
    else:
        tokens_in = _tokens(_texts(body.get("prompt")))
        limit = limit or _DEFAULT_COMPLETION_TOKENS
    return Usage.of_request(tokens_in, limit * (body.get("n") or 1)) if limit else None


def _texts(content: object) -> Iterable[str]:
    """The texts in a message's content, an input or a prompt."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN) for text in texts)
