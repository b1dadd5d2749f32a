"""Token counts of prompts and texts."""

from __future__ import annotations

from typing import Any

# OpenAI's rule of thumb: one token is four characters, https://help.openai.com/en/articles/4936856.
CHARACTERS_PER_TOKEN = 4
# OpenAI's charge for a small image, https://platform.openai.com/docs/guides/images-vision.
_TOKENS_PER_IMAGE = 85
# Overhead of the chat format, close to OpenAI's: 4 tokens per message, and 3 that open the answer.
_TOKENS_PER_MESSAGE = 4
_TOKENS_PER_CHAT = 3


def split_tokens(text: str) -> list[str]:
    """Split a text into tokens of `CHARACTERS_PER_TOKEN` characters."""
    return [text[start : start + CHARACTERS_PER_TOKEN] for start in range(0, len(text), CHARACTERS_PER_TOKEN)]


def count_tokens(text: str) -> int:
    """Count the tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def count_prompt_tokens(endpoint: str, body: dict[str, Any]) -> int:
    """Count the tokens of a request's prompt. A malformed prompt counts as far as the prompt is readable.

    Args:
        endpoint: path of the endpoint, such as `/v1/chat/completions`.
        body: body of the request.
    """
    if endpoint == "/v1/chat/completions":
        messages = body.get("messages")
        return count_chat_tokens(messages) if isinstance(messages, list) else 0
    if endpoint == "/v1/responses":
        return _count_items(body)
    texts = body.get("prompt" if endpoint == "/v1/completions" else "input")
    return _count_input(texts)


def count_chat_tokens(messages: list[Any]) -> int:
    """Count the tokens of the messages of a chat."""
    return sum(map(_count_message, messages)) + _TOKENS_PER_CHAT


def _count_items(body: dict[str, Any]) -> int:
    """Count the tokens of the instructions and of the input items of a response's request."""
    value = body.get("input")
    items = value if isinstance(value, list) else [{"content": value}]
    messages = [*items, {"content": body["instructions"]}] if body.get("instructions") else items
    return count_chat_tokens(messages)


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
    """Count the tokens of a text, of a list of texts, or of a list of token numbers."""
    if isinstance(texts, str):
        return count_tokens(texts)
    if isinstance(texts, list):
        return sum(1 if isinstance(text, int) else _count_input(text) for text in texts)
    return 0
