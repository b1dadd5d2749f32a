"""Figure `resume`: time of a run that finds every answer in the ledger."""

from __future__ import annotations

from benchmarks.figure import Bars, Figure, Target, format_ratio
from benchmarks.plans import NAMES
from benchmarks.runs import Runs


def measure(runs: Runs) -> Figure:
    """Measure a run, and a second run with the ledger of the first."""
    size = runs.plan.resume
    first, resumed = runs.resume(size)
    floor = runs.measure(["floor"], size)["floor"]
    rows = [
        {
            "run": NAMES[name],
            "seconds": round(run.wall, 1),
            "µs CPU per request": round(run.micros, 1),
            "batches created": run.jobs,
            "vs floor": format_ratio(run.wall / floor.wall) if floor.wall else "",
        }
        for name, run in (("ours", first), ("again", resumed), ("floor", floor))
        if run.reason is None
    ]
    return Figure(
        name="resume",
        title="Resuming a finished run",
        method=f"One process submits {size:,} requests and waits for the answers; a second process submits the same"
        " requests with the same ledger. Seconds from the call to the last answer.",
        rows=rows,
        targets=[
            Target(
                "no request is submitted again",
                None if resumed.reason else resumed.jobs == 0,
                resumed.reason or f"{resumed.jobs} batches, {resumed.wall:.1f} s",
            )
        ],
        plots=[Bars(f"{size:,} requests", "seconds", {str(row["run"]): float(row["seconds"]) for row in rows})],
    )
