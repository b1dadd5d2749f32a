"""Starts of prompts."""

from __future__ import annotations

import orjson
import pytest

from distilabel_openai_batch.api.prompts import prompt_start

SYSTEM = {"role": "system", "content": "Be brief."}
PARTS = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "x"}}, {"text": "this?"}]


@pytest.mark.parametrize(
    ("body", "start"),
    [
        ({"messages": [SYSTEM, {"role": "user", "content": "Why is\n  the sky blue?"}]}, "Why is the sky blue?"),
        ({"messages": [SYSTEM, {"role": "user", "content": PARTS}]}, "What is this?"),
        ({"messages": [{"role": "assistant", "content": None}]}, ""),
        ({"messages": "odd"}, "odd"),
        ({"messages": [7, None]}, ""),
        ({"prompt": "Once upon a time"}, "Once upon a time"),
        ({"input": ["one", "two"]}, "one two"),
        ({"input": "a text"}, "a text"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]}, "Hello"),
        ({"prompt": "a" * 101}, "a" * 99 + "…"),
        ({}, ""),
    ],
)
def test_a_prompt_starts_with_the_text_of_the_last_message(body, start):
    assert prompt_start(orjson.dumps(body)) == start


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7"])
def test_a_text_that_is_no_body_has_no_prompt(body):
    assert prompt_start(body) == ""


def test_a_lone_surrogate_is_escaped():
    """SQLite stores texts as UTF-8, which has no lone surrogates."""
    assert prompt_start(b'{"prompt": "\\ud800"}') == "\\ud800"
