"""Tests of `report.row_texts`."""

from __future__ import annotations

import json

import pytest

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.report.row_texts import answer_text, finish_reasons, prompt_text

USER = {"role": "user", "content": "Hi"}
TEXTS = [{"text": "A", "finish_reason": "length"}, {"text": "B", "finish_reason": "stop"}]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]},
            "[system] Be kind.\n\nHi",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url"}]}]},
            "What?\n(image_url)",
        ),
        ({"prompt": "Once upon"}, "Once upon"),
        ({"input": ["one", "two"]}, "one\ntwo"),
        ({"input": "one"}, "one"),
        ({"input": [USER]}, "Hi"),
        ({"messages": "odd"}, "odd"),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_prompt_is_the_text_of_its_messages(body, text):
    assert prompt_text(json.dumps({"custom_id": "a", "body": body}).encode()) == text


@pytest.mark.parametrize(
    ("body", "text", "reasons"),
    [
        ({"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]}, "A", "stop"),
        ({"choices": [{"message": {"content": None, "refusal": "No."}}]}, "No.", ""),
        (
            {"choices": [{"text": "A", "finish_reason": "length"}, {"text": "B", "finish_reason": "stop"}]},
            "A\n\nB",
            "length, stop",
        ),
        ({"choices": [{"message": {"tool_calls": [{"id": "ä"}]}}]}, '[{"id": "ä"}]', ""),
        ({"choices": [None, {}, {"message": None}]}, "", ""),
        ({"data": [{"embedding": [0.0, 1.0]}]}, "a vector of 2 numbers", ""),
        ({"data": [{"embedding": "AAA="}]}, "a vector", ""),
        ({"odd": 1}, '{"odd": 1}', ""),
    ],
)
def test_an_answer_is_the_text_of_its_choices(body, text, reasons):
    answer = Answer.of(body)
    assert answer_text(answer) == text
    assert finish_reasons(answer) == reasons
