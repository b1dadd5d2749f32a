"""Estimates of the tokens that a request will be billed. Pure functions.

Tokens in are approximated: four bytes of UTF-8 count as one token, which is close for English text and not far off for
other scripts. An exact count would need a download of tokenizer tables, and servers add tokens that they do not
document. Tokens out are bounded by the limit that the request sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from distilabel_openai_batch.api.model_traits import read_limit
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.image_tokens import bound_image_tokens

_BYTES_PER_TOKEN = 4

# Tokens that a chat adds to the texts of its messages: three for the chat, and four for each message.
# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
_TOKENS_PER_CHAT = 3
_TOKENS_PER_MESSAGE = 4

# Parameters that the server writes into the prompt, of chats and of the Responses API.
_COUNTED_PARAMETERS = ("tools", "response_format", "text")

# Fields with texts, of messages and of the other input items of the Responses API.
_TEXT_FIELDS = ("content", "arguments", "output")

# Limit that the legacy endpoint sets for a request without one.
# https://platform.openai.com/docs/api-reference/completions/create#completions-create-max_tokens
_DEFAULT_COMPLETION_TOKENS = 16

# Shortest prompt that a server caches. https://platform.openai.com/docs/guides/prompt-caching
_CACHED_PROMPT_TOKENS = 1_024


def estimate_usage(endpoint: str, body: Mapping[str, Any]) -> Usage | None:
    """Estimate the tokens that a request will be billed.

    Images count by the published rules, see `image_tokens`. A prompt that is long enough for the server's cache counts
    as written to the cache, since written tokens may cost more than other tokens.

    Args:
        endpoint: the path of the endpoint.
        body: the request's JSON object.

    Returns:
        Approximated tokens in and the upper bound of tokens out; `None` if the request has no upper bound, see
        `explain_no_bound`.
    """
    if endpoint.endswith(("/embeddings", "/moderations")):
        return Usage(_count_tokens(_texts(body.get("input"))), 0)
    if endpoint.endswith("/images/generations"):
        return None
    limit = read_limit(body)
    if endpoint.endswith(("/chat/completions", "/responses")):
        messages = _messages(body)
        extras = [orjson.dumps(body[name]).decode() for name in _COUNTED_PARAMETERS if body.get(name)]
        fields = _TEXT_FIELDS[:1] if "messages" in body else _TEXT_FIELDS
        texts = [text for message in messages for name in fields for text in _texts(message.get(name))]
        images = _count_image_tokens(body)
        if images is None:
            return None
        tokens_in = _TOKENS_PER_CHAT + _TOKENS_PER_MESSAGE * len(messages) + _count_tokens([*texts, *extras]) + images
    else:
        tokens_in = _count_tokens(_texts(body.get("prompt")))
        limit = limit or _DEFAULT_COMPLETION_TOKENS
    written = tokens_in if tokens_in >= _CACHED_PROMPT_TOKENS and not _forbids_writes(body) else 0
    return Usage.of_request(tokens_in, limit * (body.get("n") or 1), tokens_written=written) if limit else None


def with_more_input(usage: Usage, tokens: int) -> Usage:
    """Return the usage of a request whose prompt has more tokens."""
    tokens_in = usage.tokens_in + tokens
    written = tokens_in if tokens_in >= _CACHED_PROMPT_TOKENS else 0
    return Usage.of_request(tokens_in, usage.tokens_out, tokens_written=written)


def explain_no_bound(body: Mapping[str, Any]) -> str:
    """Return the reason why a request has no upper bound of its cost, as the end of a sentence about the request."""
    if _count_image_tokens(body) is None:
        return "contains an image, audio or a file whose tokens no published rule of this model counts"
    return "sets no limit on the tokens of its answer"


def _forbids_writes(body: Mapping[str, Any]) -> bool:
    """Return whether a request forbids the server to write its prompt to the cache by itself."""
    options = body.get("prompt_cache_options")
    return isinstance(options, dict) and options.get("mode") == "explicit"


def _count_image_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the upper bound of the tokens of a chat's images; `None` if a part of a message has none."""
    total = 0
    for message in _messages(body):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or isinstance(part.get("text", part.get("refusal")), str):
                continue
            tokens = bound_image_tokens(str(body.get("model")), _image(part)) if "image_url" in part else None
            if tokens is None:
                return None
            total += tokens
    return total


def _messages(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the messages of a chat, or the items of a response's input, which may be a single text."""
    if "messages" in body:
        return body["messages"] or []
    items = body.get("input")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else [{"content": items}]


def _image(part: Mapping[str, Any]) -> object:
    """Return the image of a part; the Responses API has `detail` beside the address."""
    image = part["image_url"]
    return {"url": image, "detail": part.get("detail")} if isinstance(image, str) else image


def _texts(content: object) -> Iterable[str]:
    """Yield the texts of a message's content, of an input or of a prompt."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _count_tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN) for text in texts)
