"""Where the CPU time of a request goes."""

from __future__ import annotations

from benchmarks.figure import Cell, Figure
from benchmarks.runs import Run, Runs


def measure(runs: Runs) -> Figure:
    """Measures it."""
    size = runs.plan.cpu
    whole, offline, floor = runs.measure(["ours", "offline", "floor"], size).values()
    [alone] = runs.run("ours", size, module="parts")
    return Figure(
        name="parts",
        title="Where the CPU time goes",
        how=f"The parts of `OpenAIBatchLLM`, each alone, one after the other in one process, {size:,} requests; and"
        " what a whole run took beyond them: the buffer, the event loop, httpx with both files, and the collection of"
        " garbage while all of it is alive.",
        rows=_rows(whole, alone),
        notes=[
            "Of the chats of one shape `OpenAILLM` makes the first call, from which the others are made; it reads"
            " each answer. What it sends and makes of an answer is never written twice. What is recorded in the ledger"
            " before the answers are handed over is what a run that is killed does not lose; the offline mode records"
            " nothing.",
            *_without_ledger(alone, offline, floor),
        ],
    )


def _without_ledger(alone: Run, offline: Run, floor: Run) -> list[str]:
    """What is left to be saved, as far as it can be told from parts that were measured."""
    if alone.reason or offline.reason or floor.reason:
        return []
    seconds = sum(took for name, took in alone.more["parts"].items() if "ledger" not in name)
    micros = 1e6 * seconds / alone.requests + floor.micros
    return [
        "With no ledger, no buffer and no event loop there would be left `OpenAILLM`'s part, JSON, digests and the"
        f" input file, and the floor, which has both files' way over HTTP: {micros:.1f} µs,"
        f" {micros / offline.micros:.2f} of the offline mode."
    ]


def _rows(whole: Run, alone: Run) -> list[dict[str, Cell]]:
    if reason := whole.reason or alone.reason:
        return [{"part": "all", "µs a request": None, "share": reason}]
    micros = {name: 1e6 * seconds / alone.requests for name, seconds in alone.more["parts"].items()}
    micros["what a whole run takes beyond them"] = whole.micros - sum(micros.values())
    rows: list[dict[str, Cell]] = [
        {"part": name, "µs a request": round(took, 1), "share": f"{took / whole.micros:.0%}"}
        for name, took in micros.items()
    ]
    return [*rows, {"part": "a whole run", "µs a request": round(whole.micros, 1), "share": "100%"}]
