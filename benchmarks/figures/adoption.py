"""Figure `adoption`: time and HTTP requests of a run that finds every answer on the server, and none in its ledger."""

from __future__ import annotations

from benchmarks.figure import Bars, Figure, Target
from benchmarks.plans import NAMES
from benchmarks.runs import ADOPTED, RESUMED, Runs


def measure(runs: Runs) -> Figure:
    """Measure a run, a second run with its ledger, and two runs on other machines."""
    size, others = runs.plan.adopted, runs.plan.others
    first, resumed, adopted, found = runs.adopt(size, others)
    named = {
        NAMES["ours"]: first,
        NAMES[RESUMED]: resumed,
        NAMES[ADOPTED]: adopted,
        f"{NAMES[ADOPTED]}, among {others:,} newer batches": found,
    }
    rows = [
        {
            "run": name,
            "seconds": round(run.wall, 1),
            "µs CPU per request": round(run.micros, 1),
            "batches created": run.jobs,
            "HTTP requests": sum(run.calls.values()),
            "pages of the list": run.calls.get("batches.list", 0),
            "downloads": run.calls.get("files.content", 0),
        }
        for name, run in named.items()
        if run.reason is None
    ]
    reason = next((run.reason for run in named.values() if run.reason), None)
    repeated = adopted.jobs + found.jobs
    return Figure(
        name="adoption",
        title="Continuing on another machine",
        method=f"One process submits {size:,} requests and waits for the answers. A second process submits the same"
        " requests with the same ledger; a third and a fourth process with an empty ledger each, so that they find the"
        " batches on the server. Seconds from the call to the last answer.",
        rows=rows,
        targets=[
            Target(
                "no request is submitted again",
                None if reason else repeated == 0,
                reason or f"{repeated} batches, {adopted.wall:.1f} s and {found.wall:.1f} s",
            )
        ],
        plots=[Bars(f"{size:,} requests", "seconds", {str(row["run"]): float(row["seconds"]) for row in rows})],
    )
