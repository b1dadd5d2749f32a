"""Histories of jobs as the ledger recorded them: phases, ends, and answers over time. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, chain, pairwise, repeat

from distilabel_openai_batch.ledger.entries import INTERRUPTED, JobEntry, JobTimeline
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState


class Phase(str, Enum):
    """Phase of a job. The values are the words on the page."""

    QUEUED = "queued"
    """From the plan until the server begins with the requests: upload, creation, and the wait in the server's queue."""
    IN_PROGRESS = "in progress"
    """The server answers the requests."""
    FINALIZING = "finalizing"
    """The server writes the result files."""
    CANCELLING = "cancelling"
    """The server stops before all requests are answered."""
    SYNCHRONOUS = "synchronous"
    """The synchronous endpoint answers the requests one by one."""
    UNKNOWN = "phase unknown"
    """Phase of an unknown kind: the server reported no moments, or no run polled the batch."""


class EndState(str, Enum):
    """State in which a job ended. The values are the words on the page."""

    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DROPPED = "dropped"
    OPEN = "open"
    """The job has not ended."""


_ENDS_BY_STATUS = {
    "completed": EndState.COMPLETED,
    "expired": EndState.EXPIRED,
    "cancelled": EndState.CANCELLED,
    "canceled": EndState.CANCELLED,
    "failed": EndState.FAILED,
    NOT_FOUND: EndState.FAILED,
    INTERRUPTED: EndState.DROPPED,
}

# A shorter range of time would have one moment at both ends of its axis.
_SHORTEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """Span of time that a job spent in one phase.

    Attributes:
        phase: the phase.
        start, end: seconds since the epoch.
    """

    phase: Phase
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class JobHistory:
    """History of one job.

    Attributes:
        job: the job.
        spans: the job's phases, in order and without gaps; at least one.
        end_state: the way in which the job ended.
        gains: triples of a moment in seconds since the epoch, new answers and new failures, in order of time.
    """

    job: JobEntry
    spans: tuple[PhaseSpan, ...]
    end_state: EndState
    gains: tuple[tuple[float, int, int], ...]

    @property
    def answered(self) -> int:
        """Number of answered requests, including answers that are still at the server."""
        return sum(answered for _, answered, _ in self.gains)

    @property
    def start(self) -> float:
        """Moment of the plan, in seconds since the epoch."""
        return self.spans[0].start

    @property
    def end(self) -> float:
        """Moment of the end, or the current time for an open job, in seconds since the epoch."""
        return self.spans[-1].end


def build_histories(jobs: Sequence[JobEntry], timelines: Sequence[JobTimeline], now: float) -> list[JobHistory]:
    """Build the histories of jobs.

    Args:
        jobs: all jobs of the ledger.
        timelines: the timelines of the first jobs, in the same order; a job without a timeline has no known moments.
        now: the current time in seconds since the epoch, at which the spans of open jobs end.

    Returns:
        The histories, without jobs of reused answers, which took no time.
    """
    all_timelines = chain(timelines, repeat(JobTimeline()))
    return [
        _build_history(job, timeline, now)
        for job, timeline in zip(jobs, all_timelines, strict=False)
        if not job.is_reused
    ]


def _build_history(job: JobEntry, timeline: JobTimeline, now: float) -> JobHistory:
    end_state = _end_state(job)
    # A job that was dropped before its batch was created has no recorded end.
    ended_at = timeline.finished_at or job.ended_at or job.created_at
    end = max(now if end_state is EndState.OPEN else ended_at, job.created_at)
    return JobHistory(job, tuple(_spans(job, timeline, end_state, end)), end_state, tuple(_gains(job, timeline, end)))


def _end_state(job: JobEntry) -> EndState:
    if job.state is JobState.DROPPED and job.status not in _ENDS_BY_STATUS:
        return EndState.DROPPED
    if job.is_synchronous and not job.is_interrupted:
        return EndState.OPEN if job.state is JobState.SYNCHRONOUS else EndState.COMPLETED
    return _ENDS_BY_STATUS.get(job.status, EndState.OPEN if job.is_open else EndState.COMPLETED)


