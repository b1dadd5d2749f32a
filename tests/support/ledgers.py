"""Ledgers of runs that never happened, for tests of the report and of the commands."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from distilabel_openai_batch.api.outcomes import build_result_line
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.row_pages import RowReader
from distilabel_openai_batch.ledger.states import ScopeName
from tests.support.environment import ROOT

START = 1_795_500_000.0
"""Time at which the first job is planned, in seconds since the epoch."""

OPENAI = "https://api.openai.com/v1/"
REASONS = [
    (400, "content_filter", "The response was filtered due to the prompt triggering a content management policy."),
    (400, "context_length_exceeded", "This model's maximum context length is 128000 tokens."),
    (429, "rate_limit_exceeded", "Rate limit reached for requests."),
    (None, "batch_expired", "This request could not be executed before the completion window expired."),
]


OLD_LEDGER = ROOT / "tests/unit/ledger/data/ledger_149ce07.sql"
"""Dump of a ledger that an older release wrote; its first lines say what the ledger holds."""

OLD_OPEN_JOB = OLD_LEDGER.with_name("open_job_149ce07.jsonl")
"""Input file of the open job in `OLD_LEDGER`."""


def list_requests(directory: Path, state: str = "all") -> set[str]:
    """Return the `custom_id`s of the requests of all scopes in a state, one of `row_pages.STATES`."""
    reader = RowReader(directory)
    scopes = reader.scopes() if reader.path.exists() else []
    return {row.custom_id for scope in scopes for row in reader.page(scope.id, limit=10**6, state=state).rows}


def write_old_ledger(directory: Path) -> None:
    """Write the ledger of the older release, whose sessions are all dead."""
    directory.mkdir()
    with closing(sqlite3.connect(directory / FILE_NAME)) as database:
        database.executescript(OLD_LEDGER.read_text(encoding="utf-8"))


class LedgerWriter:
    """Writer of a ledger file, row by row, without a run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._random = random.Random(7)
        Ledger(directory, ScopeName("preferences", "generate", OPENAI)).close()
        self._database = sqlite3.connect(directory / FILE_NAME, isolation_level=None)

    def scope(self, pipeline: str, task: str, base_url: str = OPENAI) -> int:
        """Write a scope and return its id."""
        names = (pipeline, task, base_url)
        self._database.execute("INSERT OR IGNORE INTO scopes (pipeline, task, base_url) VALUES (?, ?, ?)", names)
        where = "pipeline = ? AND task = ? AND base_url = ?"
        [scope] = self._database.execute(f"SELECT id FROM scopes WHERE {where}", names).fetchone()
        return scope

    def job(
        self,
        scope: int,
        planned: float,
        status: str = "completed",
        requests: int = 200,
        answered: int | None = None,
        queued: float = 300.0,
        took: float = 3_600.0,
        model: str = "gpt-4o-mini",
        known: bool = True,
        looks: int = 20,
        error: str | None = None,
        failures: list[tuple[int | None, str | None, str]] | None = None,
        rows: bool = True,
    ) -> int:
        """Write a job and return its id.

        Args:
            planned: seconds from `START` to the planning of the job.
            known: whether the server reported the times of the job's phases.
            looks: number of recorded polls.
            rows: whether the job's requests are written too.
        """
        planned += START
        is_open = status in ("validating", "in_progress", "finalizing")
        state = "created" if is_open else ("dropped" if status == "failed" else "collected")
        answered = requests if answered is None else answered
        begun, end = planned + queued, planned + queued + took
        finished = None if is_open else end
        began = begun if known and status not in ("validating", "failed") else None
        final = end - took * 0.08 if began and status in ("completed", "expired", "finalizing") else None
        cancelling = end - took * 0.1 if began and status == "cancelled" else None
        count = self._database.execute("SELECT count(*) FROM jobs").fetchone()[0] + 1
        job = self._database.execute(
            "INSERT INTO jobs (owner, endpoint, input_file_id, scope, key, state, model, requests, bytes, intended_at,"
            " batch_id, status, completed, failed, total, ended_at, error, in_progress_at, finalizing_at,"
            " cancelling_at, finished_at) VALUES ('o', '/v1/chat/completions', 'file-1', ?, ?, ?, ?, ?, ?, ?,"
            " ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                scope, f"k{count}", state, model, requests, 330 * requests, planned, f"batch_{count:024x}", status,
                0 if is_open else answered, 0 if is_open else requests - answered, requests, finished, error, began,
                final, cancelling, finished if known else None,
            ),
        ).lastrowid  # fmt: skip
        if began and looks:
            ended = final or cancelling or end
            self._database.executemany(
                "INSERT INTO looks (job, seen_at, completed, failed) VALUES (?, ?, ?, 0)",
                [
                    (job, began + (ended - began) * step / looks, int(answered * (step / looks) ** 1.15))
                    for step in range(1, looks + (not is_open))
                ],
            )
        if rows:
            self._requests(scope, job, requests, 0 if is_open else answered, status, model, failures or REASONS)
        return job

    def _requests(self, scope, job, requests, answered, status, model, failures) -> None:
        def request(number: int) -> tuple:
            custom_id = f"{job:016x}{number:016x}-0"
            if number < answered:
                return (scope, custom_id, job, "answered", 200, None, None, 180, self._random.randint(200, 700))
            if status in ("validating", "in_progress", "finalizing"):
                return (scope, custom_id, job, "asked", None, None, None, None, None)
            status_code, code, message = failures[self._random.randrange(len(failures)) // (1 + number % 2)]
            return (scope, custom_id, job, "failed", status_code, code, message, None, None)

        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO requests (scope, custom_id, job, state, attempts, status_code, code, error, tokens_in,"
            " tokens_out) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?)",
            map(request, range(requests)),
        )
        line = build_result_line("", {"model": model, "choices": [{"message": {"content": "A SECRET ANSWER"}}]})
        self._database.execute(
            "INSERT INTO answers (request, line)"
            " SELECT id, ? FROM requests WHERE job = ? AND state = 'answered' LIMIT 1",
            (line, job),
        )
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()


def write_example_ledger(directory: Path) -> None:
    """Write an afternoon of two Tasks: jobs of every ending, and jobs in progress."""
    with closing(LedgerWriter(directory)) as ledger:
        generate, judge = ledger.scope("preferences", "generate"), ledger.scope("preferences", "judge")
        ledger.job(generate, 0, requests=2_000, answered=1_962)
        ledger.job(generate, 40, requests=2_000, answered=1_990, took=4_500)
        ledger.job(generate, 85, requests=1_500, answered=1_120, status="expired", took=9_900)
        ledger.job(generate, 130, requests=600, status="failed", answered=0, queued=200, took=20, known=False,
                  error="model_not_found: The provided model is not supported by the Batch API.")  # fmt: skip
        ledger.job(generate, 10_400, requests=380, answered=371, took=2_300)
        ledger.job(judge, 5_200, requests=1_900, answered=1_899, model="gpt-4o", took=5_000)
        ledger.job(judge, 5_260, requests=1_100, answered=640, status="cancelled", model="gpt-4o", took=3_000)
        ledger.job(judge, 9_100, requests=460, answered=455, model="gpt-4o", took=3_600, queued=900)
        ledger.job(judge, 12_000, requests=900, answered=410, status="in_progress", model="gpt-4o", took=4_000)
        ledger.job(judge, 13_900, requests=700, answered=0, status="validating", model="gpt-4o")


def write_large_ledger(directory: Path, jobs: int = 2_000) -> None:
    """Write a day and a half of twenty jobs at a time, most of them completed."""
    endings = random.Random(3)
    with closing(LedgerWriter(directory)) as ledger:
        ledger._database.execute("PRAGMA synchronous = OFF")
        ledger._database.execute("BEGIN")
        scopes = [ledger.scope("corpus", task) for task in ("generate", "judge", "evolve")]
        ledger._database.execute("COMMIT")
        for number in range(jobs):
            ending = endings.choices(["completed", "expired", "cancelled", "failed"], [93, 3, 2, 2])[0]
            planned, took = number * 64.0, endings.uniform(600, 2_400)
            if number > jobs - 16:
                ending = "in_progress"
            ledger.job(
                scopes[number % 3], planned, ending, requests=1_000, looks=6, took=took,
                answered=0 if ending == "failed" else endings.randint(600, 1_000), rows=number % 50 == 0,
            )  # fmt: skip
