"""Requests: one job at a time, final answers, delivered marks, forgotten requests."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Failure
from distilabel_openai_batch.ledger import request_table
from distilabel_openai_batch.ledger.states import ScopeName
from tests.unit.ledger.samples import CHAT, SCOPE, make_answer, make_shard, plan_ended_job, record


def test_tokens_and_attempts_are_recorded(ledger):
    first = plan_ended_job(ledger, "a-0")
    ledger.jobs.mark_collected(first, MISSING_RESULT)
    second = plan_ended_job(ledger, "a-0")
    record(ledger, second, a=make_answer("a-0"))
    ledger.close()

    with sqlite3.connect(ledger.path) as database:
        row = database.execute("SELECT state, attempts, tokens_in, tokens_out, status_code FROM requests").fetchone()
    assert row == ("answered", 2, 3, 5, 200)


def test_a_request_is_pending_in_one_job_only(ledger):
    """The second plan claims the rest; a request of a dropped job is free."""
    first, claimed = ledger.jobs.plan(make_shard("a-0", "b-0"))
    assert claimed == ["a-0", "b-0"]
    second, claimed = ledger.jobs.plan(make_shard("b-0", "c-0"))
    assert claimed == ["c-0"]
    assert list(ledger.requests.request_ids(second)) == ["c-0"]

    ledger.jobs.mark_dropped(first)
    assert ledger.requests.look_up(["a-0", "b-0"]) == {}
    _, claimed = ledger.jobs.plan(make_shard("a-0", "b-0", "c-0"))
    assert claimed == ["a-0", "b-0"]


def test_requests_are_claimed_in_chunks(ledger, monkeypatch):
    monkeypatch.setattr(request_table, "_CHUNK", 2)
    custom_ids = [f"{n}-0" for n in range(5)]
    ledger.jobs.plan(make_shard("3-0"))
    job, claimed = ledger.jobs.plan(make_shard(*custom_ids))
    assert claimed == ["0-0", "1-0", "2-0", "4-0"]
    assert list(ledger.requests.request_ids(job)) == claimed
    assert ledger.requests.look_up(custom_ids).keys() == set(custom_ids)


def test_an_answer_is_final(ledger):
    """A later failure, another answer, the collection and a further plan do not change the answer."""
    job = plan_ended_job(ledger, "a-0")
    record(ledger, job, a=make_answer("a-0"))
    record(ledger, job, a=Failure("Late.", 500))
    record(ledger, job, a=make_answer("other"))
    ledger.jobs.mark_collected(job, MISSING_RESULT)

    assert ledger.jobs.plan(make_shard("a-0"))[1] == []
    assert ledger.requests.look_up(["a-0"])["a-0"].outcome == make_answer("a-0")


def test_an_answer_follows_a_failure(ledger):
    job = plan_ended_job(ledger, "a-0")
    record(ledger, job, a=Failure("Bad.", 400))
    record(ledger, job, a=make_answer("a-0"))
    assert ledger.requests.look_up(["a-0"])["a-0"].outcome == make_answer("a-0")


def test_an_answer_without_its_line_is_a_failure(ledger):
    job = plan_ended_job(ledger, "a-0")
    record(ledger, job, a=make_answer("a-0"))
    with ledger.connection.transaction() as database:
        database.execute("DELETE FROM answers")
    assert ledger.requests.look_up(["a-0"])["a-0"].outcome.code == "missing_result"


def test_scopes_do_not_share_requests(ledger, open_ledger):
    """Two Tasks, or two servers, submit the same request twice."""
    ledger.jobs.plan(make_shard("a-0"))
    for scope in (ScopeName("pipeline", "other", SCOPE.base_url), ScopeName("pipeline", "task", "http://other/")):
        other = open_ledger(scope)
        assert other.requests.look_up(["a-0"]) == {}
        assert other.jobs.plan(make_shard("a-0"))[1] == ["a-0"]
        assert len(other.jobs.list_open()) == 1


def test_dropped_requests_have_the_reason_of_the_drop(ledger):
    first, _ = ledger.jobs.plan(make_shard("a-0"))
    second, _ = ledger.jobs.plan(make_shard("b-0"))
    ledger.jobs.plan(make_shard("c-0"))
    ledger.jobs.mark_dropped(first)
    ledger.jobs.mark_dropped(second, "The file is too large.")

    dropped = ledger.requests.find_dropped(["a-0", "b-0", "c-0", "d-0"])

    assert dropped.keys() == {"a-0", "b-0"}
    assert "it was never created" in dropped["a-0"].message
    assert "The file is too large." in dropped["b-0"].message


def test_a_request_has_the_ids_of_all_its_batches(ledger):
    """A further job, and an adopted job, add their batch; a job without a batch adds none."""
    first = plan_ended_job(ledger, "a-0", "b-0")
    ledger.jobs.mark_collected(first, MISSING_RESULT)
    second = plan_ended_job(ledger, "a-0")
    ledger.jobs.plan(make_shard("c-0"))
    ledger.adopted_jobs.add_ended(Batch("batch_9", "completed", endpoint=CHAT), "key", [("b-0", make_answer("b-0"))])

    assert ledger.requests.batch_ids(["a-0", "b-0", "c-0", "d-0"]) == {
        "a-0": {f"batch_{first.id}", f"batch_{second.id}"},
        "b-0": {f"batch_{first.id}", "batch_9"},
    }


@pytest.mark.parametrize("answered", [[0], [0, 1], [1], [2, 9, 10]])
def test_the_next_occurrence_follows_the_highest_delivered_one(ledger, answered):
    """Failed occurrences do not count, and occurrences compare by number, not by letter."""
    digest = "d" * 32
    job = plan_ended_job(ledger, *[f"{digest}-{n}" for n in range(12)], f"{'e' * 32}-0")
    outcomes = {f"{digest}-{n}": make_answer("x") for n in answered}
    ledger.requests.record(ledger.requests.request_ids(job), outcomes)
    assert ledger.requests.next_occurrence(digest) == 0
    ledger.requests.mark_delivered([f"{digest}-{n}" for n in range(12)], 1.0)
    assert ledger.requests.next_occurrence(digest) == answered[-1] + 1
    assert ledger.requests.next_occurrence("e" * 32) == 0


def test_only_the_given_answers_are_marked_as_delivered(ledger, monkeypatch):
    """Another run may have recorded the other answers, and not have delivered them."""
    monkeypatch.setattr(request_table, "_CHUNK", 1)
    digests = [letter * 32 for letter in "abc"]
    job = plan_ended_job(ledger, *[f"{digest}-0" for digest in digests])
    ledger.requests.record(ledger.requests.request_ids(job), {f"{digest}-0": make_answer("x") for digest in digests})
    ledger.requests.mark_delivered([f"{digest}-0" for digest in digests[:2]], 1.0)
    assert [ledger.requests.next_occurrence(digest) for digest in digests] == [1, 1, 0]


def test_forgotten_requests_are_submitted_again(ledger, open_ledger):
    """Other scopes keep their requests, and the jobs stay."""
    job = plan_ended_job(ledger, "a-0", "b-0")
    record(ledger, job, a=make_answer("a-0"))
    job = ledger.jobs.mark_collected(job, MISSING_RESULT)
    sibling = open_ledger(replace(SCOPE, task="sibling"))
    sibling.jobs.plan(make_shard("a-0"))

    assert ledger.requests.forget() == 2

    assert ledger.requests.look_up(["a-0", "b-0"]) == {}
    assert sibling.requests.look_up(["a-0"]).keys() == {"a-0"}
    assert ledger.jobs.get(job.id) == job
    assert ledger.jobs.plan(make_shard("a-0", "b-0"))[1] == ["a-0", "b-0"]


def test_requests_of_a_job_in_progress_are_not_forgotten(ledger):
    """The session that runs the job records outcomes by row id, also of requests that moved to a further job."""
    in_progress = plan_ended_job(ledger, "a-0", "b-0")
    record(ledger, in_progress, a=Failure("Bad.", 400))
    further = plan_ended_job(ledger, "a-0")
    ledger.jobs.mark_collected(further, MISSING_RESULT)

    assert ledger.requests.forget() == 0
    assert ledger.requests.look_up(["a-0", "b-0"]).keys() == {"a-0", "b-0"}


def test_requests_of_a_dead_sessions_complete_job_are_forgotten(ledger, open_ledger):
    """The session died between the last record and `mark_collected`: the job is open, but no request is pending."""
    job = plan_ended_job(ledger, "a-0")
    record(ledger, job, a=make_answer("a-0"))
    assert ledger.requests.forget() == 0
    ledger.close()
    assert open_ledger().requests.forget() == 1
