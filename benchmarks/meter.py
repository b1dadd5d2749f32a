"""Measurement of one contender in a process of its own.

Imports only the standard library, because the environments of the other contenders import this module.
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
class Workload:
    """Questions for a contender, and the server that answers them.

    Attributes:
        requests: number of questions.
        base_url: URL of the sandbox.
        folder: folder for the files of the contender.
        options: options of the contender's driver.
        characters: length of each question.
    """

    requests: int
    base_url: str
    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    characters: int = CHARACTERS

    def questions(self) -> list[str]:
        """Return the questions, all different."""
        return list(questions(self.requests, self.characters))


class Meter:
    """Context manager that measures time and memory of its block; imports and inputs made before do not count.

    Attributes:
        wall: elapsed seconds.
        cpu: seconds of user and system time of this process and of its children that have ended.
        system: seconds of system time, part of `cpu`.
        peak: bytes of peak resident memory above the resident memory at the start; `None` if `/proc` is missing.
        largest_peak: bytes of peak resident memory of the largest of this process and its children that have ended,
            above the resident memory of this process at the start; `None` if `/proc` is missing.
        more: further values that a contender reports.
    """

    def __init__(self) -> None:
        self.more: dict[str, Any] = {}
        self.wall = self.cpu = self.system = 0.0
        self.peak: int | None = None
        self.largest_peak: int | None = None

    def __enter__(self) -> Meter:
        gc.collect()
        self._resident = _kilobytes("VmRSS")
        if _CLEAR.exists():
            # Writing 5 resets the peak, `VmHWM`: proc(5), `/proc/pid/clear_refs`.
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
            children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            self.largest_peak = (max(highest, children) - self._resident) * 1_024


def _times() -> tuple[float, float]:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime


def _kilobytes(name: str) -> int | None:
    if not _STATUS.exists():
        return None
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))


def size_of(values: Sequence[object]) -> float:
    """Return the mean size in bytes of the first `_SAMPLE` values; an object that values share counts once."""
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


def run_contender(answer: Callable[[Workload, Meter], tuple[Sequence[object], Sequence[str | None]]]) -> None:
    """Run a contender as the main program of its process, with the arguments of `contender_arguments`.

    Args:
        answer: function that answers the questions of the workload with the meter entered around the measured part.
            It returns the contender's outputs, and the text of each answer in the order of the questions.
    """
    workload, meter = Workload(**json.loads(sys.argv[1])), Meter()
    outputs, texts = answer(workload, meter)
    report = {
        **{name: value for name, value in vars(meter).items() if not name.startswith("_")},
        "requests": len(texts),
        "answers": sum(bool(text) for text in texts),
        "output_bytes": size_of(outputs),
        "sample": texts[0] if texts else None,
    }
    Path(sys.argv[2]).write_text(json.dumps(report), encoding="utf-8")


def contender_arguments(workload: Workload, report: Path) -> list[str]:
    """Return the arguments for the process of `run_contender`: the workload as JSON, and the path of its report."""
    return [json.dumps(asdict(workload)), os.fspath(report)]
