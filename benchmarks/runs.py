"""Runs contenders, each in a process of its own against a sandbox in another, and remembers what came of it."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.meter import Task, arguments
from benchmarks.plans import PEERS, Plan
from benchmarks.questions import ROOT
from distilabel_openai_batch.sandbox import Sandbox, Settings

ENVIRONMENTS = ROOT / ".venv-bench"

AGAIN = "again"
"""As `ours`, started once more when all is answered."""

BATCH_CONTENDERS = ("ours", "offline", "inspect_ai", "autobatcher", "curator")

# distilabel 1.5.3 puts all rows into one file, whatever their number; the API takes so many.
_OFFLINE_LIMIT = 50_000

# What takes longer is not repeated.
_REPEATED_SECONDS = 60.0


@dataclass(frozen=True)
class Run:
    """What one run of one contender came to.

    Attributes:
        contender: who.
        requests: how many it was to ask.
        reason: why there are no figures; `None` where there are.
        wall: seconds.
        cpu: seconds of user and system time.
        system: the part of them spent in the kernel.
        peak: bytes of memory at its highest beyond the inputs, which include the outputs; `None` where unknown.
        outputs: bytes of the outputs.
        answers: requests that were answered.
        jobs: batches that were created.
        calls: HTTP requests that the server saw, by name.
        more: what else the contender reports.
    """

    contender: str
    requests: int
    reason: str | None = None
    wall: float = 0.0
    cpu: float = 0.0
    system: float = 0.0
    peak: float | None = None
    outputs: float = 0.0
    answers: int = 0
    jobs: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def micros(self) -> float:
        """Microseconds of CPU time for each request."""
        return 1e6 * self.cpu / self.requests

    @property
    def beyond(self) -> float | None:
        """Bytes of memory for each request, beyond its input and its output."""
        return None if self.peak is None else (self.peak - self.outputs) / self.requests


class Runs:
    """Every run so far; what was run for one figure is not run again for another.

    Args:
        plan: how much is measured.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.all: list[Run] = []
        self._done: dict[tuple[str, int], list[Run]] = {}

    def measure(self, contenders: Iterable[str], requests: int) -> dict[str, Run]:
        """The medians of each contender's runs, interleaved so that a slow minute of the machine hits all alike.

        Args:
            contenders: who takes part.
            requests: how many each is to ask.
        """
        contenders = list(contenders)
        if requests == self.plan.resume and "ours" in contenders:
            # The same run is started again for another figure.
            self.again(requests)
        todo = [name for name in contenders if (name, requests) not in self._done]
        repetitions = self.plan.repetitions if requests <= self.plan.repeated_up_to else 1
        for _ in range(repetitions):
            for name in todo:
                known = self._done.setdefault((name, requests), [])
                if all(run.reason is None and run.wall < _REPEATED_SECONDS for run in known):
                    known += self._keep(self.run(name, requests))
        return {name: _median(self._done[name, requests]) for name in contenders}

    def again(self, requests: int) -> tuple[Run, Run]:
        """A run of ours, and the same run started once more when all is answered."""
        if (AGAIN, requests) not in self._done:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder, Sandbox() as sandbox:
                first, second = (
                    self._once(name, module, requests, folder, sandbox)
                    for name, module in (("ours", "ours"), (AGAIN, "ours"))
                )
            self._keep([first, second])
            self._done.setdefault(("ours", requests), []).append(first)
            self._done[AGAIN, requests] = [second]
        return _median(self._done["ours", requests]), self._done[AGAIN, requests][0]

    def run(
        self,
        contender: str,
        requests: int,
        *,
        module: str | None = None,
        settings: Settings | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[Run]:
        """Runs a contender once.

        Args:
            contender: who.
            requests: how many it is to ask.
            module: its driver, where it is not named like the contender.
            settings: how the sandbox behaves.
            options: what the driver is told besides.
        """
        if reason := self._why_not(contender, requests):
            return [Run(contender, requests, reason)]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Sandbox(settings) as sandbox:
            return [self._once(contender, module or contender, requests, folder, sandbox, options)]

    def _why_not(self, contender: str, requests: int) -> str | None:
        if contender in PEERS and not self.plan.peers:
            return f"not part of a {self.plan.name} run"
        if contender in PEERS and not (ENVIRONMENTS / contender / "requirements.txt").exists():
            return "not installed: `make bench` does that"
        if contender == "offline" and requests > _OFFLINE_LIMIT:
            return f"it puts all requests into one job, and a job takes {_OFFLINE_LIMIT:,}"
        return None

    def _keep(self, runs: Sequence[Run]) -> Sequence[Run]:
        for run in runs:
            self.all.append(run)
            told = run.reason or f"{run.wall:.1f} s, {run.micros:.0f} µs CPU a request"
            print(f"  {run.contender}, {run.requests:,} requests: {told}", flush=True)
        return runs

    def _once(
        self,
        contender: str,
        module: str,
        requests: int,
        folder: str,
        sandbox: Sandbox,
        options: dict[str, Any] | None = None,
    ) -> Run:
        report = Path(folder, "report.json")
        report.unlink(missing_ok=True)
        calls_before = Counter(call.name for call in sandbox.calls())
        task = Task(requests, sandbox.base_url, folder, options or {})
        reason = execute(
            [os.fspath(_python(contender)), "-m", f"benchmarks.contenders.{module}", *arguments(task, report)],
            environment(folder, sandbox.base_url),
            self.plan.peer_seconds if contender in PEERS else self.plan.seconds,
            Path(folder, "errors.txt"),
        )
        if reason or not report.exists():
            return Run(contender, requests, reason or "it left no report")
        told = json.loads(report.read_text(encoding="utf-8"))
        calls = Counter(call.name for call in sandbox.calls()) - calls_before
        if told["answers"] < told["requests"]:
            reason = f"only {told['answers']:,} of {told['requests']:,} requests were answered"
        return Run(
            contender,
            requests,
            reason,
            wall=told["wall"],
            cpu=told["cpu"],
            system=told["system"],
            peak=told["peak"],
            outputs=told["output_bytes"] * told["requests"],
            answers=told["answers"],
            jobs=calls["batches.create"],
            calls=dict(calls),
            more=told.get("more", {}),
        )


def _median(runs: Sequence[Run]) -> Run:
    """The median of each figure; the run that failed where there is one."""
    failed = [run for run in runs if run.reason]
    if failed:
        return failed[0]
    peaks = [run.peak for run in runs if run.peak is not None]
    return replace(
        runs[0],
        wall=statistics.median(run.wall for run in runs),
        cpu=statistics.median(run.cpu for run in runs),
        system=statistics.median(run.system for run in runs),
        peak=statistics.median(peaks) if peaks else None,
    )


def _python(contender: str) -> Path:
    return ENVIRONMENTS / contender / "bin" / "python" if contender in PEERS else Path(sys.executable)


def environment(folder: str, base_url: str) -> dict[str, str]:
    """As ours, but with no key and no address of a real server in it, and a home that is empty."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "DISTILABEL_"))}
    return kept | {
        "PYTHONPATH": os.fspath(ROOT),
        "HOME": folder,
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-benchmark",
        "DISTILABEL_OPENAI_BATCH_DIR": os.path.join(folder, "ledger"),
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": os.path.join(folder, "hf"),
    }


def execute(command: Sequence[str], environment: dict[str, str], seconds: float, errors: Path) -> str | None:
    """Runs a command to its end.

    Args:
        command: the program and its arguments.
        environment: all of its environment.
        seconds: what it is given; then it is killed, with whatever it started.
        errors: where its error output goes.

    Returns:
        Why it failed; `None` where it did not.
    """
    with errors.open("wb") as file:
        # In a session of its own, so that whatever it started can be ended with it.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        started = time.monotonic()
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status is None:
        return f"it was not done after {time.monotonic() - started:,.0f} s"
    if not status:
        return None
    told = errors.read_text(encoding="utf-8", errors="replace")
    # The last line that names an exception: what stands behind it may be more of its words.
    named = [line for line in told.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return f"it ended with {_without_paths(named[-1])[:300] if named else f'status {status}'}"


def _without_paths(line: str) -> str:
    """A line without what it says of this machine's folders."""
    return re.sub(r"(/[\w.+-]+){2,}/", "…/", re.sub(r"\x1b\[[0-9;]*m", "", line))
