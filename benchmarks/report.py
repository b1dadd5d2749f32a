"""Writes `results.json`, `results.md` and the plots."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figure import Cell, Figure, Target
from benchmarks.plans import PEERS, Plan
from benchmarks.plots import draw
from benchmarks.runs import Run

SCHEMA = 1

_PACKAGES = ("distilabel", "openai", "httpx", "orjson", "pydantic", "anyio", "greenback")


def machine() -> dict[str, Any]:
    """What the figures depend on: never a path, a name or an address."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gb": _memory(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "peers": {name: requirements[0] for name, requirements in PEERS.items()},
    }


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, OSError, ValueError):
        return None


def write(
    folder: Path,
    plan: Plan,
    command: str,
    figures: Sequence[Figure],
    failed: Mapping[str, str],
    runs: Sequence[Run],
    seconds: float,
) -> None:
    """Writes everything that there is so far.

    Args:
        folder: where to.
        plan: how much was measured.
        command: what was called.
        figures: those that are done.
        failed: those that are not, and why.
        runs: every run.
        seconds: the time that it took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    results = {
        "schema": SCHEMA,
        "command": command,
        "plan": asdict(plan),
        "machine": facts,
        "seconds": round(seconds, 1),
        "figures": {figure.name: figure.as_json() for figure in figures},
        "failed": dict(failed),
        "runs": [asdict(run) for run in runs],
    }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    sections = [_head(plan, command, facts, seconds), _summary(figures, failed)]
    sections += [_section(figure, folder) for figure in figures]
    (folder / "results.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _head(plan: Plan, command: str, facts: Mapping[str, Any], seconds: float) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    warning = (
        ""
        if plan.name == "full"
        else (f"\n\n**This is a {plan.name} run: it shows the shape of the results. Its times say nothing.**")
    )
    return (
        f"# Benchmarks\n\nWritten by `{command}` in {seconds / 60:.0f} minutes; not to be edited.{warning}\n\nEvery"
        " contender runs in a process of its own, against the sandbox in another one, with zero service time unless"
        " said; all in one run, on the same questions. Ratios are worth more than times, which are one machine's:"
        f" {facts['implementation']} {facts['python']}, {facts['system']}, {facts['cores']} cores,"
        f" {facts['memory_gb']} GB, SQLite {facts['sqlite']}; {packages}; {', '.join(facts['peers'].values())}.\n\nThe"
        " floor is what nobody can do without: orjson writes and reads the same lines once, and httpx uploads and"
        " downloads the same bytes once over loopback."
    )


def _summary(figures: Sequence[Figure], failed: Mapping[str, str]) -> str:
    rows: list[dict[str, Cell]] = [
        {
            "figure": f"[{figure.title}](#{_anchor(figure.title)})",
            "target": target.text,
            "seen": target.seen,
            "": _verdict(target),
        }
        for figure in figures
        for target in figure.targets
    ]
    rows += [{"figure": name, "target": "", "seen": reason, "": "not measured"} for name, reason in failed.items()]
    return f"## Targets\n\n{_table(rows)}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _verdict(target: Target) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[target.met]


def _section(figure: Figure, folder: Path) -> str:
    parts = [f"## {figure.title}", figure.how, _table(figure.rows)]
    parts += [f"Target: {target.text}; {_verdict(target)} ({target.seen})." for target in figure.targets]
    if figure.notes:
        parts.append("\n".join(f"- {note}" for note in figure.notes))
    for number, plot in enumerate(figure.plots):
        path = folder / "plots" / f"{figure.name}{f'-{number + 1}' if len(figure.plots) > 1 else ''}.svg"
        if draw(plot, path):
            parts.append(f"![{plot.title}](plots/{path.name})")
    return "\n\n".join(parts)


def _table(rows: Sequence[Mapping[str, Cell]]) -> str:
    if not rows:
        return "Nothing was measured."
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    return value.replace("|", "\\|")