def _spans(job: JobEntry, timeline: JobTimeline, end_state: EndState, end: float) -> Iterable[PhaseSpan]:
    if job.is_synchronous:
        return [PhaseSpan(Phase.SYNCHRONOUS, job.created_at, end)]
    if timeline.in_progress_at is None:
        # The server rejected the batch → no request was ever in progress.
        is_queued = end_state is EndState.FAILED or job.status == "validating" or not job.batch_id
        return [PhaseSpan(Phase.QUEUED if is_queued else Phase.UNKNOWN, job.created_at, end)]
    reported = [
        (Phase.QUEUED, job.created_at),
        (Phase.IN_PROGRESS, timeline.in_progress_at),
        (Phase.FINALIZING, timeline.finalizing_at),
        (Phase.CANCELLING, timeline.cancelling_at),
    ]
    # The server's clock may differ from ours → keep its moments between our plan and the end.
    starts = sorted(
        ((min(max(at, job.created_at), end), phase) for phase, at in reported if at is not None),
        key=lambda start: start[0],
    )
    ends = [at for at, _ in starts[1:]] + [end]
    spans = [
        PhaseSpan(phase, start, until) for (start, phase), until in zip(starts, ends, strict=True) if until > start
    ]
    return spans or [PhaseSpan(starts[-1][1], job.created_at, end)]


def _gains(job: JobEntry, timeline: JobTimeline, end: float) -> Iterable[tuple[float, int, int]]:
    """Yield the gains between polls, and at the end the rest of the job's counts.

    A server counts an answer without text as completed, the ledger counts the request as failed → the ledger decides.
    """
    answered = failed = 0
    for seen_at, polled_answers, polled_failures in (*timeline.polls, (end, job.answered, job.failed)):
        total_answered, total_failed = min(polled_answers, job.answered), min(polled_failures, job.failed)
        new_answers, new_failures = max(0, total_answered - answered), max(0, total_failed - failed)
        if new_answers or new_failures:
            yield min(seen_at, end), new_answers, new_failures
        answered, failed = answered + new_answers, failed + new_failures


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Number of answers and failures up to a moment.

    Attributes:
        at: the moment, in seconds since the epoch.
        answered: number of answers.
        failed: number of failures; each failed retry counts.
    """

    at: float
    answered: int
    failed: int


def count_answers_over_time(
    histories: Sequence[JobHistory], points: int, all_histories: Sequence[JobHistory] = ()
) -> list[AnswerCounts]:
    """Count the answers at equally distant moments, from the first job's plan to the last job's end.

    Args:
        histories: the jobs; without jobs there are no counts.
        points: the number of moments, at least 2.
        all_histories: the jobs that decide the moments; empty for `histories` themselves.
    """
    if not histories:
        return []
    gains = sorted(gain for history in histories for gain in history.gains)
    sums = list(accumulate(gains, lambda sums, gain: (gain[0], sums[1] + gain[1], sums[2] + gain[2])))
    counts, place = [], 0
    for moment in _moments(all_histories or histories, points):
        while place < len(sums) and sums[place][0] <= moment:
            place += 1
        _, answered, failed = sums[place - 1] if place else (0.0, 0, 0)
        counts.append(AnswerCounts(moment, answered, failed))
    return counts


@dataclass(frozen=True, slots=True)
class TimeBin:
    """Number of jobs in each phase during a span of time, on average, and number of jobs that ended in it.

    Attributes:
        start, end: seconds since the epoch.
        phases: average number of jobs by phase.
        ends: number of ended jobs by their end.
    """

    start: float
    end: float
    phases: dict[Phase, float]
    ends: dict[EndState, int]


def bin_jobs(histories: Sequence[JobHistory], count: int) -> list[TimeBin]:
    """Sort jobs into bins of equal length, from the first job's plan to the last job's end.

    Args:
        histories: the jobs; without jobs there are no bins.
        count: the number of bins.
    """
    if not histories:
        return []
    moments = _moments(histories, count + 1)
    start, length = moments[0], moments[1] - moments[0]
    bins = [TimeBin(at, until, {}, {}) for at, until in pairwise(moments)]

    def place(at: float) -> int:
        return min(count - 1, max(0, int((at - start) / length)))

    for history in histories:
        for span in history.spans:
            for time_bin in bins[place(span.start) : place(span.end) + 1]:
                share = (min(span.end, time_bin.end) - max(span.start, time_bin.start)) / length
                time_bin.phases[span.phase] = time_bin.phases.get(span.phase, 0.0) + max(0.0, share)
        if history.end_state is not EndState.OPEN:
            ends = bins[place(history.end)].ends
            ends[history.end_state] = ends.get(history.end_state, 0) + 1
    return bins


def time_range(histories: Sequence[JobHistory]) -> tuple[float, float]:
    """Return the first start and the last end of jobs in seconds since the epoch, at least 10 s apart."""
    start, end = min(history.start for history in histories), max(history.end for history in histories)
    return start, max(end, start + _SHORTEST_SECONDS)


def _moments(histories: Sequence[JobHistory], points: int) -> list[float]:
    start, end = time_range(histories)
    return [start + (end - start) * number / (points - 1) for number in range(points - 1)] + [end]
