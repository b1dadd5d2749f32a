"""Figure `scale`: ten million requests in virtual time, to check the use of the server's queue and of its limits."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figure import Bars, Cell, Figure, Target
from benchmarks.runs import Runs, environment, execute
from benchmarks.virtual_server import Scenario

_TOKENS = 125
_MIN_UTILISATION = 0.95

# A low limit needs many polls, of some real milliseconds each → simulate a fifth of the requests.
_LOW_LIMIT = 50_000_000
_LOW_LIMIT_DIVISOR = 5


def _scenarios(requests: int, limits: Sequence[int]) -> dict[str, Scenario]:
    scenarios = {}
    for limit in limits:
        scenarios[f"{limit / 1e6:.0f} M tokens"] = Scenario(
            requests=requests // (_LOW_LIMIT_DIVISOR if limit < _LOW_LIMIT else 1),
            stands_for=1_000,
            tokens=_TOKENS,
            per_job=50_000,
            max_jobs=50,
            token_limit=limit,
        )
    # Many small, short jobs → the limit of batch creations is reached first.
    scenarios["2,000 creations per hour"] = Scenario(
        requests=requests // 10,
        stands_for=100,
        tokens=_TOKENS,
        per_job=400,
        max_jobs=100,
        token_limit=10**12,
        median_seconds=120.0,
        validating=5.0,
        expiring=0.0,
    )
    return scenarios


def measure(runs: Runs) -> Figure:
    """Simulate a run for each limit."""
    scenarios = _scenarios(runs.plan.scale, runs.plan.limits)
    reports = {name: _simulate(scenario, runs.plan.seconds) for name, scenario in scenarios.items()}
    done = {name: report for name, report in reports.items() if "reason" not in report}
    utilisation = {
        name: report["utilisation"] for name, report in done.items() if "tokens" in name and report["utilisation"]
    }
    return Figure(
        name="scale",
        title="Simulation of scale",
        method=f"{runs.plan.scale:,} requests (or fewer, see the table) of {_TOKENS} prompt tokens, submitted together"
        " in virtual time. Real: the package from the session down with its defaults (50 jobs in progress, 50,000"
        " requests per job), the SDK, and the ledger on disk. Simulated: the clock and the server behind httpx; one"
        " simulated request stands for a thousand. Jobs take an hour in the median (log-normal), 1 % of the requests"
        " fail with a retryable error, 2 % of the jobs expire after 24 h with half of their requests answered."
        " Utilisation: enqueued tokens in percent of the limit, averaged over the time in which the requests of at"
        " least one job waited to be submitted. The last row simulates a tenth of the requests in jobs of 400 requests"
        " that take two minutes, 100 in progress; one simulated request stands for 100.",
        rows=[_row(name, scenario, reports[name]) for name, scenario in scenarios.items()],
        targets=[
            *(
                Target(f"at least 95 % of the limit of {name} in use", share >= _MIN_UTILISATION, f"{share:.1%}")
                for name, share in utilisation.items()
            ),
            _limits_target(scenarios, done),
            Target(
                "an answer for every request, and no request answered twice",
                len(done) == len(scenarios)
                and all(not report["without_an_answer"] and not report["answered_twice"] for report in done.values()),
                "; ".join(
                    f"{name}: {report['answered']:,} answered in {report['hours']:.1f} h"
                    for name, report in done.items()
                ),
            ),
        ],
        plots=[Bars("Utilisation of the token limit", "share", dict(utilisation), (_MIN_UTILISATION, "target: 95 %"))]
        if utilisation
        else [],
        notes=[
            "Jobs that the server rejects because of the token limit cost nothing and never enter the queue; the table"
            " counts them.",
        ],
    )


def _simulate(scenario: Scenario, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        report = Path(folder, "report.json")
        reason = execute(
            [sys.executable, "-m", "benchmarks.simulation", json.dumps(asdict(scenario)), os.fspath(report)],
            environment(folder, "http://virtual/v1"),
            seconds,
            Path(folder, "errors.txt"),
        )
        if reason or not report.exists():
            return {"reason": reason or "the process wrote no report"}
        values: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return values


def _row(name: str, scenario: Scenario, report: dict[str, Any]) -> dict[str, Cell]:
    if "reason" in report:
        return {
            "limit": name,
            "requests": scenario.requests,
            "hours": report["reason"],
            "utilisation": "",
            "peak enqueued": "",
            "batches": None,
            "rejected for tokens": None,
            "peak created per hour": None,
            "creations rejected": None,
            "polls per hour": None,
        }
    share = report["utilisation"]
    return {
        "limit": name,
        "requests": scenario.requests,
        "hours": round(report["hours"], 1),
        "utilisation": f"{share:.1%}" if share and "tokens" in name else "",
        "peak enqueued": f"{report['most_enqueued'] / 1e6:,.0f} M",
        "batches": report["batches"],
        "rejected for tokens": report["rejected_batches"],
        "peak created per hour": report["most_created_per_hour"],
        "creations rejected": report["rejected_creations"],
        "polls per hour": round(report["polls"] / report["hours"]),
    }


def _limits_target(scenarios: dict[str, Scenario], done: dict[str, dict[str, Any]]) -> Target:
    text = "no limit exceeded: enqueued tokens, 2,000 creations per hour"
    kept = all(
        report["most_enqueued"] <= scenarios[name].token_limit
        and report["most_created_per_hour"] <= scenarios[name].creations_per_hour
        and not report["rejected_creations"]
        for name, report in done.items()
    )
    rejected = sum(report["rejected_creations"] for report in done.values())
    most = max((report["most_created_per_hour"] for report in done.values()), default=0)
    observed = f"at most {most:,} created per hour, {rejected:,} creations rejected with 429"
    return Target(text, kept if done else None, observed)
