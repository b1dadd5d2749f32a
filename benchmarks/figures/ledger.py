"""Figure `ledger`: commands on a large ledger, the time of an intent, and the bytes of the ledger."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from benchmarks.figure import Cell, Figure, Target
from benchmarks.questions import MODEL
from benchmarks.runs import Runs
from distilabel_openai_batch.api.outcomes import build_result_line
from distilabel_openai_batch.api.requests import Request, Shard, build_custom_id, digest_body
from distilabel_openai_batch.cli import application
from distilabel_openai_batch.ledger.job_counts import insert_counts
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName

_SCOPE = ScopeName("pipeline", "task", "https://api.example.com/v1/")
_PER_JOB = 50_000
_REPETITIONS = 3

_MAX_COMMAND_SECONDS = 0.5
_MAX_INTENT_SECONDS = 5.0
_INTENT = 1_000_000

_INSERT_JOB = """
    INSERT INTO jobs (scope, key, owner, state, endpoint, model, requests, bytes, intended_at, batch_id, status,
        completed, failed, total, ended_at)
    VALUES (1, :key, 'owner', 'collected', '/v1/chat/completions', :model, :requests, 1, 1.8e9, :key, 'completed',
        :requests - 1, 1, :requests, 1.8e9)
"""

# The last request of each job failed.
_INSERT_REQUESTS = """
    WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :requests)
    INSERT INTO requests (scope, custom_id, job, state, attempts, code, error, tokens_in, tokens_out)
    SELECT 1, lower(hex(randomblob(16))) || '-0', :job, iif(number < :requests, 'answered', 'failed'), 1,
        iif(number < :requests, NULL, 'bad'), iif(number < :requests, NULL, 'Bad.'), 125, 15
    FROM numbers
"""

_INSERT_ANSWER = "INSERT INTO answers (request, line) SELECT min(id), ? FROM requests WHERE job = ?"


def measure(runs: Runs) -> Figure:
    """Build a ledger of a few large jobs, and measure the commands that read it."""
    size, intents = runs.plan.ledger, min(runs.plan.ledger, _INTENT)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        build_ledger(Path(folder), size)
        commands = ("jobs", "failures", "show pipeline/task")
        seconds = {command: _time_command(command, folder) for command in commands}
        intent = _time_intents(Path(folder), intents)
    rows: list[dict[str, Cell]] = [
        *({"work": f"`{name}`", "requests": size, "seconds": round(value, 3)} for name, value in seconds.items()),
        {"work": "intents of new requests", "requests": intents, "seconds": round(intent, 2)},
    ]
    slowest = max(seconds, key=lambda name: seconds[name])
    return Figure(
        name="ledger",
        title="A large ledger",
        method=f"A script builds a ledger of {size:,} requests in jobs of {_PER_JOB:,}, with one answer's line and one"
        f" failure in each job. Seconds of each command without its imports, the median of {_REPETITIONS} calls; and of"
        f" the intents of {intents:,} further requests, in jobs of {_PER_JOB:,}.",
        rows=rows,
        targets=[
            Target(
                f"each command within {_MAX_COMMAND_SECONDS} s",
                seconds[slowest] <= _MAX_COMMAND_SECONDS,
                f"`{slowest}`: {seconds[slowest]:.2f} s",
            ),
            Target(f"the intents within {_MAX_INTENT_SECONDS:.0f} s", intent <= _MAX_INTENT_SECONDS, f"{intent:.1f} s"),
        ],
    )


def build_ledger(directory: Path, requests: int) -> None:
    """Write a ledger of collected jobs.

    Args:
        directory: the directory of the ledger.
        requests: the number of requests.
    """
    line = build_result_line("", {"model": MODEL, "choices": []})
    with closing(Ledger(directory, _SCOPE)) as ledger, ledger.connection.reading() as database:
        database.execute("INSERT INTO scopes (id, pipeline, task, base_url) VALUES (1, ?, ?, ?)", _columns())
        for start in range(0, requests, _PER_JOB):
            number = min(_PER_JOB, requests - start)
            database.execute("BEGIN")
            columns = {"key": f"batch_{start}", "model": MODEL, "requests": number}
            job_id = database.execute(_INSERT_JOB, columns).lastrowid
            assert job_id
            database.execute(_INSERT_REQUESTS, {"requests": number, "job": job_id})
            database.execute(_INSERT_ANSWER, (line, job_id))
            insert_counts(database, job_id)
            database.execute("COMMIT")


def _columns() -> tuple[str, str, str]:
    return _SCOPE.pipeline, _SCOPE.task, _SCOPE.base_url


def _time_command(command: str, folder: str) -> float:
    """Return the seconds of a command in this process, the median of some calls."""
    arguments = [*command.split(), "--ledger-dir", folder]
    runner = CliRunner()

    def invoke() -> None:
        result = runner.invoke(application.app, arguments)
        if result.exit_code:
            raise RuntimeError(f"`{command}` ended with {result.exit_code}: {result.output}")

    invoke()
    return statistics.median(_seconds(invoke) for _ in range(_REPETITIONS))


def _time_intents(directory: Path, requests: int) -> float:
    """Return the seconds in which a session records the intents of new requests."""
    with closing(Ledger(directory, _SCOPE)) as ledger:
        shards = []
        for start in range(0, requests, _PER_JOB):
            numbers = range(start, min(start + _PER_JOB, requests))
            custom_ids = [build_custom_id(digest_body("", "", b"%d" % number), 0) for number in numbers]
            members = [Request(custom_id, "/v1/chat/completions", MODEL, b"{}") for custom_id in custom_ids]
            shards.append(Shard.of(members))
        return sum(_seconds(lambda shard=shard: ledger.jobs.plan(shard)) for shard in shards)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
