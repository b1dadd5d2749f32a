"""Figure `short`: CPU and time of `OpenAIBatchLLM` and of distilabel's offline mode, by the length of the answers."""

from __future__ import annotations

from benchmarks.figure import Cell, Figure, Target, format_ratio, ratio
from benchmarks.plans import NAMES
from benchmarks.runs import Run, Runs

_CHARACTERS = 60
_MAX_CPU, _MAX_WALL = 0.7, 0.8


def measure(runs: Runs) -> Figure:
    """Measure both contenders with short answers, and with the sandbox's own answers."""
    size = runs.plan.cpu
    measured = {
        length: runs.measure(["ours", "offline"], size, characters=characters)
        for length, characters in ((f"{_CHARACTERS} characters", _CHARACTERS), ("the sandbox's own", None))
    }
    return Figure(
        name="short",
        title="Short answers and long answers",
        method=f"Both contenders answer {size:,} requests of 500 characters in turn: once with answers of {_CHARACTERS}"
        " characters, once with the sandbox's own answers. Only `OpenAIBatchLLM` keeps a ledger.",
        rows=[_row(length, name, run) for length, both in measured.items() for name, run in both.items()],
        targets=[target for length, both in measured.items() for target in _targets(length, both)],
    )


def _row(length: str, name: str, run: Run) -> dict[str, Cell]:
    return {
        "answers": length,
        "contender": NAMES[name],
        "µs CPU per request": None if run.reason else round(run.micros, 1),
        "seconds": run.reason or round(run.wall, 2),
    }


def _targets(length: str, both: dict[str, Run]) -> list[Target]:
    """Return the targets of CPU and of time for one length of answers."""
    ours, offline = both["ours"], both["offline"]
    is_measured = ours.reason is None and offline.reason is None
    targets = []
    for kind, limit, share in (
        ("CPU time", _MAX_CPU, ratio(ours.micros, offline.micros)),
        ("time", _MAX_WALL, ratio(ours.wall, offline.wall)),
    ):
        met = share is not None and share <= limit if is_measured else None
        text = f"answers: {length}; at most {limit} of the {kind} of distilabel's offline mode"
        targets.append(Target(text, met, format_ratio(share) if is_measured else "not measured"))
    return targets
