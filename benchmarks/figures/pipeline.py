"""Figures of whole pipelines: time, growth with the rows, and time until rows reach the next step."""

from __future__ import annotations

import math

from benchmarks.figure import Bars, Cell, Figure, Target, format_ratio
from benchmarks.plans import NAMES
from benchmarks.runs import Run, Runs
from distilabel_openai_batch.sandbox import Settings

# Number of jobs in which rows are streamed.
_JOBS = 10


def measure(runs: Runs) -> Figure:
    """Measure a whole pipeline with each LLM, then streamed and unstreamed delivery of rows."""
    size = runs.plan.pipeline_rows
    whole: dict[str, Run] = {}
    for name in ("ours", "synchronous", "none"):
        [whole[name]] = runs.run(name, size, module="pipeline", options={"kind": name, "judge": True})
    slow = Settings(in_progress_seconds=runs.plan.job_seconds)
    delivery: dict[str, Run] = {}
    for name in ("ours", "stream"):
        options = {"kind": name, "per_job": max(1, size // _JOBS)}
        [delivery[name]] = runs.run(name, size, module="pipeline", settings=slow, options=options)
    rows = [_row(name, run, whole) for name, run in whole.items()]
    delivery_rows = [_delivery_row(name, run) for name, run in delivery.items()]
    return Figure(
        name="pipeline",
        title="A whole pipeline",
        method=f"Time of `pipeline.run` for {size:,} rows through TextGeneration and UltraFeedback, from the call to"
        " the dataset; CPU time of the main process and of the steps. The last two rows of the table: seconds from"
        f" the call until rows leave the next step, for {size:,} rows through TextGeneration alone, in {_JOBS} jobs,"
        f" at most two in progress, for {runs.plan.job_seconds:g} s each.",
        rows=rows + delivery_rows,
        targets=[_speed_target(whole), _first_row_target(delivery)],
        plots=[
            Bars(
                f"{size:,} rows, TextGeneration and UltraFeedback",
                "seconds",
                {NAMES[name]: run.wall for name, run in whole.items() if run.reason is None},
            ),
            Bars(
                "Until the first row reaches the next step",
                "seconds",
                {
                    "`OpenAIBatchLLM` in a Task" if name == "ours" else NAMES[name]: float(run.more["first"])
                    for name, run in delivery.items()
                    if "first" in run.more
                },
            ),
        ],
    )


def _row(name: str, run: Run, whole: dict[str, Run]) -> dict[str, Cell]:
    base = whole["none"].wall
    return {
        "pipeline": NAMES[name],
        "seconds": round(run.wall, 1) if run.reason is None else None,
        "CPU seconds": round(run.cpu, 1) if run.reason is None else run.reason,
        "vs floor": format_ratio(run.wall / base) if base and run.reason is None else "",
        "first row": None,
        "half of the rows": None,
        "last row": None,
    }


def _delivery_row(name: str, run: Run) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "pipeline": f"{'`OpenAIBatchLLM` in a Task' if name == 'ours' else NAMES[name]}, {_JOBS} jobs",
        "seconds": round(run.wall, 1) if run.reason is None else None,
        "CPU seconds": round(run.cpu, 1) if run.reason is None else run.reason,
        "vs floor": "",
    }
    for key, label in (("first", "first row"), ("half", "half of the rows"), ("last", "last row")):
        row[label] = round(run.more[key], 1) if key in run.more else None
    return row


def _speed_target(whole: dict[str, Run]) -> Target:
    ours, other = whole["ours"], whole["synchronous"]
    text = "no slower than the synchronous LLM with a server that answers without delay"
    if ours.reason or other.reason:
        return Target(text, None, ours.reason or other.reason or "")
    return Target(text, ours.wall <= other.wall, f"{ours.wall:.1f} s against {other.wall:.1f} s")


def _first_row_target(delivery: dict[str, Run]) -> Target:
    task, stream = delivery["ours"].more.get("first"), delivery["stream"].more.get("first")
    text = "the first row of ten jobs reaches the next step before half of the time, from a Task and from a stream"
    if task is None or stream is None:
        return Target(text, None, "not measured")
    lasts = {name: delivery[name].more["last"] for name in ("ours", "stream")}
    met = task < lasts["ours"] / 2 and stream < lasts["stream"] / 2
    return Target(
        text,
        met,
        f"Task: {task:.1f} s of {lasts['ours']:.1f} s; stream: {stream:.1f} s of {lasts['stream']:.1f} s",
    )


_GROWING = {
    "one Task": ("ours", {"kind": "ours"}),
    "two Tasks in a row": ("ours", {"kind": "ours", "tasks": 2}),
    "`StreamBatchResults`": ("stream", {"kind": "stream"}),
}

# The exponent counts from this number of rows on: below, the start of the processes counts.
_GROWTH_FROM = 10_000
_MAX_EXPONENT = 1.05
_MAX_BYTES = 3_000.0
_MAX_SHARE_OF_COPY = 0.5


def measure_growth(runs: Runs) -> Figure:
    """Measure pipelines of several sizes, and compare one Task with a step that copies and with the synchronous LLM."""
    plan = runs.plan
    grown = {
        label: {
            rows: runs.run(name, rows, module="pipeline", options=options)[0]
            for rows in sorted({*plan.growth_rows, *([plan.copied_rows] if label == "one Task" else [])})
        }
        for label, (name, options) in _GROWING.items()
    }
    [copy] = runs.run("none", plan.copied_rows, module="pipeline", options={"kind": "none"})
    grown[NAMES["none"]] = {plan.copied_rows: copy}
    [sample] = runs.run("synchronous", plan.synchronous, module="pipeline", options={"kind": "synchronous"})
    grown[NAMES["synchronous"]] = {plan.synchronous: sample}
    rows = [
        _growth_row(label, count, run, by_rows) for label, by_rows in grown.items() for count, run in by_rows.items()
    ]
    return Figure(
        name="growth",
        title="Growth of a pipeline",
        method="LoadDataFromDicts in batches of 50 rows, TextGeneration, and a step that records the time; CPU time of"
        " all processes; peak memory of the largest process above the main process before the run; exponent of the CPU"
        f" time against {_GROWTH_FROM:,} rows; seconds until the first row leaves the last step. The server answers at"
        " once.",
        rows=rows,
        targets=[*_growth_targets(grown), _copy_target(grown["one Task"][plan.copied_rows], copy)],
        plots=[],
    )


def _exponent(rows: int, run: Run, by_rows: dict[int, Run]) -> float | None:
    base = by_rows.get(_GROWTH_FROM)
    if base is None or rows <= _GROWTH_FROM or base.reason or run.reason:
        return None
    return math.log(run.cpu / base.cpu) / math.log(rows / _GROWTH_FROM)


def _growth_row(label: str, rows: int, run: Run, by_rows: dict[int, Run]) -> dict[str, Cell]:
    exponent, peak = _exponent(rows, run, by_rows), run.more.get("peak")
    return {
        "pipeline": label,
        "rows": rows,
        "seconds": round(run.wall, 1) if run.reason is None else run.reason,
        "CPU seconds": round(run.cpu, 1),
        "CPU ms a row": round(1e3 * run.cpu / rows, 2),
        "exponent": round(exponent, 2) if exponent is not None else None,
        "bytes a row": round(peak / rows) if peak else None,
        "jobs": run.jobs,
        "first row": round(run.more["first"], 1) if "first" in run.more else None,
    }


def _growth_targets(grown: dict[str, dict[int, Run]]) -> list[Target]:
    targets = []
    for label in _GROWING:
        by_rows = grown[label]
        largest = max(by_rows)
        run = by_rows[largest]
        exponent = _exponent(largest, run, by_rows)
        text = f"{label}: CPU time grows with an exponent of at most {_MAX_EXPONENT}"
        if exponent is None:
            targets.append(Target(text, None, run.reason or "not measured"))
        else:
            targets.append(Target(text, exponent <= _MAX_EXPONENT, f"{exponent:.2f} up to {largest:,} rows"))
        text = f"{label}: at most {_MAX_BYTES:,.0f} bytes a row in the largest process"
        if run.reason or not run.more.get("peak"):
            targets.append(Target(text, None, run.reason or "not measured"))
        else:
            peak = run.more["peak"] / largest
            targets.append(Target(text, peak <= _MAX_BYTES, f"{peak:,.0f} bytes at {largest:,} rows"))
    return targets


def _copy_target(ours: Run, copy: Run) -> Target:
    text = f"at most {_MAX_SHARE_OF_COPY} of the CPU time of a step that copies, on distilabel alone"
    if ours.reason or copy.reason:
        return Target(text, None, ours.reason or copy.reason or "")
    share = ours.cpu / copy.cpu
    return Target(text, share <= _MAX_SHARE_OF_COPY, f"{share:.2f} of it at {ours.requests:,} rows")
