"""Lanes: the flex tier, batches and the synchronous endpoint give the same rows; only price and speed differ."""

from __future__ import annotations

from collections import Counter

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from tests.support.environment import load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
pytestmark = pytest.mark.usefixtures("quick_retries")


def generate(questions=QUESTIONS, **fields):
    """Return the outputs that a new process gets from a model with the flex tier."""
    llm = OpenAIBatchLLM(**{"model": "gpt-5-mini", "min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions)


def count_requests(sandbox) -> Counter[str]:
    """Return the numbers of billed requests by their tier; no request is billed twice."""
    books = sandbox.books()
    assert not books.billed_bodies.keys() & books.sync_bodies.keys()
    assert set(books.billed_bodies.values()) | set(books.sync_bodies.values()) <= {1}
    return Counter({"batch": len(books.billed_bodies)} if books.billed_bodies else {}) + Counter(books.sync_tiers)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"lane": "flex"}, {"flex": 12}),
        ({"lane": "sync"}, {"default": 12}),
        ({"lane": "auto"}, {"flex": 12}),
        ({"lane": "auto", "flex_below": 12}, {"batch": 12}),
        ({"sync_below": 13}, {"flex": 12}),
        ({"preflight": True}, {"batch": 11, "flex": 1}),
        ({"lane": "flex", "model": "gpt-4o-mini"}, {"batch": 12}),
        ({"lane": "flex", "model": "gpt-4o-mini", "flex_fallback": True}, {"default": 12}),
        ({"lane": "auto", "model": "gpt-4o-mini", "flex_fallback": True}, {"batch": 12}),
        ({"sync_below": 13, "supports_flex": False}, {"default": 12}),
    ],
)
def test_each_lane_gives_the_rows_of_a_batch(sandbox, fields, counts):
    """A second run, of any lane, finds the answers: the tier is not part of a request's identity."""
    outputs = generate(**fields)
    assert count_requests(sandbox) == counts
    model = {"model": fields.get("model", "gpt-5-mini")}
    assert generate(**model) == outputs
    assert count_requests(sandbox) == counts
    assert generate(**model, reuse_answers=False) == outputs
