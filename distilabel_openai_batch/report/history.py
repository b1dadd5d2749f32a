"""How jobs went on, from what the ledger remembers of them: phases, endings, and answers over time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, pairwise

from distilabel_openai_batch.ledger.entries import INTERRUPTED, JobEntry, JobTimeline
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState


class Phase(str, Enum):
    """What a job does, or what was done with it, for a while."""

    QUEUED = "queued"
    """It is uploaded, created, and waits for its turn."""
    IN_PROGRESS = "in progress"
    """Its requests are answered."""
    FINALIZING = "finalizing"
    """Its results are put together."""
    CANCELLING = "cancelling"
    """It is about to end before its time."""
    ASKED_AT_ONCE = "asked at once"
    """Its requests are asked one by one, at the synchronous endpoint."""
    UNDER_WAY = "under way"
    """One of these: nobody knows which, since its server does not say, or nobody looked."""


class Ending(str, Enum):
    """What a job came to."""

    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DROPPED = "dropped"
    OPEN = "open"


_ENDINGS = {
    "completed": Ending.COMPLETED,
    "expired": Ending.EXPIRED,
    "cancelled": Ending.CANCELLED,
    "canceled": Ending.CANCELLED,
    "failed": Ending.FAILED,
    NOT_FOUND: Ending.FAILED,
    INTERRUPTED: Ending.DROPPED,
}


_SHORTEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A phase of a job.

    Attributes:
        phase: which.
        start, end: seconds since the epoch.
    """

    phase: Phase
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class History:
    """How a job went on.

    Attributes:
        job: which.
        stretches: its phases, in order and without gaps; at least one.
        ending: what it came to.
        steps: the answers and failures that came at each moment, in order.
    """

    job: JobEntry
    stretches: tuple[Stretch, ...]
    ending: Ending
    steps: tuple[tuple[float, int, int], ...]

    @property
    def answered(self) -> int:
        """How many requests it has answered, as far as is known: those too that are still at its server."""
        return sum(answered for _, answered, _ in self.steps)

    @property
    def start(self) -> float:
        """When it was planned, in seconds since the epoch."""
        return self.stretches[0].start

    @property
    def end(self) -> float:
        """When it ended; of one under way, when it was looked at. In seconds since the epoch."""
        return self.stretches[-1].end


def histories(jobs: Sequence[JobEntry], timelines: Sequence[JobTimeline], now: float) -> list[History]:
    """How jobs went on.

    Args:
        jobs: all of the ledger's.
        timelines: of as many of them as are known, in the same order.
        now: seconds since the epoch: as long a job that is under way lasts.
    """
    known = list(timelines[: len(jobs)])
    known += [JobTimeline()] * (len(jobs) - len(known))
    return [_history(job, timeline, now) for job, timeline in zip(jobs, known, strict=True)]


def _history(job: JobEntry, timeline: JobTimeline, now: float) -> History:
    ending = _ending(job)
    # One that came to nothing before there was a batch has no end that anybody noted.
    ended_at = timeline.finished_at or job.ended_at or job.created_at
    end = max(now if ending is Ending.OPEN else ended_at, job.created_at)
    return History(job, tuple(_stretches(job, timeline, ending, end)), ending, tuple(_steps(job, timeline, end)))


def _ending(job: JobEntry) -> Ending:
    if job.state is JobState.DROPPED and job.status not in _ENDINGS:
        return Ending.DROPPED
    if job.is_synchronous and not job.is_interrupted:
        return Ending.OPEN if job.state is JobState.SYNCHRONOUS else Ending.COMPLETED
    return _ENDINGS.get(job.status, Ending.OPEN if job.is_open else Ending.COMPLETED)


