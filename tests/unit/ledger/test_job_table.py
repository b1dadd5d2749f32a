"""Jobs: plan, transitions, take-over, timelines, and the shared enqueued-token limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace

import pytest

from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.outcomes import MISSING_RESULT
from distilabel_openai_batch.ledger.entries import JobTimeline
from distilabel_openai_batch.ledger.owners import lock_path
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import NOT_FOUND, OPEN_STATES, TRANSITIONS, JobState
from tests.unit.ledger.samples import CHAT, SCOPE, make_shard, plan_created_job, plan_ended_job


def test_a_planned_job_is_recorded(ledger):
    shard = make_shard("a-0", "b-0")
    job, claimed = ledger.jobs.plan(shard)
    assert (job.state, job.endpoint, job.requests, job.owner) == (JobState.PLANNED, CHAT, 2, ledger.owner)
    assert claimed == ["a-0", "b-0"]
    assert ledger.jobs.get(job.id) == job
    [entry] = LedgerReader(ledger.path.parent).jobs()
    assert (entry.model, entry.bytes, entry.created_at) == ("gpt-4o-mini", shard.size, job.intended_at)


@pytest.mark.parametrize("state", JobState)
def test_a_job_follows_the_transitions_only(ledger, state):
    """Any other transition raises, and leaves the file unchanged."""
    job, _ = ledger.jobs.plan(make_shard("a-0"), state if state is JobState.SYNCHRONOUS else JobState.PLANNED)
    batch = Batch("batch_1", "completed")
    marks = {
        JobState.UPLOADED: lambda job: ledger.jobs.mark_uploaded(job, "file-1"),
        JobState.CREATED: lambda job: ledger.jobs.mark_created(job, batch),
        JobState.ENDED: lambda job: ledger.jobs.mark_ended(job, batch),
        JobState.COLLECTED: lambda job: ledger.jobs.mark_collected(job, MISSING_RESULT),
        JobState.DROPPED: ledger.jobs.mark_dropped,
    }
    routes = {
        JobState.SYNCHRONOUS: [],
        JobState.PLANNED: [],
        JobState.UPLOADED: [JobState.UPLOADED],
        JobState.CREATED: [JobState.CREATED],
        JobState.ENDED: [JobState.CREATED, JobState.ENDED],
        JobState.COLLECTED: [JobState.CREATED, JobState.ENDED, JobState.COLLECTED],
        JobState.DROPPED: [JobState.DROPPED],
    }
    for step in routes[state]:
        job = marks[step](job)

    for following, mark in marks.items():
        if following not in TRANSITIONS[state]:
            with pytest.raises(ValueError, match="cannot become"):
                mark(job)
    assert ledger.jobs.get(job.id).state is state
    assert (state in OPEN_STATES) == (len(ledger.jobs.list_open()) == 1)


def test_a_mark_returns_the_job_as_the_file_has_it(ledger):
    job, _ = ledger.jobs.plan(make_shard("a-0"))
    batch = Batch("batch_1", "failed", errors=(BatchError("Too many tokens.", "token_limit_exceeded"),))
    for mark in (
        lambda job: ledger.jobs.mark_uploaded(job, "file-1"),
        lambda job: ledger.jobs.mark_created(job, batch),
        lambda job: ledger.jobs.mark_ended(job, batch),
        lambda job: ledger.jobs.return_to_uploaded(job),
        lambda job: ledger.jobs.mark_dropped(job, "Given up."),
    ):
        job = mark(job)
        assert ledger.jobs.get(job.id) == job


def test_a_second_batch_has_a_fresh_key_and_the_same_input_file(ledger):
    ended = plan_ended_job(ledger, "a-0")
    uploaded = ledger.jobs.return_to_uploaded(ended)
    assert uploaded.key != ended.key
    assert (uploaded.state, uploaded.batch_id, uploaded.input_file_id) == (JobState.UPLOADED, None, "file-1")


def test_a_dropped_job_keeps_the_batchs_error_unless_another_is_given(ledger):
    reader = LedgerReader(ledger.path.parent)
    job = plan_created_job(ledger, "a-0")
    batch = Batch("batch_1", "failed", errors=(BatchError("Too many tokens.", "token_limit_exceeded"),))
    job = ledger.jobs.mark_ended(job, batch)
    ledger.jobs.mark_dropped(job)
    assert reader.jobs()[0].error == "token_limit_exceeded: Too many tokens."
    ledger.jobs.mark_dropped(job, "Given up.")
    assert reader.jobs()[0].error == "Given up."


def test_a_lost_job_says_so(ledger):
    ledger.jobs.mark_lost(plan_created_job(ledger, "a-0"))
    [entry] = LedgerReader(ledger.path.parent).jobs()
    assert (entry.state, entry.status, entry.error) == (
        JobState.DROPPED,
        NOT_FOUND,
        "The server no longer knows this batch.",
    )


def test_a_collected_job_has_no_pending_request(ledger):
    job = plan_ended_job(ledger, "a-0", "b-0")
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    known = ledger.requests.look_up(["a-0", "b-0"])
    assert [request.outcome for request in known.values()] == [MISSING_RESULT] * 2


def test_a_synchronous_job_ends_with_its_collection(ledger):
    job, _ = ledger.jobs.plan(make_shard("a-0"), JobState.SYNCHRONOUS)
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    [entry] = LedgerReader(ledger.path.parent).jobs()
    assert entry.ended_at >= job.intended_at


def test_a_dead_sessions_job_is_taken_over_once(ledger, open_ledger):
    """A living session keeps its job."""
    job, _ = ledger.jobs.plan(make_shard("a-0"))
    second, third = open_ledger(), open_ledger()
    assert second.jobs.take_over(job) is None

    ledger.close()
    taken = second.jobs.take_over(job)
    assert taken is not None
    assert taken.owner == second.owner
    assert third.jobs.take_over(job) is None
    assert third.jobs.take_over(taken) is None


def test_a_session_takes_over_its_own_job(ledger):
    job, _ = ledger.jobs.plan(make_shard("a-0"))
    assert ledger.jobs.take_over(job) == job


def test_many_jobs_of_one_dead_session_are_taken_over_at_once(ledger, open_ledger, tmp_path):
    jobs = [ledger.jobs.plan(make_shard(f"a-{number}"))[0] for number in range(16)]
    ledger.close()
    # A killed process leaves its lock file behind.
    lock = lock_path(tmp_path / "ledger", ledger.owner)
    other = open_ledger()
    with ThreadPoolExecutor(16) as threads:
        lock.touch()
        assert all(threads.map(other.jobs.take_over, jobs))


def test_a_jobs_timeline_is_recorded(ledger):
    """The timeline has the moments of the server's statuses, and the counts of each poll."""
    job = plan_created_job(ledger, "a-0", "b-0")
    reader = LedgerReader(ledger.path.parent)
    assert reader.timelines() == [JobTimeline()]

    ledger.jobs.record_progress(job, Batch("batch_1", "in_progress", completed=1, in_progress_at=10.0))
    [timeline] = reader.timelines()
    assert timeline.in_progress_at == 10.0
    assert [poll[1:] for poll in timeline.polls] == [(1, 0)]

    batch = Batch("batch_1", "expired", completed=1, in_progress_at=10.0, finalizing_at=20, finished_at=30)
    ledger.jobs.mark_ended(job, batch)
    [timeline] = reader.timelines()
    assert astuple(timeline)[:4] == (10, 20, None, 30)


