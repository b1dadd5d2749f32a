"""Runs of contenders, each in a process of its own, against a sandbox in another process."""

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

from openai import OpenAI

from benchmarks.meter import Workload, contender_arguments
from benchmarks.plans import PEERS, Plan
from benchmarks.questions import MODEL, ROOT
from distilabel_openai_batch.sandbox import Sandbox, Settings

ENVIRONMENTS = ROOT / ".venv-bench"

RESUMED = "again"
"""Name of the second run of `ours`, which finds every answer in the ledger."""

ADOPTED = "elsewhere"
"""Name of a run of `ours` with an empty ledger, which finds every answer on the server."""

BATCH_CONTENDERS = ("ours", "offline", "inspect_ai", "autobatcher", "curator")

# distilabel 1.5.3 puts all rows into one file, and the API allows 50,000 requests in a file.
_OFFLINE_LIMIT = 50_000

# Longer runs are not repeated.
_REPEATED_SECONDS = 60.0


@dataclass(frozen=True)
class Run:
    """Measurement of one run of one contender.

    Attributes:
        contender: name of the contender.
        requests: number of requests given to the contender.
        reason: reason why the values are missing or incomplete; `None` after a complete run.
        wall: elapsed seconds.
        cpu: seconds of user and system time.
        system: seconds of system time, part of `cpu`.
        peak: bytes of peak memory above the inputs, outputs included; `None` if unknown.
        outputs: bytes of the outputs.
        answers: number of answered requests.
        jobs: number of created batches.
        calls: number of HTTP requests at the server, by name.
        more: further values that the contender reports.
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
        """Microseconds of CPU time per request."""
        return 1e6 * self.cpu / self.requests

    @property
    def overhead(self) -> float | None:
        """Bytes of peak memory per request without inputs and outputs; `None` if unknown."""
        return None if self.peak is None else (self.peak - self.outputs) / self.requests


class Runs:
    """Runner of contenders; figures share the runs of a contender with the same number of requests.

    Args:
        plan: sizes and repetitions.

    Attributes:
        plan: sizes and repetitions.
        all: every run so far.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.all: list[Run] = []
        self._known: dict[tuple[str, int, int | None], list[Run]] = {}

    def measure(self, contenders: Iterable[str], requests: int, *, characters: int | None = None) -> dict[str, Run]:
        """Run contenders, unless an earlier call did, and return the median of each by name.

        The runs alternate between the contenders, so that a slow minute of the machine affects all of them.

        Args:
            contenders: names of the contenders.
            requests: number of requests for each.
            characters: length of each answer; `None` for the sandbox's own answers.
        """
        contenders = list(contenders)
        if requests == self.plan.resume and "ours" in contenders and characters is None:
            # The figure `resume` needs the same run and resumes it → run both now.
            self.resume(requests)
        todo = [name for name in contenders if (name, requests, characters) not in self._known]
        settings = Settings(answer_characters=characters)
        repetitions = self.plan.repetitions if requests <= self.plan.repeated_up_to else 1
        for _ in range(repetitions):
            for name in todo:
                known = self._known.setdefault((name, requests, characters), [])
                if all(run.reason is None and run.wall < _REPEATED_SECONDS for run in known):
                    known += self._record(self.run(name, requests, settings=settings))
        return {name: _median(self._known[name, requests, characters]) for name in contenders}

    def resume(self, requests: int) -> tuple[Run, Run, Run]:
        """Return a run of `ours`, later runs that find every answer in the ledger of the first, and the floor.

        The later runs alternate with the floor. Of both, the median is returned.
        """
        ours, again, floor = keys = [(name, requests, None) for name in ("ours", RESUMED, "floor")]
        if again not in self._known:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder, Sandbox() as sandbox:
                first = self._run_once("ours", "ours", requests, folder, sandbox)
                self._known.setdefault(ours, []).extend(self._record([first]))
                for _ in range(self.plan.repetitions):
                    later = self._run_once(RESUMED, "ours", requests, folder, sandbox)
                    self._known.setdefault(again, []).extend(self._record([later]))
                    self._known.setdefault(floor, []).extend(self._record(self.run("floor", requests)))
        first, later, lower_bound = (_median(self._known[key]) for key in keys)
        return first, later, lower_bound

    def adopt(self, requests: int, others: int) -> tuple[Run, Run, Run, Run]:
        """Run `ours` first, with that ledger, with an empty ledger, and with an empty ledger among other batches.

        Args:
            requests: number of requests.
            others: number of the other batches, which are newer.
        """
        runs = []
        with Sandbox() as sandbox, tempfile.TemporaryDirectory(prefix="bench-") as first_folder:
            for name, batches in (("ours", 0), (RESUMED, 0), (ADOPTED, 0), (ADOPTED, others)):
                if batches:
                    create_batches(sandbox.base_url, batches)
                if name == ADOPTED:
                    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                        runs.append(self._run_once(name, "ours", requests, folder, sandbox))
                else:
                    runs.append(self._run_once(name, "ours", requests, first_folder, sandbox))
        first, resumed, adopted, found = self._record(runs)
        return first, resumed, adopted, found

    def run(
        self,
        contender: str,
        requests: int,
        *,
        module: str | None = None,
        settings: Settings | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[Run]:
        """Run a contender once, in a list of one run.

        Args:
            contender: name of the contender.
            requests: number of requests.
            module: module of the driver in `benchmarks.contenders`, if its name is not the contender's.
            settings: settings of the sandbox.
            options: options of the driver.
        """
        if reason := self._reason_to_skip(contender, requests):
            return [Run(contender, requests, reason)]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Sandbox(settings) as sandbox:
            return [self._run_once(contender, module or contender, requests, folder, sandbox, options)]

    def _reason_to_skip(self, contender: str, requests: int) -> str | None:
        if contender in PEERS and not self.plan.peers:
            return f"not part of a {self.plan.name} run"
        if contender in PEERS and not (ENVIRONMENTS / contender / "requirements.txt").exists():
            return "not installed; `make bench` installs it"
        if contender == "offline" and requests > _OFFLINE_LIMIT:
            return f"all requests go into one job, and a job takes {_OFFLINE_LIMIT:,}"
        return None

    def _record(self, runs: Sequence[Run]) -> Sequence[Run]:
        for run in runs:
            self.all.append(run)
            summary = run.reason or f"{run.wall:.1f} s, {run.micros:.0f} µs CPU per request"
            print(f"  {run.contender}, {run.requests:,} requests: {summary}", flush=True)
        return runs

    def _run_once(
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
        workload = Workload(requests, sandbox.base_url, folder, options or {})
        reason = execute(
            [
                os.fspath(_python(contender)),
                "-m",
                f"benchmarks.contenders.{module}",
                *contender_arguments(workload, report),
            ],
            environment(folder, sandbox.base_url),
            self.plan.peer_seconds if contender in PEERS else self.plan.seconds,
            Path(folder, "errors.txt"),
        )
        if reason or not report.exists():
            return Run(contender, requests, reason or "the process wrote no report")
        values = json.loads(report.read_text(encoding="utf-8"))
        calls = Counter(call.name for call in sandbox.calls()) - calls_before
        if values["answers"] < values["requests"]:
            reason = f"only {values['answers']:,} of {values['requests']:,} requests were answered"
        return Run(
            contender,
            requests,
            reason,
            wall=values["wall"],
            cpu=values["cpu"],
            system=values["system"],
            peak=values["peak"],
            outputs=values["output_bytes"] * values["requests"],
            answers=values["answers"],
            jobs=calls["batches.create"],
            calls=dict(calls),
            more=values.get("more", {}),
        )


def create_batches(base_url: str, number: int) -> None:
    """Create batches of one request each, as another user of the account would."""
    client = OpenAI(base_url=base_url, api_key="sk-benchmark")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    line = {"custom_id": "0", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("other.jsonl", json.dumps(line).encode()), purpose="batch")
    for _ in range(number):
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def _median(runs: Sequence[Run]) -> Run:
    """Return a run with the medians of `runs`, or the first run with a reason."""
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
    """Return the environment of this process without the key and URL of a real server, with an empty home folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "DISTILABEL_"))}
    return inherited | {
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
    """Run a command and wait until the process ends.

    Args:
        command: program and arguments.
        environment: environment variables of the process, complete.
        seconds: timeout, after which the process and its children are killed.
        errors: file for the standard error.

    Returns:
        Reason of a failure; `None` after success.
    """
    with errors.open("wb") as file:
        # A session of its own → `killpg` also ends the children of the process.
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
        return f"timeout after {time.monotonic() - started:,.0f} s"
    if not status:
        return None
    output = errors.read_text(encoding="utf-8", errors="replace")
    # The message of an exception may have several lines → take the last line that names an exception.
    named = [line for line in output.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return f"the process ended with {_without_paths(named[-1])[:300] if named else f'status {status}'}"


def _without_paths(line: str) -> str:
    """Return `line` without terminal colours and without the folders of paths."""
    return re.sub(r"(/[\w.+-]+){2,}/", "…/", re.sub(r"\x1b\[[0-9;]*m", "", line))