def _stretches(job: JobEntry, timeline: JobTimeline, ending: Ending, end: float) -> Iterable[Stretch]:
    if job.is_synchronous:
        return [Stretch(Phase.ASKED_AT_ONCE, job.created_at, end)]
    if timeline.in_progress_at is None:
        # What the server refused it has not begun with.
        queued = ending is Ending.FAILED or job.status == "validating" or not job.batch_id
        return [Stretch(Phase.QUEUED if queued else Phase.UNDER_WAY, job.created_at, end)]
    begun = [
        (Phase.QUEUED, job.created_at),
        (Phase.IN_PROGRESS, timeline.in_progress_at),
        (Phase.FINALIZING, timeline.finalizing_at),
        (Phase.CANCELLING, timeline.cancelling_at),
    ]
    # The server's clock need not be ours.
    known = sorted(((min(max(at, job.created_at), end), phase) for phase, at in begun if at is not None), key=_moment)
    ends = [at for at, _ in known[1:]] + [end]
    found = [Stretch(phase, start, until) for (start, phase), until in zip(known, ends, strict=True) if until > start]
    return found or [Stretch(known[-1][1], job.created_at, end)]


def _moment(begun: tuple[float, Phase]) -> float:
    return begun[0]


def _steps(job: JobEntry, timeline: JobTimeline, end: float) -> Iterable[tuple[float, int, int]]:
    """What each look found that the one before had not, and at the end what is left of the job's counts."""
    answered = failed = 0
    for seen_at, completed, missed in timeline.polls:
        gained, lost = max(0, completed - answered), max(0, missed - failed)
        if gained or lost:
            yield min(seen_at, end), gained, lost
        answered, failed = answered + gained, failed + lost
    gained, lost = max(0, job.answered - answered), max(0, job.failed - failed)
    if gained or lost:
        yield end, gained, lost


@dataclass(frozen=True, slots=True)
class Answers:
    """How many answers there were by a moment.

    Attributes:
        at: seconds since the epoch.
        answered: answers until then.
        failed: failures until then; a request that is asked again can fail again.
    """

    at: float
    answered: int
    failed: int


def answers_over_time(found: Sequence[History], points: int) -> list[Answers]:
    """How many answers there were at moments that lie equally far apart, from the first job to the last one's end."""
    if not found:
        return []
    moments = _moments(found, points)
    steps = sorted(step for history in found for step in history.steps)
    sums = list(accumulate(steps, lambda sums, step: (step[0], sums[1] + step[1], sums[2] + step[2])))
    over_time, place = [], 0
    for moment in moments:
        while place < len(sums) and sums[place][0] <= moment:
            place += 1
        _, answered, failed = sums[place - 1] if place else (0.0, 0, 0)
        over_time.append(Answers(moment, answered, failed))
    return over_time


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many jobs were in each phase, on an average, within a span of time; and how many ended in it.

    Attributes:
        start, end: seconds since the epoch.
        phases: jobs.
        endings: jobs.
    """

    start: float
    end: float
    phases: dict[Phase, float]
    endings: dict[Ending, int]


def crowds(found: Sequence[History], spans: int) -> list[Crowd]:
    """How many jobs did what in spans of time of equal length, from the first job to the last one's end."""
    if not found:
        return []
    moments = _moments(found, spans + 1)
    start, length = moments[0], moments[1] - moments[0]
    some = [Crowd(at, until, {}, {}) for at, until in pairwise(moments)]

    def place(at: float) -> int:
        return min(spans - 1, max(0, int((at - start) / length)))

    for history in found:
        for stretch in history.stretches:
            for crowd in some[place(stretch.start) : place(stretch.end) + 1]:
                share = (min(stretch.end, crowd.end) - max(stretch.start, crowd.start)) / length
                crowd.phases[stretch.phase] = crowd.phases.get(stretch.phase, 0.0) + max(0.0, share)
        if history.ending is not Ending.OPEN:
            endings = some[place(history.end)].endings
            endings[history.ending] = endings.get(history.ending, 0) + 1
    return some


def span(found: Sequence[History]) -> tuple[float, float]:
    """From when to when jobs lasted, in seconds since the epoch; long enough for moments to be told apart."""
    start, end = min(history.start for history in found), max(history.end for history in found)
    return start, max(end, start + _SHORTEST_SECONDS)


def _moments(found: Sequence[History], points: int) -> list[float]:
    start, end = span(found)
    return [start + (end - start) * number / (points - 1) for number in range(points - 1)] + [end]
