"""Failures of rows that no job shows."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Failure
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from tests.unit.ledger.samples import make_answer, plan_ended_job, record

REFUSAL = Failure("The model refused: No.", code="refusal")


@pytest.fixture
def reader(ledger):
    return LedgerReader(ledger.path.parent)


def list_failures(reader) -> list[tuple]:
    return [
        (entry.custom_id, entry.batch_id, entry.status_code, entry.code, entry.message, entry.attempts)
        for entry in reader.failures(reader.scopes())
    ]


def collect(ledger, *custom_ids: str) -> None:
    """Record an answer to each request, and mark the job as collected."""
    job = plan_ended_job(ledger, *custom_ids)
    record(ledger, job, **{custom_id.partition("-")[0]: make_answer(custom_id) for custom_id in custom_ids})
    ledger.jobs.mark_collected(job, MISSING_RESULT)


def test_rejected_answer_is_a_failure_of_its_job(ledger, reader):
    """The answer stays in the ledger, and a later run reuses the answer."""
    collect(ledger, "a-0", "b-0")

    ledger.row_failures.record_rejections({"a-0": REFUSAL})

    [job] = reader.jobs()
    assert (job.requests, job.answered, job.failed) == (2, 1, 1)
    [scope] = reader.scopes()
    assert (scope.answered, scope.failed, scope.tokens_in) == (1, 1, 6)
    assert list_failures(reader) == [("a-0", job.batch_id, None, "refusal", "The model refused: No.", 1)]
    assert ledger.requests.look_up(["a-0"])["a-0"].outcome == make_answer("a-0")


def test_second_rejection_replaces_the_first(ledger, reader):
    collect(ledger, "a-0")
    ledger.row_failures.record_rejections({"a-0": REFUSAL})
    ledger.row_failures.record_rejections({"a-0": Failure("It is empty.", code="empty_answer")})
    assert [failure[3:5] for failure in list_failures(reader)] == [("empty_answer", "It is empty.")]


def test_rejection_of_a_request_without_an_answer_is_not_recorded(ledger, reader):
    plan_ended_job(ledger, "a-0")
    ledger.row_failures.record_rejections({"a-0": REFUSAL, "unknown-0": REFUSAL})
    assert ledger.row_failures.list_rejected() == set()


def test_rejections_belong_to_a_scope(ledger, open_ledger):
    collect(ledger, "a-0")
    ledger.row_failures.record_rejections({"a-0": REFUSAL})
    with closing(open_ledger(ScopeName("other", "task", "https://api.example.com/v1/"))) as other:
        assert other.row_failures.list_rejected() == set()
    assert ledger.row_failures.list_rejected() == {"a-0"}


def test_forgotten_answer_is_no_failure(ledger, reader):
    collect(ledger, "a-0")
    ledger.row_failures.record_rejections({"a-0": REFUSAL})
    assert ledger.requests.forget() == 1
    assert list_failures(reader) == []
    assert ledger.row_failures.list_rejected() == set()


def test_replaced_requests_count_in_no_state(ledger, reader):
    """Both attempts are billed, and the row counts once."""
    first = plan_ended_job(ledger, "a-0", "b-0", "c-0", "d-0")
    spent = Failure("The limit was spent.", 200, "length", (3, 5))
    record(ledger, first, a=make_answer("a"), b=spent, c=make_answer("c"), d=make_answer("d"))
    ledger.jobs.mark_collected(first, MISSING_RESULT)
    collect(ledger, "e-0", "f-0", "g-0")
    ledger.row_failures.record_rejections({"c-0": REFUSAL})
    ledger.row_failures.record_cut(["a-0", "d-0"])

    ledger.row_failures.record_replaced(dict.fromkeys(["a-0", "b-0", "c-0"], True))

    job, retries = reader.jobs()
    assert (job.requests, job.answered, job.failed, job.cut, job.replaced) == (4, 2, 0, 1, 3)
    assert (job.done, job.is_billed, job.usage.totals()) == (4, True, (12, 20))
    assert (retries.requests, retries.answered, retries.replaced) == (3, 3, 0)
    [scope] = reader.scopes()
    assert (scope.answered, scope.failed, scope.pending, scope.replaced) == (4, 0, 0, 3)
    assert {entry.custom_id for entry in reader.failures([scope]) if entry.is_replaced} == {"b-0", "c-0"}
    assert {entry.custom_id for entry in reader.answers(scope) if entry.is_replaced} == {"a-0", "c-0"}
    assert ledger.row_failures.list_replaced() == {"a-0", "b-0", "c-0"}

    ledger.row_failures.record_replaced({"a-0": False})

    assert ledger.row_failures.list_replaced() == {"b-0", "c-0"}
    assert ledger.requests.forget() == 7
    assert ledger.row_failures.list_replaced() == set()


def test_job_of_replaced_failures_alone_is_billed(ledger, reader):
    job = plan_ended_job(ledger, "a-0")
    record(ledger, job, a=Failure("The limit was spent.", 200, "length", (3, 5)))
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    ledger.row_failures.record_replaced({"a-0": True})
    [entry] = reader.jobs()
    assert (entry.answered, entry.failed, entry.is_billed) == (0, 0, True)


def test_unsent_rows_are_a_job_without_a_batch(ledger, reader):
    ledger.row_failures.record_unsent({"a-0": Failure("No chat."), "b-0": Failure("A lone \ud800.", code="bad")})

    [job] = reader.jobs()
    assert (job.status, job.batch_id, job.requests, job.answered, job.failed) == ("not sent", None, 2, 0, 2)
    assert not any([job.is_open, job.is_interrupted, job.is_synchronous, job.is_billed])
    assert list_failures(reader) == [
        ("a-0", None, None, None, "No chat.", 0),
        ("b-0", None, None, "bad", "A lone \\ud800.", 0),
    ]


def test_unsent_row_is_recorded_once(ledger, reader):
    """Each run of a script finds the same rows."""
    ledger.row_failures.record_unsent({"a-0": Failure("No chat.")})
    ledger.row_failures.record_unsent({"a-0": Failure("No chat.")})
    assert len(reader.jobs()) == 1
    ledger.row_failures.record_unsent({"a-0": Failure("No chat."), "b-0": Failure("No chat.")})
    assert [job.requests for job in reader.jobs()] == [1, 1]


def test_batch_that_counts_an_unusable_answer_as_completed_has_a_failed_request(ledger, reader):
    job = plan_ended_job(ledger, "a-0", "b-0")
    with ledger.connection.transaction() as database:
        database.execute("UPDATE jobs SET completed = 2, total = 2")
    spent = Failure("Spent.", 200, "length", tokens=(3, 8))
    record(ledger, job, a=make_answer("a-0"), b=spent)
    [ended] = reader.jobs()
    assert (ended.answered, ended.failed) == (1, 1)

    ledger.jobs.mark_collected(job, MISSING_RESULT)

    [entry] = reader.jobs()
    assert (entry.answered, entry.failed, entry.tokens_in, entry.tokens_out) == (1, 1, 6, 13)
    assert ledger.requests.look_up(["b-0"])["b-0"].outcome == spent


def test_reader_reads_a_file_without_the_table(ledger, reader):
    """An older release wrote the file, and no run of this release has opened the file."""
    collect(ledger, "a-0")
    with closing(sqlite3.connect(ledger.path)) as database:
        database.execute("DROP TABLE rejections")
    assert (reader.jobs()[0].answered, reader.scopes()[0].answered, list_failures(reader)) == (1, 1, [])


def test_cut_answers_are_counted_once(ledger, reader):
    """A cut answer stays an answer, and `forget` deletes the mark."""
    collect(ledger, "a-0", "b-0")

    ledger.row_failures.record_cut(["a-0", "unknown-0"])
    ledger.row_failures.record_cut(["a-0"])

    [job] = reader.jobs()
    assert (job.answered, job.failed, job.cut) == (2, 0, 1)
    ledger.requests.forget()
    assert [job.cut for job in reader.jobs()] == [0]
