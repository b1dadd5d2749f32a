"""Log lines about the failures of a run."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.display.advice import RUN_AGAIN
from distilabel_openai_batch.display.failure_kinds import FailureKinds


@pytest.mark.parametrize(
    ("code", "is_warned"), [("length", True), ("truncated", True), ("content_filter", False), ("batch_expired", False)]
)
def test_the_advice_to_run_again_warns_of_limits_that_are_spent_again(code, is_warned):
    """The same request under the same limit is billed again, and as empty as before."""
    kinds = FailureKinds()
    for number in range(3):
        kinds.add(Failure("Failed.", 200, code), f"{number}-0", code)
    *_, last = kinds.lines("scope", RUN_AGAIN)
    assert ("without a change, 3 requests would be billed again" in last) is is_warned
