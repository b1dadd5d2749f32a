"""Measures one contender, in a process of its own, so that nothing else counts.

Standard library only: the contenders' own environments import it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.questions import CHARACTERS, questions

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_SAMPLE = 2_000


@dataclass(frozen=True)
class Task:
    """What a contender is to do.

    Attributes:
        requests: how many questions to ask.
        base_url: the sandbox's address.
        folder: for whatever it writes.
        options: what is the contender's own.
        characters: the length of each question.
    """

    requests: int
    base_url: str
    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    characters: int = CHARACTERS

    def questions(self) -> list[str]:
        """What to ask."""
        return list(questions(self.requests, self.characters))


class Meter:
    """Measures what happens while it is entered; what was made before (imports, inputs) does not count.

    Attributes:
        wall: seconds that passed.
        cpu: seconds of user and system time, of this process and of its children that have ended.
        system: the part of them spent in the kernel.
        peak: bytes of resident memory at its highest, beyond what there was at the start; `None` where the system does
            not say.
        more: what a contender has to say besides.
    """

    def __init__(self) -> None:
        self.more: dict[str, Any] = {}
        self.wall = self.cpu = self.system = 0.0
        self.peak: int | None = None

    def __enter__(self) -> Meter:
        gc.collect()
        self._resident = _kilobytes("VmRSS")
        if _CLEAR.exists():
            # The highest mark begins anew.
            _CLEAR.write_text("5")
        self._times, self._started = _times(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall = time.perf_counter() - self._started
        user, system = (after - before for after, before in zip(_times(), self._times, strict=True))
        self.cpu, self.system = user + system, system
        highest = _kilobytes("VmHWM")
        if highest and self._resident:
            self.peak = (highest - self._resident) * 1_024


def _times() -> tuple[float, float]:
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + children.ru_utime, mine.ru_stime + children.ru_stime


def _kilobytes(name: str) -> int | None:
    if not _STATUS.exists():
        return None
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))


def size_of(values: Sequence[object]) -> float:
    """Bytes that each of some values takes, with all that it holds alone: the mean of the first few."""
    sample = values[:_SAMPLE]
    seen: set[int] = set()
    return sum(_size(value, seen) for value in sample) / len(sample) if sample else 0.0


def _size(value: object, seen: set[int]) -> int:
    if id(value) in seen or value is None or isinstance(value, (type, bool)):
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        size += sum(_size(key, seen) + _size(item, seen) for key, item in value.items())
    elif isinstance(value, (list, tuple, set)):
        size += sum(_size(item, seen) for item in value)
    elif hasattr(value, "__dict__"):
        size += _size(vars(value), seen)
    return size


def measured(answer: Callable[[Task, Meter], tuple[Sequence[object], Sequence[str | None]]]) -> None:
    """Runs a contender as its process's main program: the first argument has the task, the second takes the report.

    Args:
        answer: does the task, with the meter entered around the part that counts, and returns what it was given, and
            the text of each answer in the order of the questions.
    """
    task, meter = Task(**json.loads(sys.argv[1])), Meter()
    outputs, texts = answer(task, meter)
    report = {
        **{name: value for name, value in vars(meter).items() if not name.startswith("_")},
        "requests": len(texts),
        "answers": sum(bool(text) for text in texts),
        "output_bytes": size_of(outputs),
        "sample": texts[0] if texts else None,
    }
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")


def arguments(task: Task, report: Path) -> list[str]:
    """The arguments that `measured` takes."""
    return [json.dumps(asdict(task)), os.fspath(report)]
