"""How many tokens a request may be billed."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.token_estimates import usage

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def message(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens"),
    [
        (CHAT, {"messages": [message("x" * 40)], "max_tokens": 128}, (17, 128)),
        (CHAT, {"messages": [message("x" * 41), message("")], "max_completion_tokens": 128, "n": 3}, (22, 384)),
        # Azure's has no version in front.
        ("/chat/completions", {"messages": [message("x" * 40)], "max_tokens": 128}, (17, 128)),
        # Bytes, not characters.
        (CHAT, {"messages": [message("水" * 8)], "max_tokens": 1}, (13, 1)),
        (CHAT, {"messages": [message("\ud800")], "max_tokens": 1}, (8, 1)),
        # Images are not counted; whatever else is odd is no error.
        (
            CHAT,
            {"messages": [message([{"type": "text", "text": "x" * 40}, {"image_url": "data:"}, 7])], "max_tokens": 1},
            (17, 1),
        ),
        (CHAT, {"messages": [message(None)], "max_tokens": 1, "tools": [{"a": 1}]}, (10, 1)),
        (CHAT, {"messages": [message("x")]}, None),
        (COMPLETIONS, {"prompt": "x" * 40, "max_tokens": 5}, (10, 5)),
        (COMPLETIONS, {"prompt": "x" * 40}, (10, 16)),
        (EMBEDDINGS, {"input": "x" * 40}, (10, 0)),
        (EMBEDDINGS, {"input": ["x" * 40, "y" * 4]}, (11, 0)),
    ],
)
def test_tokens_are_estimated(endpoint, body, tokens):
    """Those in by the length of the texts, those out by the request's own limit."""
    assert usage(endpoint, body) == (Usage(*tokens) if tokens else None)
