"""Figure `pipeline`: time of a whole pipeline, and time until rows reach the next step."""

from __future__ import annotations

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
    text = "the first row reaches the next step earlier with `StreamBatchResults` than with a Task"
    if task is None or stream is None:
        return Target(text, None, "not measured")
    return Target(text, stream < task, f"{stream:.1f} s against {task:.1f} s")
