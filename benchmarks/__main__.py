"""Measures, and writes what came of it.

python -m benchmarks [--plan full|quick] [--only FIGURE …] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.figure import Figure
from benchmarks.figures import cpu, jobs, memory, parts, pipeline, polling, resume, scale, wall
from benchmarks.plans import PLANS
from benchmarks.questions import ROOT
from benchmarks.runs import Runs

FIGURES: dict[str, Callable[[Runs], Figure]] = {
    module.__name__.rpartition(".")[2]: module.measure
    for module in (cpu, parts, wall, memory, jobs, polling, pipeline, resume, scale)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks.

    Args:
        arguments: of the command line; those of the process if not given.

    Returns:
        The exit status: 0 if every figure was made, whatever it says.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures all contenders side by side.")
    parser.add_argument("--plan", choices=list(PLANS), default="full", help="how much is measured (default: full)")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks", help="where the results go")
    asked = parser.parse_args(arguments)
    plan = PLANS[asked.plan]
    command = f"python -m benchmarks --plan {plan.name}" + (f" --only {' '.join(asked.only)}" if asked.only else "")
    runs, figures, failed = Runs(plan), [], {}
    started = time.monotonic()
    for name in asked.only or FIGURES:
        print(f"{name}:", flush=True)
        try:
            figures.append(FIGURES[name](runs))
        except Exception as error:
            # The others are worth having all the same.
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"
        report.write(asked.output, plan, command, figures, failed, runs.all, time.monotonic() - started)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
