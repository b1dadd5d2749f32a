"""Figure `wall`: time from the call to the last answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.figure import Cell, Figure, Lines, Target, format_ratio, ratio
from benchmarks.plans import NAMES
from benchmarks.runs import BATCH_CONTENDERS, Run, Runs

# A slow minute of the machine changes the exponent of a fit by some hundredths.
_MAX_EXPONENT = 1.1

# Fixed costs dominate small runs → fit only the sizes from a 50th of the largest.
_FIT_RANGE = 50


def measure(runs: Runs) -> Figure:
    """Measure the wall time of every contender for every size."""
    plan = runs.plan
    measured: dict[int, dict[str, Run]] = {}
    for size in plan.sizes:
        names = BATCH_CONTENDERS if size <= plan.peers_up_to else ("ours",)
        measured[size] = runs.measure([*names, "floor"], size)
    sample = runs.measure(["synchronous"], plan.synchronous)["synchronous"] if plan.synchronous else None
    series = {
        name: [(size, run.wall) for size, row in measured.items() if (run := row.get(name)) and run.reason is None]
        for name in (*BATCH_CONTENDERS, "floor")
    }
    series = {name: points for name, points in series.items() if points}
    if sample and sample.reason is None:
        series["synchronous"] = [(size, sample.wall / sample.requests * size) for size in plan.sizes]
    notes = [
        f"{NAMES[name]} at {size:,}: {run.reason}."
        for size, row in measured.items()
        for name, run in row.items()
        if run.reason and "not part of" not in run.reason
    ]
    return Figure(
        name="wall",
        title="Wall time",
        method="Seconds from the call to the last answer, including the work of the sandbox on the same machine. The"
        " offline mode and curator poll at most once a second, `OpenAIBatchLLM` four times, the others ten times."
        + (f" The synchronous LLM is measured with {plan.synchronous:,} calls, and scaled." if sample else ""),
        rows=[_row(name, points, plan.sizes, series) for name, points in series.items()],
        targets=_targets(series, plan.sizes),
        plots=[
            Lines(
                "From the call to the last answer",
                "requests",
                "seconds",
                {NAMES[name]: points for name, points in series.items()},
            )
        ],
        notes=notes,
    )


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the exponent `b` of the least-squares fit `y = a * x**b`; `None` for fewer than two points."""
    if len(points) < 2:
        return None
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)


def _fitted(points: Sequence[tuple[float, float]], sizes: Sequence[int]) -> list[tuple[float, float]]:
    return [point for point in points if point[0] >= sizes[-1] / _FIT_RANGE]


def _best(series: dict[str, list[tuple[float, float]]], size: int) -> float | None:
    others = [
        wall for name, points in series.items() if name not in ("ours", "floor") for at, wall in points if at == size
    ]
    return min(others, default=None)


def _row(
    name: str, points: list[tuple[float, float]], sizes: Sequence[int], series: dict[str, list[tuple[float, float]]]
) -> dict[str, Cell]:
    walls = dict(points)
    row: dict[str, Cell] = {"contender": NAMES[name]}
    for size in sizes:
        wall = walls.get(size)
        row[f"{size:,}"] = None if wall is None else f"{wall:,.1f} s"
    largest = max((size for size in sizes if size in walls and _best(series, size)), default=None)
    row["vs best other"] = format_ratio(ratio(walls[largest], _best(series, largest))) if largest else ""
    floor = dict(series.get("floor", ()))
    last = max((size for size in walls if size in floor), default=None)
    row["vs floor"] = format_ratio(ratio(walls[last], floor[last])) if last else ""
    slope = exponent(_fitted(points, sizes))
    row["exponent"] = None if slope is None else round(slope, 2)
    return row


def _targets(series: dict[str, list[tuple[float, float]]], sizes: Sequence[int]) -> list[Target]:
    ours = dict(series.get("ours", ()))
    compared = {size: ours[size] / best for size in sizes if size in ours and (best := _best(series, size))}
    ratios = ", ".join(f"{share:.2f} × at {size:,}" for size, share in compared.items())
    points = series.get("ours", [])
    slope = exponent(_fitted(points, sizes) or points)
    return [
        Target(
            "never slower than the best other contender",
            max(compared.values()) <= 1.0 if compared else None,
            ratios or "no other contender measured",
        ),
        Target(
            f"linear in requests: exponent at most {_MAX_EXPONENT} (fit over sizes from 1/{_FIT_RANGE} of the largest)",
            None if slope is None else slope <= _MAX_EXPONENT,
            "not measured: a fit needs two sizes" if slope is None else f"exponent {slope:.2f}",
        ),
    ]
