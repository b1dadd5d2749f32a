"""The jobs that are bought for the rows of one Task."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target
from benchmarks.plans import NAMES
from benchmarks.runs import Runs

# What they use where the user gives nothing.
_DEFAULTS = {"inspect_ai": 100, "autobatcher": 1_000, "curator": 10_000}


def measure(runs: Runs) -> Figure:
    """Counts them."""
    size = runs.plan.rows
    seen = {}
    for name in ("ours", "offline"):
        [seen[name]] = runs.run(name, size, module="pipeline", options={"kind": name})
    for name, batch_size in _DEFAULTS.items():
        [seen[name]] = runs.run(name, size, options={"batch_size": batch_size})
    rows: list[dict[str, Cell]] = [
        {
            "contender": NAMES[name],
            "jobs": run.jobs if run.reason is None else None,
            "calls of the API": sum(run.calls.values()) if run.calls else None,
            "note": run.reason
            or ("a Task with `input_batch_size=50`" if name not in _DEFAULTS else "its default size of a batch"),
        }
        for name, run in seen.items()
    ]
    return Figure(
        name="jobs",
        title="Jobs bought",
        how=f"Batches that the sandbox saw created for {size:,} rows through TextGeneration. The contenders that know"
        " no Tasks are given all questions at once.",
        rows=rows,
        targets=[
            Target(
                f"1 job for {size:,} rows with `input_batch_size=50`",
                None if seen["ours"].reason else seen["ours"].jobs == -(-size // 50_000),
                seen["ours"].reason or f"{seen['ours'].jobs} jobs",
            )
        ],
        plots=[
            Bars(
                f"Jobs for {size:,} rows",
                "jobs",
                {NAMES[name]: float(run.jobs) for name, run in seen.items() if not run.reason},
            )
        ],
    )
