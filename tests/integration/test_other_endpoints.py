"""Moderation and images through the sandbox: the same jobs and ledger as for an LLM."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import OpenAIBatchImageGeneration, OpenAIBatchModeration
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.environment import load_as_new_process

TEXTS = ["Why is the sky blue?", "I hate number 1.", "Number 2."]


def moderate() -> list:
    results = load_as_new_process(OpenAIBatchModeration(min_poll_interval=0.02)).moderate(TEXTS)
    return [result and result["flagged"] for result in results]


def draw() -> list:
    model = OpenAIBatchImageGeneration(model="gpt-image-1.5", min_poll_interval=0.02)
    return [bool(output[0]["images"]) or None for output in load_as_new_process(model).generate(TEXTS)]


@pytest.mark.parametrize(
    ("run", "endpoint", "expected"),
    [
        (moderate, "/v1/moderations", [False, True, None]),
        (draw, "/v1/images/generations", [True, True, None]),
    ],
)
def test_answers_are_received_once_and_a_failed_row_has_none(sandbox, run, endpoint, expected):
    sandbox.configure(failures=[RequestFailure(contains="Number 2.", status=400)])

    assert run() == expected
    assert run() == expected
    assert {batch["endpoint"] for batch in sandbox.books().batches} == {endpoint}
    assert sorted(sandbox.books().billed.values()) == [1, 1]
