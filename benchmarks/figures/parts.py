"""Figure `parts`: CPU time of each stage of a request."""

from __future__ import annotations

from benchmarks.figure import Cell, Figure
from benchmarks.runs import Run, Runs


def measure(runs: Runs) -> Figure:
    """Measure each stage alone, and compare the sum with a whole run."""
    size = runs.plan.cpu
    whole, offline, floor = runs.measure(["ours", "offline", "floor"], size).values()
    [alone] = runs.run("ours", size, module="parts")
    return Figure(
        name="parts",
        title="CPU time by stage",
        method=f"The stages of `OpenAIBatchLLM` for {size:,} requests, each run alone in one process. The remainder of"
        " a whole run is spent in the buffer, the event loop, httpx with both files, and garbage collection while"
        " every object is alive.",
        rows=_rows(whole, alone),
        notes=[
            "`OpenAILLM` builds the first call of each shape, from which the package derives the others, and reads"
            " every answer that has more than texts; property tests hold that requests and outputs are those of"
            " `OpenAILLM`. The ledger records results before they are delivered, so that a killed run keeps every"
            " answer; the offline mode records nothing.",
            *_without_ledger(alone, offline, floor),
        ],
    )


def _without_ledger(alone: Run, offline: Run, floor: Run) -> list[str]:
    """Return a note that estimates the CPU time without ledger, buffer and event loop."""
    if alone.reason or offline.reason or floor.reason:
        return []
    seconds = sum(stage for name, stage in alone.more["parts"].items() if "ledger" not in name)
    micros = 1e6 * seconds / alone.requests + floor.micros
    return [
        "Estimate without ledger, buffer and event loop: calls, completions, digests and the input file, plus"
        f" the floor for the transfer of both files: {micros:.1f} µs, {micros / offline.micros:.2f} of the offline"
        " mode."
    ]


def _rows(whole: Run, alone: Run) -> list[dict[str, Cell]]:
    if reason := whole.reason or alone.reason:
        return [{"stage": "all", "µs per request": None, "share": reason}]
    micros = {name: 1e6 * seconds / alone.requests for name, seconds in alone.more["parts"].items()}
    micros["remainder of a whole run"] = whole.micros - sum(micros.values())
    rows: list[dict[str, Cell]] = [
        {"stage": name, "µs per request": round(stage, 1), "share": f"{stage / whole.micros:.0%}"}
        for name, stage in micros.items()
    ]
    return [*rows, {"stage": "whole run", "µs per request": round(whole.micros, 1), "share": "100%"}]
