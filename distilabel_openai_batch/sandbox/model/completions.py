"""Answers of `/v1/completions`, the legacy endpoint."""

from __future__ import annotations

from typing import Any

from .checks import get_parameter
from .hashing import creation_time, text_seed
from .sampling import cut_text, rank_alternatives, stop_sequences, usage
from .snapshots import snapshot_name
from .task_formats import write_reply
from .tokens import count_prompt_tokens, count_tokens, split_tokens

# Default `max_tokens` of the legacy endpoint, https://platform.openai.com/docs/api-reference/completions/create.
_DEFAULT_MAX_TOKENS = 16


def legacy_completion(body: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the body of a legacy completion.

    Args:
        body: body of the request, already checked.
        digest: SHA-256 of the body, in hexadecimal.
    """
    prompt = get_parameter(body, "prompt", "")
    has_many = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    choices: list[dict[str, Any]] = []
    completion_tokens = 0
    for item in prompt if has_many else [prompt]:
        # Token numbers cannot be decoded, so name only their count.
        words = item if isinstance(item, str) else f"a prompt of {len(item)} tokens"
        seed = text_seed(words, body.get("seed"), body.get("temperature"))
        for turn in range(get_parameter(body, "n", 1)):
            choice, tokens = _choice(body, words, seed + turn, len(choices))
            choices.append(choice)
            completion_tokens += tokens
    prompt_tokens = count_prompt_tokens("/v1/completions", body)
    return {
        "id": f"cmpl-{digest[:29]}",
        "object": "text_completion",
        "created": creation_time(digest),
        "model": snapshot_name(body["model"]),
        "choices": choices,
        "usage": usage(prompt_tokens, completion_tokens),
    }


def _choice(body: dict[str, Any], prompt: str, seed: int, index: int) -> tuple[dict[str, Any], int]:
    """Return one choice and the number of its tokens."""
    token_limit = get_parameter(body, "max_tokens", _DEFAULT_MAX_TOKENS)
    text, finish_reason = cut_text(" " + write_reply(prompt, seed), stop_sequences(body), token_limit)
    echo = prompt if body.get("echo") else ""
    logprobs = None
    if body.get("logprobs") is not None:
        logprobs = _logprobs(echo, text, seed, body["logprobs"])
    choice = {"text": echo + text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
    return choice, count_tokens(text)


def _logprobs(echo: str, text: str, seed: int, top: int) -> dict[str, Any]:
    """Return parallel lists of tokens, log probabilities, alternatives and offsets.

    The first token of an echoed prompt follows nothing, so the API gives no log probability for that token.
    """
    tokens = split_tokens(echo) + split_tokens(text)
    ranked = [rank_alternatives(token, seed + position, max(top, 1)) for position, token in enumerate(tokens)]
    values: list[float | None] = [entry[0][1] for entry in ranked]
    alternatives: list[dict[str, float] | None] = [dict(entry[:top]) for entry in ranked]
    if echo:
        values[0] = alternatives[0] = None
    offsets = []
    offset = 0
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": alternatives if top else None,
        "text_offset": offsets,
    }
