"""How late the end of a job is noticed, and what looking costs. Pure: no clock, no server."""

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

# Jobs of one length end at any moment between two looks: so many are looked at, up to a tenth longer.
_JOBS = 200

_LATE_SHARE = 0.05
_LATE_SECONDS = 60.0
_LOOKS_A_DAY = 1_500


@dataclass(frozen=True)
class Rule:
    """When somebody looks at a job.

    Attributes:
        name: who.
        source: where that is written.
        looks: the ages at which it looks, in seconds.
    """

    name: str
    source: str
    looks: Callable[[], Iterator[float]]


def _growing(schedule: PollSchedule) -> Callable[[], Iterator[float]]:
    def looks() -> Iterator[float]:
        age = 0.0
        while True:
            age += schedule.interval(age)
            yield age

    return looks


def _every(seconds: float, first: float | None = None) -> Callable[[], Iterator[float]]:
    return lambda: ((seconds if first is None else first) + seconds * number for number in count())


RULES = (
    Rule("`OpenAIBatchLLM`", "`polling.PollSchedule`, its defaults", _growing(PollSchedule())),
    Rule(
        "`OpenAILLM`, offline mode, 1 s",
        "distilabel 1.5.3, `LLM._offline_batch_generate_polling`: a fixed pause, which the user gives",
        _every(1.0),
    ),
    Rule(
        "autobatcher",
        "autobatcher 0.12.0, `BatchOpenAI._poll_batches`: `poll_interval_seconds`, 5 by default",
        _every(5.0),
    ),
    Rule("inspect_ai", "inspect_ai 0.3.285, `Batcher._batch_worker`: `DEFAULT_BATCH_TICK`, 15 s", _every(15.0)),
    Rule(
        "bespokelabs-curator",
        "bespokelabs-curator 0.1.31, `BaseBatchRequestProcessor.poll_and_process_batches`: looks at once, then each"
        " `batch_check_interval`, 60 s by default",
        _every(60.0, first=0.0),
    ),
)


@dataclass(frozen=True)
class Noticed:
    """How a rule fares with jobs of about one length.

    Attributes:
        worst: seconds between a job's end and its being noticed, at worst.
        worst_share: the same, as a share of the job's time.
        looks: requests spent on a job of just that length.
    """

    worst: float
    worst_share: float
    looks: int


def simulate(rule: Rule, length: float) -> Noticed:
    """Has a rule watch many jobs of about the same length."""
    ends = [length * (1 + 0.1 * number / _JOBS) for number in range(_JOBS)]
    ages = list(_until(rule.looks(), ends[-1]))
    late = [ages[bisect_left(ages, end)] - end for end in ends]
    shares = [seconds / end for seconds, end in zip(late, ends, strict=True)]
    return Noticed(max(late), max(shares), bisect_left(ages, length) + 1)


def _until(ages: Iterator[float], end: float) -> Iterator[float]:
    for age in ages:
        yield age
        if age >= end:
            return


def measure(runs: Runs) -> Figure:
    """Simulates it."""
    table = {rule.name: {label: simulate(rule, length) for label, length in _LENGTHS.items()} for rule in RULES}
    rows: list[dict[str, Cell]] = []
    for name, seen in table.items():
        row: dict[str, Cell] = {"contender": name}
        for label, noticed in seen.items():
            row[label] = f"{noticed.worst:.3g} s, {noticed.worst_share:.2%}; {noticed.looks:,}"
        rows.append(row)
    ours = table[RULES[0].name]
    within = all(noticed.worst_share <= _LATE_SHARE or noticed.worst <= _LATE_SECONDS for noticed in ours.values())
    strict = [label for label, noticed in ours.items() if noticed.worst_share > _LATE_SHARE]
    seen_late = ", ".join(
        f"{label}: {noticed.worst:.3g} s, {noticed.worst_share:.1%}" for label, noticed in ours.items()
    )
    day = ours["24 h"].looks
    series = {
        name: [(length, seen[label].worst_share) for label, length in _LENGTHS.items()] for name, seen in table.items()
    }
    return Figure(
        name="polling",
        title="Notice delay and polls",
        how=f"Simulated: each rule, as its code has it, watches {_JOBS} jobs of each length (up to a tenth longer)."
        " In each cell: the delay of noticing at worst, in seconds and as a share of the job's time; then the"
        " requests spent on a job.",
        rows=rows,
        targets=[
            Target(
                "5 % of the job's time, or 60 s, at most",
                within,
                seen_late + (f" (beyond 5 %, though not 60 s: {', '.join(strict)})" if strict else ""),
            ),
            Target(f"{_LOOKS_A_DAY:,} requests a day, at most", day <= _LOOKS_A_DAY, f"{day:,} for a job of 24 h"),
        ],
        plots=[
            Lines(
                "Share of a job's time that passes unnoticed, at worst",
                "length of the job, seconds",
                "share",
                series,
                ([(length, max(_LATE_SHARE, _LATE_SECONDS / length)) for length in _LENGTHS.values()], "5 % or 60 s"),
            )
        ],
        notes=[f"{rule.name}: {rule.source}." for rule in RULES],
    )
