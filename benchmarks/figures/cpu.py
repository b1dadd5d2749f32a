"""The CPU time that a request costs the client."""

from __future__ import annotations

from benchmarks.figure import Bars, Cell, Figure, Target, ratio, times
from benchmarks.plans import NAMES
from benchmarks.runs import BATCH_CONTENDERS, Run, Runs


def measure(runs: Runs) -> Figure:
    """Measures it."""
    size, plan = runs.plan.cpu, runs.plan
    others = BATCH_CONTENDERS if size <= plan.peers_up_to else ("ours",)
    seen = runs.measure([*others, "floor"], size)
    if plan.synchronous:
        seen |= runs.measure(["synchronous"], plan.synchronous)
    done = {name: run for name, run in seen.items() if run.reason is None}
    best = min((run.micros for name, run in done.items() if name not in ("ours", "floor")), default=None)
    floor = done["floor"].micros if "floor" in done else None
    return Figure(
        name="cpu",
        title="Client CPU per request",
        how=f"{size:,} requests of 500 characters; user and system time of the client's process, from the call to the"
        " last answer, without imports and inputs. Only ours keeps a ledger (SQLite, `synchronous=FULL`)."
        + (f" The synchronous calls are a sample of {plan.synchronous:,}, scaled." if plan.synchronous else ""),
        rows=[_row(name, run, best, floor) for name, run in seen.items()],
        targets=[_target(done)],
        plots=[Bars("Client CPU per request", "µs", {NAMES[name]: run.micros for name, run in done.items()})],
    )


def _row(name: str, run: Run, best: float | None, floor: float | None) -> dict[str, Cell]:
    if run.reason:
        return {
            "contender": NAMES[name],
            "µs a request": None,
            "in the kernel": None,
            "to the best other": run.reason,
            "to the floor": "",
        }
    return {
        "contender": NAMES[name],
        "µs a request": round(run.micros, 1),
        "in the kernel": round(1e6 * run.system / run.requests, 1),
        "to the best other": times(ratio(run.micros, best)),
        "to the floor": times(ratio(run.micros, floor)),
    }


def _target(done: dict[str, Run]) -> Target:
    text = "half of distilabel's offline mode in the same run"
    if "ours" not in done or "offline" not in done:
        return Target(text, None, "not measured")
    share = done["ours"].micros / done["offline"].micros
    return Target(text, share <= 0.5, f"{share:.2f} of it")
