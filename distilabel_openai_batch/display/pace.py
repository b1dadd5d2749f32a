"""Pace of a run: the time that is left."""

from __future__ import annotations

from distilabel_openai_batch.display.timings import estimate_seconds_left


class Pace:
    """Estimate of the seconds until a run's requests are done, by the pace since the first job of the round."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._done_before = 0

    def start(self, now: float, done: int) -> None:
        """Begin to measure, with the first job that the run creates or continues in a round.

        Args:
            now: the time of a monotonic clock, in seconds.
            done: number of requests that are done already: reused answers, and the job's earlier answers.
        """
        if self._started is None:
            self._started, self._done_before = now, done

    def restart(self) -> None:
        """Measure again from the next job on: answered requests of the round before are pending again."""
        self._started = None

    def seconds_left(self, now: float, done: int, total: int) -> float | None:
        """Return the estimated seconds that are left; `None` before a request is done, and when all are done.

        Args:
            now: the time of the monotonic clock, in seconds.
            done: number of requests that are done.
            total: number of all requests.
        """
        if self._started is None or now <= self._started or not self._done_before < done < total:
            return None
        return estimate_seconds_left(now - self._started, done - self._done_before, total - self._done_before)
