"""Figure `resume`: time of a run that finds every answer in the ledger."""

from __future__ import annotations

from benchmarks.figure import Bars, Figure, Target, format_ratio
from benchmarks.plans import NAMES
from benchmarks.runs import Runs
from distilabel_openai_batch.text import plural

_SECONDS_OF_A_MILLION = 10


def measure(runs: Runs) -> Figure:
    """Measure a run, and later runs with the ledger of the first."""
    size = runs.plan.resume
    first, resumed, floor = runs.resume(size)
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
        method=f"One process submits {size:,} requests and waits for the answers; later processes submit the same"
        " requests with the same ledger, in turn with the floor: the median of"
        f" {plural(runs.plan.repetitions, 'run')} each. Seconds from the call to the last answer.",
        rows=rows,
        targets=[
            Target(
                "no request is submitted again",
                None if resumed.reason else resumed.jobs == 0,
                resumed.reason or f"{resumed.jobs} batches, {resumed.wall:.1f} s",
            ),
            Target(
                f"a million answered requests are found in {_SECONDS_OF_A_MILLION} s",
                None if resumed.reason or size < 1_000_000 else resumed.wall <= _SECONDS_OF_A_MILLION * size / 1e6,
                resumed.reason or f"{resumed.wall:.1f} s",
            ),
        ],
        plots=[Bars(f"{size:,} requests", "seconds", {str(row["run"]): float(row["seconds"]) for row in rows})],
    )
