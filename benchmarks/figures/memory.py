"""Figure `memory`: peak memory per request, without inputs and outputs."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target, format_ratio, ratio
from benchmarks.plans import NAMES
from benchmarks.runs import BATCH_CONTENDERS, Run, Runs

_TARGET_BYTES = 1_024


def measure(runs: Runs) -> Figure:
    """Measure the peak memory of every contender."""
    plan = runs.plan
    rows: list[dict[str, Cell]] = []
    targets: list[Target] = []
    plots = []
    for size in plan.memory:
        names = BATCH_CONTENDERS if size <= plan.peers_up_to else ("ours",)
        measured = {
            name: run
            for name, run in runs.measure([*names, "floor"], size).items()
            if run.overhead is not None and not run.reason
        }
        others = [run.overhead for name, run in measured.items() if name not in ("ours", "floor")]
        best = min((overhead for overhead in others if overhead), default=None)
        rows += [_row(name, run, best) for name, run in measured.items()]
        ours = measured["ours"].overhead if "ours" in measured else None
        targets.append(
            Target(
                f"at most 1 kB per request at {size:,}",
                None if ours is None else ours <= _TARGET_BYTES,
                "not measured" if ours is None else f"{ours:,.0f} bytes",
            )
        )
        values = {NAMES[name]: run.overhead or 0.0 for name, run in measured.items()}
        title = f"Peak memory without inputs and outputs, {size:,} requests"
        plots.append(Bars(title, "bytes per request", values, (_TARGET_BYTES, "target: 1 kB")))
    return Figure(
        name="memory",
        title="Peak memory",
        method="Peak resident memory between the call and the last answer, minus the resident memory before the call"
        " (inputs included), minus the size of the outputs. The floor keeps only the texts of the answers.",
        rows=rows,
        targets=targets,
        plots=plots,
    )


def _row(name: str, run: Run, best: float | None) -> dict[str, Cell]:
    assert run.peak is not None
    assert run.overhead is not None
    return {
        "contender": NAMES[name],
        "requests": run.requests,
        "MB": round(run.peak / 1e6 - run.outputs / 1e6, 1),
        "bytes per request": round(run.overhead),
        "output bytes per request": round(run.outputs / run.requests),
        "vs best other": format_ratio(ratio(run.overhead, best)),
    }
