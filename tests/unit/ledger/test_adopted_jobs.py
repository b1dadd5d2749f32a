"""Adopted jobs: batches of the server that the ledger does not have."""

from __future__ import annotations

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Failure
from distilabel_openai_batch.ledger.states import JobState
from tests.unit.ledger.samples import CHAT, make_answer, make_shard, plan_ended_job, record


def test_a_batch_in_progress_is_adopted_once(ledger):
    """The ledger knows the batch by its key and by its id; the batch's requests are pending."""
    batch = Batch("batch_9", "in_progress", endpoint=CHAT, input_file_id="file-9")
    assert ledger.adopted_jobs.add_in_progress(batch, "key", ["a-0", "b-0"])
    [job] = ledger.jobs.list_open()

    assert not ledger.adopted_jobs.add_in_progress(batch, "key", ["a-0"])
    assert not ledger.adopted_jobs.add_in_progress(batch, "other key", ["a-0"])
    assert ledger.jobs.find_known(["key", "other"]) == {"key"}
    assert ledger.requests.look_up(["a-0"])["a-0"].job == job.id
    assert (job.state, job.batch_id, job.input_file_id) == (JobState.CREATED, "batch_9", "file-9")


def test_a_batch_in_progress_claims_free_requests_only(ledger):
    planned, _ = ledger.jobs.plan(make_shard("a-0"))
    ledger.adopted_jobs.add_in_progress(Batch("batch_9", "in_progress"), "key", ["a-0", "b-0"])
    adopted = ledger.jobs.list_open()[-1]
    assert list(ledger.requests.request_ids(adopted)) == ["b-0"]
    assert adopted.requests == 1
    assert list(ledger.requests.request_ids(planned)) == ["a-0"]


def test_an_answer_of_an_adopted_job_precedes_all_but_an_answer(ledger):
    """The answer replaces a failure; a pending request is answered, and stays in its job."""
    job, _ = ledger.jobs.plan(make_shard("pending-0"))
    first = plan_ended_job(ledger, "answered-0", "failed-0")
    record(ledger, first, answered=make_answer("first"))
    ledger.jobs.mark_collected(first, MISSING_RESULT)
    batch = Batch("batch_9", "expired", endpoint=CHAT)
    names = ["pending-0", "answered-0", "failed-0", "unknown-0"]

    results = [(name, make_answer(name)) for name in names] + [("expired-0", Failure("Too late."))]
    assert ledger.adopted_jobs.add_ended(batch, "key", results)
    assert not ledger.adopted_jobs.add_ended(batch, "key", results)

    known = ledger.requests.look_up([*names, "expired-0"])
    assert known["answered-0"].outcome == make_answer("first")
    for name in ("pending-0", "failed-0", "unknown-0"):
        assert known[name].outcome == make_answer(name)
    assert known["expired-0"].outcome == Failure("Too late.")
    assert list(ledger.requests.request_ids(job)) == ["pending-0"]
    assert ledger.jobs.get(known["unknown-0"].job).state is JobState.COLLECTED


def test_a_failure_of_an_adopted_job_is_recorded_for_an_unknown_request_only(ledger):
    ledger.jobs.plan(make_shard("pending-0"))
    ledger.adopted_jobs.add_ended(Batch("batch_9", "completed"), "key", [("pending-0", Failure("Too late."))])
    assert ledger.requests.look_up(["pending-0"])["pending-0"].outcome is None
