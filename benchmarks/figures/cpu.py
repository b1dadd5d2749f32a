"""Figure `cpu`: CPU time of the client per request."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target, format_ratio, ratio
from benchmarks.plans import NAMES
from benchmarks.runs import BATCH_CONTENDERS, Run, Runs


def measure(runs: Runs) -> Figure:
    """Measure the CPU time of every contender with the same number of requests."""
    size, plan = runs.plan.cpu, runs.plan
    names = BATCH_CONTENDERS if size <= plan.peers_up_to else ("ours",)
    measured = runs.measure([*names, "floor"], size)
    if plan.synchronous:
        measured |= runs.measure(["synchronous"], plan.synchronous)
    done = {name: run for name, run in measured.items() if run.reason is None}
    best = min((run.micros for name, run in done.items() if name not in ("ours", "floor")), default=None)
    floor = done["floor"].micros if "floor" in done else None
    return Figure(
        name="cpu",
        title="Client CPU per request",
        method=f"User and system time of the client's process for {size:,} requests of 500 characters, from the call to"
        " the last answer, without imports and inputs. Only `OpenAIBatchLLM` keeps a ledger (SQLite,"
        " `synchronous=FULL`)."
        + (f" The synchronous LLM is measured with {plan.synchronous:,} calls." if plan.synchronous else ""),
        rows=[_row(name, run, best, floor) for name, run in measured.items()],
        targets=[_target(done)],
        plots=[Bars("Client CPU per request", "µs", {NAMES[name]: run.micros for name, run in done.items()})],
    )


def _row(name: str, run: Run, best: float | None, floor: float | None) -> dict[str, Cell]:
    if run.reason:
        return {
            "contender": NAMES[name],
            "µs per request": None,
            "kernel µs": None,
            "vs best other": run.reason,
            "vs floor": "",
        }
    return {
        "contender": NAMES[name],
        "µs per request": round(run.micros, 1),
        "kernel µs": round(1e6 * run.system / run.requests, 1),
        "vs best other": format_ratio(ratio(run.micros, best)),
        "vs floor": format_ratio(ratio(run.micros, floor)),
    }


def _target(done: dict[str, Run]) -> Target:
    text = "at most half the CPU time of distilabel's offline mode"
    if "ours" not in done or "offline" not in done:
        return Target(text, None, "not measured")
    share = done["ours"].micros / done["offline"].micros
    return Target(text, share <= 0.5, f"{share:.2f} of the offline mode")
