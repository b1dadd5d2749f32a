"""Durations of jobs: age, time from plan to end, and estimated time left. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.text import duration


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of one job, in seconds.

    Attributes:
        age: time since the plan.
        took: time from the plan to the end, at the server if it reports its moment; `None` for an open job, and for a
            dropped job without a recorded end.
        eta: estimated time until the end; `None` for an ended job, and while there is nothing to estimate from.
    """

    age: float
    took: float | None = None
    eta: float | None = None

    @property
    def label(self) -> str:
        """Text of a table cell: the time left of an open job (`ETA 5 min 00 s`), or the time that the job took."""
        return f"ETA {duration(self.eta)}" if self.eta is not None else duration(self.took)


def describe_past_jobs(past: PastJobs) -> str:
    """Return the sentence about the durations of a model's past jobs."""
    return f"Half of the last {past.jobs} jobs with {past.model} took at most {duration(past.median_seconds)}."


def short_time(seconds: float) -> str:
    """Return seconds since the epoch as local date and minute, without this year: `11-24 13:04`, else `2025-11-24`."""
    moment = datetime.fromtimestamp(seconds)
    return moment.strftime("%m-%d %H:%M" if moment.year == datetime.now().year else "%Y-%m-%d")


def job_timings(jobs: Sequence[JobEntry], now: float) -> list[Timing]:
    """Return the timing of each job, in the same order.

    Args:
        jobs: all jobs of the ledger: the durations of a scope's ended jobs predict the durations of its open jobs; the
            jobs of the model at the server do if the scope has no ended job.
        now: the current time, in seconds since the epoch.
    """
    by_scope: dict[ScopeName, list[float]] = {}
    by_model: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        took = _took(job)
        if took is not None and not job.is_open and job.state is not JobState.DROPPED and not job.is_reused:
            by_scope.setdefault(job.scope, []).append(took)
            if job.batch_id:
                by_model.setdefault((job.scope.base_url, job.model), []).append(took)
    return [
        Timing(
            max(0.0, now - job.created_at),
            _took(job),
            estimate_seconds_left(
                now - job.created_at,
                job.done,
                job.requests,
                by_scope.get(job.scope, []) or by_model.get((job.scope.base_url, job.model), []),
            )
            if job.is_open and not job.has_ended
            else None,
        )
        for job in jobs
    ]


def _took(job: JobEntry) -> float | None:
    return None if job.end_at is None else max(0.0, job.end_at - job.created_at)


def estimate_seconds_left(age: float, done: int, total: int, ended_durations: Sequence[float] = ()) -> float | None:
    """Return the estimated seconds until a job ends.

    The estimate follows the job's own pace once a request is done. Before the first one, the estimate is the rest of
    the median duration of the scope's ended jobs.

    Args:
        age: seconds since the job was planned.
        done: number of the job's requests with an outcome.
        total: number of the job's requests.
        ended_durations: durations of the scope's ended jobs, in seconds.

    Returns:
        `None` without a done request and without an ended job that took longer than `age`.
    """
    if done:
        return age / done * max(0, total - done)
    median = sorted(ended_durations)[len(ended_durations) // 2] if ended_durations else 0.0
    return median - age if median > age else None
