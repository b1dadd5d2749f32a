"""Warnings about money before requests are submitted, and a pause in which a user can stop the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.errors import UnmatchedAnswersError

Check = Callable[[Sequence[Request], int], Awaitable[str]]
"""Function that warns before a submission, see `SubmissionChecks`; returns the reason of a warning, or an empty text.

Its arguments are the requests that are about to be submitted, and the number of requests of the same flush that an
earlier run has submitted.
"""


class SubmissionChecks:
    """Checks of the requests that are about to be submitted.

    After a warning the submission pauses, so that a user can stop the run before anything is billed. Other submissions
    of the session wait too, since the dispatcher checks one flush at a time. Without a warning nothing pauses.

    Args:
        checks: the checks, in their order.
        observer: receives each pause.
        check_rows: returns the reason of a warning about the rows of the requests, or an empty text; may raise.
        pause_seconds: duration of the pause, in seconds; 0 for no pause.
        fails_unmatched: whether a warning of `checks` ends the run.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        observer: Observer,
        check_rows: Callable[[], str] = lambda: "",
        pause_seconds: float = 0.0,
        *,
        fails_unmatched: bool = False,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._checks = checks
        self._observer = observer
        self._pause_seconds = pause_seconds
        self._check_rows = check_rows
        self._fails_unmatched = fails_unmatched
        self._sleep = sleep

    async def run(self, requests: Sequence[Request], known: int) -> None:
        """Run each check, and pause after a warning.

        Args:
            requests: the requests that are about to be submitted.
            known: the number of requests of the same flush that an earlier run has submitted.

        Raises:
            UnmatchedAnswersError: a check warned, and such a warning ends the run.
            RunError: the error of `check_rows`.
        """
        reasons = [reason for check in self._checks if (reason := await check(requests, known))]
        if reasons and self._fails_unmatched:
            raise UnmatchedAnswersError(f'{" ".join(reasons)} Nothing was submitted, because of `on_unmatched="fail"`.')
        is_suspect = bool(requests and self._check_rows()) or bool(reasons)
        if is_suspect and self._pause_seconds:
            self._observer.on_submission_paused(len(requests), self._pause_seconds)
            await self._sleep(self._pause_seconds)
