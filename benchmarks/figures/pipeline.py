"""What a whole pipeline takes, and when its first row gets on."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target, times
from benchmarks.plans import NAMES
from benchmarks.runs import Run, Runs
from distilabel_openai_batch.sandbox import Settings

_JOBS = 10


def measure(runs: Runs) -> Figure:
    """Measures it."""
    size = runs.plan.pipeline_rows
    whole: dict[str, Run] = {}
    for name in ("ours", "synchronous", "none"):
        [whole[name]] = runs.run(name, size, module="pipeline", options={"kind": name, "judge": True})
    slow = Settings(in_progress_seconds=runs.plan.job_seconds)
    first: dict[str, Run] = {}
    for name in ("ours", "stream"):
        options = {"kind": name, "per_job": max(1, size // _JOBS)}
        [first[name]] = runs.run(name, size, module="pipeline", settings=slow, options=options)
    rows = [_row(name, run, whole) for name, run in whole.items()]
    notes = [_first(name, run) for name, run in first.items()]
    return Figure(
        name="pipeline",
        title="A whole pipeline",
        how=f"{size:,} rows through TextGeneration and UltraFeedback, `pipeline.run` from the call to the dataset;"
        f" CPU time of the main process and the steps'. Then {size:,} rows through TextGeneration alone, in {_JOBS}"
        f" jobs of which two are in flight, each {runs.plan.job_seconds:g} s under way: seconds from the call until"
        " rows have been through the next step.",
        rows=rows + notes,
        targets=[_ahead(whole), _earlier(first)],
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
                    for name, run in first.items()
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
        "to the floor": times(run.wall / base) if base and run.reason is None else "",
        "first row": None,
        "half of the rows": None,
        "last row": None,
    }


def _first(name: str, run: Run) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "pipeline": f"{'`OpenAIBatchLLM` in a Task' if name == 'ours' else NAMES[name]}, {_JOBS} jobs",
        "seconds": round(run.wall, 1) if run.reason is None else None,
        "CPU seconds": round(run.cpu, 1) if run.reason is None else run.reason,
        "to the floor": "",
    }
    for key, label in (("first", "first row"), ("half", "half of the rows"), ("last", "last row")):
        row[label] = round(run.more[key], 1) if key in run.more else None
    return row


def _ahead(whole: dict[str, Run]) -> Target:
    ours, other = whole["ours"], whole["synchronous"]
    text = "no slower than the synchronous LLM against a server that answers at once"
    if ours.reason or other.reason:
        return Target(text, None, ours.reason or other.reason or "")
    return Target(text, ours.wall <= other.wall, f"{ours.wall:.1f} s against {other.wall:.1f} s")


def _earlier(first: dict[str, Run]) -> Target:
    task, stream = first["ours"].more.get("first"), first["stream"].more.get("first")
    text = "the first row gets on earlier with `StreamBatchResults` than with a Task"
    if task is None or stream is None:
        return Target(text, None, "not measured")
    return Target(text, stream < task, f"{stream:.1f} s against {task:.1f} s")
