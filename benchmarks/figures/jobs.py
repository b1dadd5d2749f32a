"""Figure `jobs`: number of jobs for the rows of one Task."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target
from benchmarks.plans import NAMES
from benchmarks.runs import Runs

# Default batch size of each contender.
_BATCH_SIZES = {"inspect_ai": 100, "autobatcher": 1_000, "curator": 10_000}


def measure(runs: Runs) -> Figure:
    """Count the jobs that each contender creates for the same rows."""
    size = runs.plan.rows
    measured = {}
    for name in ("ours", "offline"):
        [measured[name]] = runs.run(name, size, module="pipeline", options={"kind": name})
    for name, batch_size in _BATCH_SIZES.items():
        [measured[name]] = runs.run(name, size, options={"batch_size": batch_size})
    rows: list[dict[str, Cell]] = [
        {
            "contender": NAMES[name],
            "jobs": run.jobs if run.reason is None else None,
            "API calls": sum(run.calls.values()) if run.calls else None,
            "note": run.reason
            or ("a Task with `input_batch_size=50`" if name not in _BATCH_SIZES else "default batch size"),
        }
        for name, run in measured.items()
    ]
    return Figure(
        name="jobs",
        title="Jobs created",
        method=f"Batches created at the sandbox for {size:,} rows through TextGeneration. Contenders without distilabel"
        " Tasks get all questions in one call.",
        rows=rows,
        targets=[
            Target(
                f"1 job for {size:,} rows with `input_batch_size=50`",
                None if measured["ours"].reason else measured["ours"].jobs == -(-size // 50_000),
                measured["ours"].reason or f"{measured['ours'].jobs} jobs",
            )
        ],
        plots=[
            Bars(
                f"Jobs for {size:,} rows",
                "jobs",
                {NAMES[name]: float(run.jobs) for name, run in measured.items() if not run.reason},
            )
        ],
    )
