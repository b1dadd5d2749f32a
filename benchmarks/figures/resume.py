"""The time that a run takes which finds everything answered."""

from __future__ import annotations

from benchmarks.figure import Bars, Figure, Target, times
from benchmarks.plans import NAMES
from benchmarks.runs import Runs


def measure(runs: Runs) -> Figure:
    """Measures it."""
    size = runs.plan.resume
    first, again = runs.again(size)
    floor = runs.measure(["floor"], size)["floor"]
    rows = [
        {
            "run": NAMES[name],
            "seconds": round(run.wall, 1),
            "µs CPU a request": round(run.micros, 1),
            "batches created": run.jobs,
            "to the floor": times(run.wall / floor.wall) if floor.wall else "",
        }
        for name, run in (("ours", first), ("again", again), ("floor", floor))
        if run.reason is None
    ]
    return Figure(
        name="resume",
        title="Starting again",
        how=f"{size:,} requests are answered; then the same is asked again by a new process, with the ledger of the"
        " first: seconds until it hands over.",
        rows=rows,
        targets=[
            Target(
                "nothing is bought again",
                None if again.reason else again.jobs == 0,
                again.reason or f"{again.jobs} batches, {again.wall:.1f} s",
            )
        ],
        plots=[Bars(f"{size:,} requests", "seconds", {str(row["run"]): float(row["seconds"]) for row in rows})],
    )
