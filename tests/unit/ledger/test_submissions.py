"""Submissions: rows, runs and jobs that `LoadBatchResults` finds."""

from __future__ import annotations

from distilabel_openai_batch.ledger.states import ScopeName, SubmittedJob
from tests.unit.ledger.samples import SCOPE, make_shard, plan_created_job

WEEKLY = ScopeName("weekly", "", SCOPE.base_url)


def test_rows_are_replaced_as_a_whole(ledger, open_ledger):
    submissions = open_ledger(WEEKLY).submissions
    assert submissions.load_rows() == ([], None)
    submissions.keep_rows([b"{}", b"[]", b"1"], None)
    submissions.keep_rows([b"[1]", b"[2]"], "file-rows")
    assert submissions.load_rows() == ([b"[1]", b"[2]"], "file-rows")
    assert ledger.submissions.load_rows() == ([], None)


def test_runs_with_rows_are_listed(ledger, open_ledger):
    """A script, and a pipeline's Task, keep no rows."""
    ledger.jobs.plan(make_shard("a-0"))
    open_ledger(ScopeName("script.py", "", SCOPE.base_url)).jobs.plan(make_shard("a-0"))
    open_ledger(WEEKLY).submissions.keep_rows([b"{}"], None)
    assert ledger.submissions.list_runs() == [("weekly", SCOPE.base_url)]


def test_jobs_with_a_batch_are_listed(open_ledger):
    ledger = open_ledger(WEEKLY)
    ledger.jobs.plan(make_shard("a-0"))
    job = plan_created_job(ledger, "b-0", "c-0")
    size = make_shard("b-0", "c-0").size
    assert ledger.submissions.list_jobs() == [SubmittedJob(job.batch_id, 2, size, "validating")]


def test_a_batch_leads_to_its_run(ledger, open_ledger):
    job = plan_created_job(open_ledger(WEEKLY), "a-0")
    assert ledger.submissions.find_run(job.batch_id) == "weekly"
    assert ledger.submissions.find_run("unknown") is None