def test_jobs_share_a_limit_if_a_living_session_submits_to_the_same_model(ledger, open_ledger):
    """The enqueued-token limit holds for a server's model, across scopes."""
    job, _ = ledger.jobs.plan(make_shard("a-0"))
    sibling = open_ledger(replace(SCOPE, task="sibling"))
    planned, _ = sibling.jobs.plan(make_shard("b-0"))
    assert ledger.jobs.find_sharing_limit(job.id) == set()

    created = sibling.jobs.mark_created(sibling.jobs.mark_uploaded(planned, "file-1"), Batch("batch_1", "validating"))
    assert ledger.jobs.find_sharing_limit(job.id) == {created.id}
    assert sibling.jobs.find_sharing_limit(created.id) == set()

    sibling.close()
    assert ledger.jobs.find_sharing_limit(job.id) == set()


def test_jobs_of_other_living_sessions_have_files_from_the_upload_to_the_collection(ledger, open_ledger):
    """A session's own jobs are not counted; the scope does not matter."""
    other = open_ledger()
    job, _ = other.jobs.plan(make_shard("b-0"))
    assert ledger.jobs.find_others_in_progress() == set()

    job = other.jobs.mark_uploaded(job, "file-1")
    assert ledger.jobs.find_others_in_progress() == {job.id}
    assert other.jobs.find_others_in_progress() == set()
    elsewhere = open_ledger(replace(SCOPE, base_url="https://other.example.com/v1/"))
    assert elsewhere.jobs.find_others_in_progress() == set()

    other.close()
    assert ledger.jobs.find_others_in_progress() == set()


def test_known_keys_are_those_of_any_scope(ledger, open_ledger):
    job, _ = ledger.jobs.plan(make_shard("a-0"))
    sibling = open_ledger(replace(SCOPE, task="sibling"))
    assert sibling.jobs.find_known([job.key, "unknown"]) == {job.key}
