"""Tests of `pricing.token_estimates`."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.token_estimates import estimate_usage, explain_no_bound

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}


def message(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens"),
    [
        (CHAT, {"messages": [message("x" * 40)], "max_tokens": 128}, (17, 128)),
        (CHAT, {"messages": [message("x" * 41), message("")], "max_completion_tokens": 128, "n": 3}, (22, 384)),
        # Azure's path has no version.
        ("/chat/completions", {"messages": [message("x" * 40)], "max_tokens": 128}, (17, 128)),
        # Bytes count, not characters.
        (CHAT, {"messages": [message("水" * 8)], "max_tokens": 1}, (13, 1)),
        (CHAT, {"messages": [message("\ud800")], "max_tokens": 1}, (8, 1)),
        # A long prompt may be written to the server's cache, unless the request forbids that.
        (CHAT, {"messages": [message("x" * 4_096)], "max_tokens": 1}, (1_031, 1, 0, 1_031)),
        (
            CHAT,
            {
                "messages": [message("x" * 4_096)],
                "max_tokens": 1,
                "prompt_cache_options": {"mode": "explicit"},
            },
            (1_031, 1),
        ),
        # Parts that make no sense raise no error.
        (CHAT, {"messages": [message([{"type": "text", "text": "x" * 40}, 7])], "max_tokens": 1}, (17, 1)),
        (CHAT, {"model": "gpt-4o", "messages": [message([IMAGE])], "max_tokens": 1}, (7 + 85, 1)),
        # The bound of an image, of audio or of a file is unknown.
        (CHAT, {"model": "mine", "messages": [message([IMAGE])], "max_tokens": 1}, None),
        (CHAT, {"messages": [message([{"type": "input_audio", "input_audio": {}}])], "max_tokens": 1}, None),
        (CHAT, {"messages": [message([{"type": "file", "file": {}}])], "max_tokens": 1}, None),
        (CHAT, {"messages": [message(None)], "max_tokens": 1, "tools": [{"a": 1}]}, (10, 1)),
        (CHAT, {"messages": [message("x")]}, None),
        (COMPLETIONS, {"prompt": "x" * 40, "max_tokens": 5}, (10, 5)),
        (COMPLETIONS, {"prompt": "x" * 40}, (10, 16)),
        (RESPONSES, {"input": [message("x" * 40)], "max_output_tokens": 128}, (17, 128)),
        (RESPONSES, {"input": "x" * 40, "max_output_tokens": 128}, (17, 128)),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": "x" * 40}], "max_output_tokens": 1}, (17, 1)),
        (RESPONSES, {"input": [message("")], "max_output_tokens": 1, "text": {"a": 1}}, (9, 1)),
        (RESPONSES, {"input": [message("x")]}, None),
        (RESPONSES, {"input": [message([{"type": "input_file", "file_id": "f"}])], "max_output_tokens": 1}, None),
        ("/v1/moderations", {"input": "x" * 40}, (10, 0)),
        ("/v1/images/generations", {"prompt": "x" * 40}, None),
        (EMBEDDINGS, {"input": "x" * 40}, (10, 0)),
        (EMBEDDINGS, {"input": ["x" * 40, "y" * 4]}, (11, 0)),
    ],
)
def test_tokens_in_follow_from_the_texts_and_tokens_out_from_the_limit(endpoint, body, tokens):
    assert estimate_usage(endpoint, body) == (Usage(*tokens) if tokens else None)


def test_the_reason_of_a_missing_bound_is_a_part_or_a_limit():
    assert explain_no_bound({"messages": [message("x")]}).startswith("sets no limit")
    assert explain_no_bound({"model": "mine", "messages": [message([IMAGE])]}).startswith("contains an image")
