"""Figure `polling`: delay until the end of a job is noticed, and number of polls, computed without clock or server."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from benchmarks.figure import Cell, Figure, Lines, Target
from benchmarks.runs import Runs
from distilabel_openai_batch.engine.settings import PollSchedule

_DAY = 86_400.0
_LENGTHS = {"10 s": 10.0, "1 min": 60.0, "10 min": 600.0, "1 h": 3_600.0, "6 h": 21_600.0, "24 h": _DAY}

# A job may end at any moment between two polls → simulate jobs of each length, up to a tenth longer.
_JOBS = 200

_MAX_DELAY_SHARE = 0.05
_MAX_DELAY_SECONDS = 60.0
_MAX_POLLS_PER_DAY = 1_500


@dataclass(frozen=True)
class Rule:
    """Polling rule of a contender.

    Attributes:
        name: display name of the contender.
        source: place of the rule in the contender's code.
        poll_ages: function that yields the ages of a job at which the contender polls, in seconds.
    """

    name: str
    source: str
    poll_ages: Callable[[], Iterator[float]]


def _growing(schedule: PollSchedule) -> Callable[[], Iterator[float]]:
    def poll_ages() -> Iterator[float]:
        age = 0.0
        while True:
            age += schedule.interval(age)
            yield age

    return poll_ages


def _every(seconds: float, first: float | None = None) -> Callable[[], Iterator[float]]:
    return lambda: ((seconds if first is None else first) + seconds * number for number in count())


RULES = (
    Rule("`OpenAIBatchLLM`", "`PollSchedule` with its defaults", _growing(PollSchedule())),
    Rule(
        "`OpenAILLM`, offline mode, 1 s",
        "distilabel 1.5.3, `LLM._offline_batch_generate_polling`: a fixed pause that the user sets",
        _every(1.0),
    ),
    Rule(
        "autobatcher",
        "autobatcher 0.12.0, `BatchOpenAI._poll_batches`: `poll_interval_seconds`, 5 s by default",
        _every(5.0),
    ),
    Rule("inspect_ai", "inspect_ai 0.3.285, `Batcher._batch_worker`: `DEFAULT_BATCH_TICK`, 15 s", _every(15.0)),
    Rule(
        "bespokelabs-curator",
        "bespokelabs-curator 0.1.31, `BaseBatchRequestProcessor.poll_and_process_batches`: polls immediately, then"
        " every `batch_check_interval`, 60 s by default",
        _every(60.0, first=0.0),
    ),
)


@dataclass(frozen=True)
class NoticeDelay:
    """Delay and cost of a rule for jobs of about one length.

    Attributes:
        worst: longest delay between the end of a job and the next poll, in seconds.
        worst_share: largest ratio of this delay to the length of its job.
        polls: number of polls of a job of exactly this length.
    """

    worst: float
    worst_share: float
    polls: int


def simulate(rule: Rule, length: float) -> NoticeDelay:
    """Apply a rule to many jobs of about the same length, in seconds."""
    ends = [length * (1 + 0.1 * number / _JOBS) for number in range(_JOBS)]
    ages = list(_until(rule.poll_ages(), ends[-1]))
    delays = [ages[bisect_left(ages, end)] - end for end in ends]
    shares = [seconds / end for seconds, end in zip(delays, ends, strict=True)]
    return NoticeDelay(max(delays), max(shares), bisect_left(ages, length) + 1)


def _until(ages: Iterator[float], end: float) -> Iterator[float]:
    for age in ages:
        yield age
        if age >= end:
            return


def measure(runs: Runs) -> Figure:
    """Compute the delays and polls of every rule for every length."""
    table = {rule.name: {label: simulate(rule, length) for label, length in _LENGTHS.items()} for rule in RULES}
    rows: list[dict[str, Cell]] = []
    for name, delays in table.items():
        row: dict[str, Cell] = {"contender": name}
        for label, delay in delays.items():
            row[label] = f"{delay.worst:.3g} s, {delay.worst_share:.2%}; {delay.polls:,}"
        rows.append(row)
    series = {
        name: [(length, delays[label].worst_share) for label, length in _LENGTHS.items()]
        for name, delays in table.items()
    }
    return Figure(
        name="polling",
        title="Notice delay and polls",
        method=f"Simulation: each contender's rule, taken from its code, polls {_JOBS} jobs of each length (up to a"
        " tenth longer). Each cell: the longest delay between the end of a job and the next poll, in seconds and in"
        " percent of the job's length; the number of polls of a job.",
        rows=rows,
        targets=_targets(table[RULES[0].name]),
        plots=[
            Lines(
                "Longest delay in percent of the job's length",
                "length of the job, seconds",
                "share",
                series,
                (
                    [(length, max(_MAX_DELAY_SHARE, _MAX_DELAY_SECONDS / length)) for length in _LENGTHS.values()],
                    "5 % or 60 s",
                ),
            )
        ],
        notes=[f"{rule.name}: {rule.source}." for rule in RULES],
    )


def _targets(delays: dict[str, NoticeDelay]) -> list[Target]:
    within = all(
        delay.worst_share <= _MAX_DELAY_SHARE or delay.worst <= _MAX_DELAY_SECONDS for delay in delays.values()
    )
    observed = ", ".join(f"{label}: {delay.worst:.3g} s, {delay.worst_share:.1%}" for label, delay in delays.items())
    by_seconds = [label for label, delay in delays.items() if delay.worst_share > _MAX_DELAY_SHARE]
    if by_seconds:
        observed += f" (above 5 %, but below 60 s: {', '.join(by_seconds)})"
    polls = delays["24 h"].polls
    return [
        Target("a delay of at most 5 % of the job's length, or of 60 s", within, observed),
        Target(
            f"at most {_MAX_POLLS_PER_DAY:,} polls of a job per day",
            polls <= _MAX_POLLS_PER_DAY,
            f"{polls:,} for a job of 24 h",
        ),
    ]
