"""Ten million requests in virtual time: is the server's queue kept full, and is every limit kept?"""

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
_FULL = 0.95

# Of a limit that takes few requests at once, a part of all is simulated: each look takes real milliseconds.
_PART = 5
_LOW = 50_000_000


def _scenarios(requests: int, limits: Sequence[int]) -> dict[str, Scenario]:
    found = {}
    for limit in limits:
        found[f"{limit / 1e6:.0f} M tokens"] = Scenario(
            requests=requests // (_PART if limit < _LOW else 1),
            stands_for=1_000,
            tokens=_TOKENS,
            per_job=50_000,
            max_jobs=50,
            token_limit=limit,
        )
    # Many small and short jobs, so that the creations are what is short.
    found["2,000 creations an hour"] = Scenario(
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
    return found


def measure(runs: Runs) -> Figure:
    """Simulates it."""
    scenarios = _scenarios(runs.plan.scale, runs.plan.limits)
    seen = {name: _simulate(scenario, runs.plan.seconds) for name, scenario in scenarios.items()}
    done = {name: report for name, report in seen.items() if "reason" not in report}
    filled = {
        name: report["utilisation"] for name, report in done.items() if "tokens" in name and report["utilisation"]
    }
    return Figure(
        name="scale",
        title="Simulation of scale",
        how=f"{runs.plan.scale:,} requests (fewer where the table says so) of {_TOKENS} prompt tokens, all asked at"
        " once, in virtual time. Real: everything of ours from the session down, defaults throughout (50 jobs in"
        " flight, 50,000 requests a job), the SDK, and the ledger on the disk. Simulated: the clock; the server,"
        " behind httpx; and one request of the simulation stands for a thousand. Jobs take an hour in the median"
        " (log-normal), 1 % of the requests fail in a way that may pass, 2 % of the jobs expire half answered after"
        " 24 h. Utilisation: tokens enqueued, as a share of the limit, in the mean over all the time in which a"
        " whole job's requests were waiting. The last row is a tenth of the requests, in jobs of 400 that take two"
        " minutes, 100 in flight, one standing for 100.",
        rows=[_row(name, scenario, seen[name]) for name, scenario in scenarios.items()],
        targets=[
            *(
                Target(f"queue kept full to 95 %, limit {name}", share >= _FULL, f"{share:.1%}")
                for name, share in filled.items()
            ),
            _limits(scenarios, done),
            Target(
                "it ends, with an answer for every request and none bought twice",
                len(done) == len(scenarios)
                and all(not report["without_an_answer"] and not report["answered_twice"] for report in done.values()),
                "; ".join(
                    f"{name}: {report['answered']:,} answered in {report['hours']:.1f} h"
                    for name, report in done.items()
                ),
            ),
        ],
        plots=[Bars("Utilisation of the token limit", "share", dict(filled), (_FULL, "target: 95 %"))]
        if filled
        else [],
        notes=[
            "Jobs that the server refuses because of the token limit cost nothing and never enter the queue; they"
            " are counted in the table.",
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
            return {"reason": reason or "it left no report"}
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return told


def _row(name: str, scenario: Scenario, report: dict[str, Any]) -> dict[str, Cell]:
    if "reason" in report:
        return {
            "limit": name,
            "requests": scenario.requests,
            "hours": report["reason"],
            "utilisation": "",
            "most enqueued": "",
            "batches": None,
            "refused for tokens": None,
            "most created in an hour": None,
            "creations refused": None,
            "looks an hour": None,
        }
    share = report["utilisation"]
    return {
        "limit": name,
        "requests": scenario.requests,
        "hours": round(report["hours"], 1),
        "utilisation": f"{share:.1%}" if share and "tokens" in name else "",
        "most enqueued": f"{report['most_enqueued'] / 1e6:,.0f} M",
        "batches": report["batches"],
        "refused for tokens": report["refused_batches"],
        "most created in an hour": report["most_created_in_an_hour"],
        "creations refused": report["refused_creations"],
        "looks an hour": round(report["looks"] / report["hours"]),
    }


def _limits(scenarios: dict[str, Scenario], done: dict[str, dict[str, Any]]) -> Target:
    text = "no limit is broken: tokens enqueued, 2,000 creations an hour"
    kept = all(
        report["most_enqueued"] <= scenarios[name].token_limit
        and report["most_created_in_an_hour"] <= scenarios[name].creations_an_hour
        and not report["refused_creations"]
        for name, report in done.items()
    )
    refused = sum(report["refused_creations"] for report in done.values())
    most = max((report["most_created_in_an_hour"] for report in done.values()), default=0)
    told = f"at most {most:,} created in an hour, {refused:,} creations refused with 429"
    return Target(text, kept if done else None, told)
