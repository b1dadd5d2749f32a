"""Counts of collected jobs: they equal the counts of the requests after each change."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure
from distilabel_openai_batch.api.usage import LONG_PROMPT
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.reader import LedgerReader
from tests.unit.ledger.samples import make_answer, make_shard, plan_ended_job, record

FAILURE = Failure("Bad.", 400, "bad")
LONG_ANSWER = Answer(make_answer("long").line, (LONG_PROMPT + 1, 2), (3, 4, 5))


class Counts:
    """The jobs and scopes that a reader sees, with and without the recorded counts."""

    def __init__(self, directory) -> None:
        self._path = directory / FILE_NAME
        self._reader = LedgerReader(directory)

    def recorded(self) -> int:
        return self._run("SELECT count(*) FROM job_counts")[0][0]

    def check(self) -> None:
        """Compare the counts with those of the requests."""
        seen = self._reader.jobs(), self._reader.scopes()
        kept = self._run("SELECT * FROM job_counts")
        self._run("DELETE FROM job_counts")
        assert (self._reader.jobs(), self._reader.scopes()) == seen
        for row in kept:
            self._run(f"INSERT INTO job_counts VALUES ({', '.join('?' * len(row))})", row)

    def _run(self, sql, parameters=()):
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            return database.execute(sql, parameters).fetchall()


@pytest.fixture
def counts(ledger, tmp_path):
    return Counts(tmp_path / "ledger")


@pytest.fixture
def collected(ledger):
    """A collected job with two answers and two failures."""
    job = plan_ended_job(ledger, "a-0", "b-0", "c-0", "d-0")
    record(ledger, job, a=LONG_ANSWER, b=make_answer("b"), c=FAILURE)
    return ledger.jobs.mark_collected(job, MISSING_RESULT)


def test_collected_job_has_counts(counts, collected):
    counts.check()

    assert counts.recorded() == 1


def test_request_that_moves_to_another_job_changes_the_counts(ledger, counts, collected):
    ledger.jobs.plan(make_shard("c-0", "e-0"))

    counts.check()
    assert counts.recorded() == 0


def test_claim_of_new_requests_keeps_the_counts(ledger, counts, collected):
    ledger.jobs.plan(make_shard("a-0", "e-0"))

    counts.check()
    assert counts.recorded() == 1


def test_adopted_answer_changes_the_counts(ledger, counts, collected):
    batch = Batch("batch_9", "completed", completed=2, total=2)
    ledger.adopted_jobs.add_ended(batch, "key", [("c-0", make_answer("c")), ("e-0", FAILURE)])

    counts.check()
    assert counts.recorded() == 1


def test_forgotten_scope_has_no_counts(ledger, counts, collected):
    ledger.requests.forget()

    counts.check()
    assert counts.recorded() == 0
