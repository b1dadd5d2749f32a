"""The memory that requests take beyond their inputs and outputs."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target, ratio, times
from benchmarks.plans import NAMES
from benchmarks.runs import BATCH_CONTENDERS, Run, Runs

_TARGET = 1_024


def measure(runs: Runs) -> Figure:
    """Measures it."""
    plan = runs.plan
    rows: list[dict[str, Cell]] = []
    targets: list[Target] = []
    plots = []
    for size in plan.memory:
        names = BATCH_CONTENDERS if size <= plan.peers_up_to else ("ours",)
        seen = {
            name: run
            for name, run in runs.measure([*names, "floor"], size).items()
            if run.beyond is not None and not run.reason
        }
        others = [run.beyond for name, run in seen.items() if name not in ("ours", "floor")]
        best = min((beyond for beyond in others if beyond), default=None)
        rows += [_row(name, run, best) for name, run in seen.items()]
        ours = seen["ours"].beyond if "ours" in seen else None
        targets.append(
            Target(
                f"1 kB a request or less at {size:,}",
                None if ours is None else ours <= _TARGET,
                "not measured" if ours is None else f"{ours:,.0f} bytes",
            )
        )
        values = {NAMES[name]: run.beyond or 0.0 for name, run in seen.items()}
        title = f"Peak memory beyond inputs and outputs, {size:,} requests"
        plots.append(Bars(title, "bytes a request", values, (_TARGET, "target: 1 kB")))
    return Figure(
        name="memory",
        title="Peak memory",
        how="The highest resident memory between the call and the last answer, less what there was before the call"
        " (inputs included), less the size of what is returned. Divided by the requests. The floor keeps nothing but"
        " the texts.",
        rows=rows,
        targets=targets,
        plots=plots,
    )


def _row(name: str, run: Run, best: float | None) -> dict[str, Cell]:
    assert run.peak is not None
    assert run.beyond is not None
    return {
        "contender": NAMES[name],
        "requests": run.requests,
        "beyond, MB": round(run.peak / 1e6 - run.outputs / 1e6, 1),
        "bytes a request": round(run.beyond),
        "output bytes a request": round(run.outputs / run.requests),
        "to the best other": times(ratio(run.beyond, best)),
    }
