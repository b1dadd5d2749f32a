"""Decorators of `deliver`: answers only, and failures behind a deadline."""

from __future__ import annotations

import time

import pytest

from distilabel_openai_batch.api.outcomes import OVERDUE, Answer, Failure
from distilabel_openai_batch.engine.delivery import deliver_answers, deliver_until

ANSWER = Answer.of({"text": "Yes."})
TRANSIENT = Failure("Try again.", 503)
PERMANENT = Failure("Bad.", 400)
OUTCOMES = {"answered": ANSWER, "transient": TRANSIENT, "permanent": PERMANENT}


def test_deliver_answers_drops_failures():
    delivered = {}
    deliver_answers(delivered.update)(OUTCOMES)
    assert delivered == {"answered": ANSWER}


@pytest.mark.parametrize(
    ("seconds_left", "transient"), [(60.0, TRANSIENT), (-60.0, OVERDUE)], ids=["before the deadline", "after it"]
)
def test_transient_failures_are_overdue_after_the_deadline(seconds_left, transient):
    """No other job is waited for then; answers and permanent failures stay as they are."""
    delivered = {}
    deliver_until(time.monotonic() + seconds_left, delivered.update)(OUTCOMES)
    assert delivered == {"answered": ANSWER, "transient": transient, "permanent": PERMANENT}
