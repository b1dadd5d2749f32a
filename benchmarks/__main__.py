"""Command that measures the figures and writes the report.

python -m benchmarks [--plan full|quick] [--only FIGURE …] [--repetitions NUMBER] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.figure import Figure
from benchmarks.figures import adoption, cpu, jobs, ledger, memory, parts, pipeline, polling, resume, scale, short, wall
from benchmarks.plans import PLANS
from benchmarks.questions import ROOT
from benchmarks.runs import Runs

FIGURES: dict[str, Callable[[Runs], Figure]] = {
    module.__name__.rpartition(".")[2]: module.measure
    for module in (cpu, short, parts, wall, memory, jobs, polling, pipeline, resume, adoption, ledger, scale)
} | {"growth": pipeline.measure_growth}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the figures that the command line names, and write the report after each of them.

    Args:
        arguments: command line without the program; `None` takes `sys.argv[1:]`.

    Returns:
        Exit status: 0 if every figure was measured, 1 if one failed. A missed target is no failure.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure every contender against the sandbox."
    )
    parser.add_argument(
        "--plan", choices=list(PLANS), default="full", help="sizes and repetitions to measure (default: full)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(FIGURES),
        metavar="FIGURE",
        help=f"figures to measure: {', '.join(FIGURES)} (default: all)",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks", help="folder for the results (default: benchmarks)"
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        help="repetitions of short runs, of which the median is reported (default: the plan's)",
    )
    options = parser.parse_args(arguments)
    plan = PLANS[options.plan]
    command = f"python -m benchmarks --plan {plan.name}" + (f" --only {' '.join(options.only)}" if options.only else "")
    if options.repetitions:
        plan = replace(plan, repetitions=options.repetitions)
        command += f" --repetitions {options.repetitions}"
    runs, figures, failed = Runs(plan), [], {}
    started = time.monotonic()
    for name in options.only or FIGURES:
        print(f"{name}:", flush=True)
        try:
            figures.append(FIGURES[name](runs))
        except Exception as error:
            # One figure failed → report the error and measure the others.
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"
        report.write(options.output, plan, command, figures, failed, runs.all, time.monotonic() - started)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
