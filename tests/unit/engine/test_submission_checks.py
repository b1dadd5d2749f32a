"""Warnings before a submission: the pause, and the end of a run that must not submit again."""

from __future__ import annotations

import anyio
import pytest

from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.submission_checks import SubmissionChecks
from distilabel_openai_batch.errors import UnmatchedAnswersError

REQUESTS = [Request("a-0", "/v1/chat/completions", "m", b"{}")]


class Pauses(Observer):
    """Observer that records pauses, and a clock that the test moves."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.ended = anyio.Event()

    def on_submission_paused(self, requests, seconds) -> None:
        self.events.append((requests, seconds))

    async def sleep(self, seconds: float) -> None:
        await self.ended.wait()


async def quiet(requests, known) -> str:
    return ""


async def warn(requests, known) -> str:
    return "Earlier answers match no request."


@pytest.mark.parametrize(
    ("check", "rows", "seconds", "events"),
    [
        (warn, "", 10.0, [(1, 10.0)]),
        (quiet, "1 row lacks an input.", 10.0, [(1, 10.0)]),
        (warn, "", 0.0, []),
        (quiet, "", 10.0, []),
    ],
    ids=["unmatched answers", "rows without an input", "no terminal", "no warning"],
)
async def test_a_submission_pauses_after_a_warning_alone(check, rows, seconds, events):
    pauses = Pauses()
    pauses.ended.set()
    await SubmissionChecks([check], pauses, lambda: rows, seconds, sleep=pauses.sleep).run(REQUESTS, 0)
    assert pauses.events == events


async def test_rows_without_new_requests_are_not_checked():
    pauses = Pauses()
    await SubmissionChecks([quiet], pauses, lambda: "Warning.", 10.0, sleep=pauses.sleep).run([], 3)
    assert pauses.events == []


async def test_a_warning_ends_a_run_that_must_not_submit_again():
    """No pause comes first: a scheduled run has no user."""
    pauses = Pauses()
    checks = SubmissionChecks([warn], pauses, pause_seconds=10.0, fails_unmatched=True, sleep=pauses.sleep)
    with pytest.raises(UnmatchedAnswersError, match=r"match no request.*Nothing was submitted.*on_unmatched"):
        await checks.run(REQUESTS, 0)
    assert pauses.events == []
