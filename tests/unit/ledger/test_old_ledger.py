"""A ledger that commit 149ce07 wrote, before `Ledger` was split, is read and continued."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import orjson
import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.ledger.entries import INTERRUPTED
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from tests.support.ledgers import OLD_OPEN_JOB, write_old_ledger

BASE_URL = "http://sandbox.test/v1/"
QUESTIONS = ScopeName("questions.py", "", BASE_URL)
SUBMISSION = ScopeName("weekly", "", BASE_URL)
DIED = ScopeName("died.py", "", BASE_URL)

FAILED = "1aab60411cf15ea1230b4d1f7b2aa2ea-0"
ANSWERED = [
    "75cd007b23a6ced21fb06fc53b73b263-0",
    "7dcbf1410c2473f9d59f84bb2278818b-0",
    "7192215e0e403433907f48300f602c9e-0",
    "afcc40a9dfec910f441250bf32bbe2d3-0",
    "a867f9bb4612d286e77b6876d43be3a8-0",
    "d60cb7fb102d052ae9ec49537bd59f6d-0",
    "96584ba128c8285e4316108c95ab9ea9-0",
]
PENDING = [orjson.loads(line)["custom_id"] for line in OLD_OPEN_JOB.read_bytes().splitlines()]


@pytest.fixture
def directory(tmp_path):
    write_old_ledger(tmp_path / "ledger")
    return tmp_path / "ledger"


@pytest.fixture
def open_ledger(directory):
    """Opens the old ledger for a scope; closes each opened ledger at the end."""
    opened = []

    def open_for(scope: ScopeName) -> Ledger:
        opened.append(Ledger(directory, scope))
        return opened[-1]

    yield open_for
    for ledger in opened:
        ledger.close()


def test_the_reader_returns_scopes_and_jobs(directory):
    reader = LedgerReader(directory)

    assert [(scope.name, scope.answered, scope.failed, scope.pending) for scope in reader.scopes()] == [
        (QUESTIONS, 7, 1, 4),
        (SUBMISSION, 1, 0, 0),
        (DIED, 0, 0, 2),
    ]
    jobs = reader.jobs()
    assert [(job.state, job.status, job.answered, job.failed, job.pending) for job in jobs] == [
        (JobState.COLLECTED, "completed", 5, 1, 0),
        (JobState.SYNCHRONOUS, INTERRUPTED, 2, 0, 0),
        (JobState.CREATED, "validating", 0, 0, 4),
        (JobState.COLLECTED, "completed", 1, 0, 0),
        (JobState.PLANNED, INTERRUPTED, 0, 0, 1),
        (JobState.DROPPED, "dropped", 0, 0, 1),
    ]
    assert jobs[0].answered_by == "gpt-4o-mini-2024-07-18"
    assert (jobs[0].tokens_in, jobs[0].tokens_out, jobs[0].tokens_cached) == (55, 329, 0)
    assert jobs[5].error == "The input file is too large."


def test_the_reader_returns_timelines(directory):
    first, *rest = LedgerReader(directory).timelines()
    assert [poll[1:] for poll in first.polls] == [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1)]
    assert first.in_progress_at <= first.finalizing_at <= first.finished_at
    assert [timeline.polls for timeline in rest] == [()] * 5


def test_the_reader_returns_answers_and_failures(directory):
    reader = LedgerReader(directory)
    scope = reader.scopes()[0]

    answers = list(reader.answers(scope))
    assert [entry.custom_id for entry in answers] == ANSWERED
    assert [entry.batch_id is None for entry in answers] == [False] * 5 + [True] * 2
    assert "Say number 0" in answers[0].answer.body["choices"][0]["message"]["content"]
    [failure] = reader.failures([scope])
    assert (failure.custom_id, failure.status_code, failure.code) == (FAILED, 400, "content_filter")
    assert reader.find_submitted(QUESTIONS, [*ANSWERED, FAILED, *PENDING]) == {*ANSWERED, *PENDING}


def test_a_session_finds_the_outcomes(open_ledger):
    requests = open_ledger(QUESTIONS).requests

    known = requests.look_up([*ANSWERED, FAILED, *PENDING, "unknown-0"])

    assert known.keys() == {*ANSWERED, FAILED, *PENDING}
    assert all(isinstance(known[custom_id].outcome, Answer) for custom_id in ANSWERED)
    assert known[FAILED].outcome == Failure("The response was filtered.", 400, "content_filter")
    assert {known[custom_id].outcome for custom_id in PENDING} == {None}


def test_delivered_answers_are_not_delivered_again_without_reuse(open_ledger):
    requests = open_ledger(QUESTIONS).requests
    assert [requests.next_occurrence(custom_id[:32]) for custom_id in ANSWERED] == [1] * 7
    assert requests.next_occurrence(FAILED[:32]) == 0


def test_a_session_takes_over_the_open_job(open_ledger):
    ledger = open_ledger(QUESTIONS)
    job = next(job for job in ledger.jobs.list_open() if job.state is JobState.CREATED)

    taken = ledger.jobs.take_over(job)

    assert taken.owner == ledger.owner
    assert list(ledger.requests.request_ids(taken)) == PENDING


def test_a_session_resubmits_the_requests_of_a_dropped_job(open_ledger):
    requests = open_ledger(DIED).requests
    dropped = requests.find_dropped([f"{letter * 32}-0" for letter in "bc"])
    assert list(dropped) == [f"{'c' * 32}-0"]
    assert "The input file is too large." in dropped[f"{'c' * 32}-0"].message


def test_a_submission_keeps_its_rows(open_ledger):
    submissions = open_ledger(SUBMISSION).submissions
    assert submissions.load_rows() == (
        [b'{"instruction":"Say number 0."}', b'{"instruction":"Say number 1."}'],
        "file-rows",
    )
    assert submissions.list_runs() == [("weekly", BASE_URL)]
    assert submissions.find_run("batch_submitted") == "weekly"


def test_opening_changes_no_row(directory, open_ledger):
    with closing(sqlite3.connect(directory / FILE_NAME)) as database:
        columns = _list_columns(database)
        before = _list_rows(database, columns)
        open_ledger(QUESTIONS).close()
        assert _list_rows(database, columns) == before


def _list_columns(database: sqlite3.Connection) -> dict[str, str]:
    """Return the names of the columns of each table; opening may add tables and columns."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {table: ", ".join(row[1] for row in database.execute(f"PRAGMA table_info({table})")) for (table,) in tables}


def _list_rows(database: sqlite3.Connection, columns: dict[str, str]) -> list[list[tuple]]:
    return [database.execute(f"SELECT {names} FROM {table}").fetchall() for table, names in columns.items()]
