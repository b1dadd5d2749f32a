"""Durations of a model's past jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.reader import LedgerReader
from tests.unit.ledger.samples import SCOPE, make_shard, plan_created_job


@pytest.fixture
def end_jobs(ledger):
    """Return a function that ends jobs after numbers of seconds."""

    def end(*seconds: float, finished: float | None = None, status: str = "completed") -> None:
        for number, duration in enumerate(seconds):
            job = plan_created_job(ledger, f"{len(seconds)}{status}{number}-0")
            ledger.jobs.mark_ended(job, Batch(job.batch_id, status, finished_at=finished))
            with ledger.connection.transaction() as database:
                database.execute("UPDATE jobs SET intended_at = ended_at - ? WHERE id = ?", (duration, job.id))

    return end


@pytest.mark.parametrize(
    ("seconds", "past"),
    [
        ([], None),
        ([1, 2], None),
        ([60, 10, 30], PastJobs("gpt-4o-mini", 3, 30)),
        ([60, 10, 30, 50], PastJobs("gpt-4o-mini", 4, 40)),
        ([9_999] + [20] * 20, PastJobs("gpt-4o-mini", 20, 20)),
    ],
)
def test_the_median_of_the_last_twenty_jobs_is_found(ledger, end_jobs, seconds, past):
    """Few jobs say nothing."""
    end_jobs(*seconds)
    reader = LedgerReader(ledger.path.parent)
    for each in (ledger.jobs.find_past("gpt-4o-mini"), reader.past_jobs(SCOPE.base_url, "gpt-4o-mini")):
        assert (each and replace(each, median_seconds=round(each.median_seconds))) == past


def test_only_completed_batches_of_the_server_and_model_count(ledger, end_jobs):
    end_jobs(9, 9, 9, status="cancelled")
    ledger.jobs.plan(make_shard("a-0"))
    reader = LedgerReader(ledger.path.parent)
    assert ledger.jobs.find_past("gpt-4o-mini") is None
    end_jobs(9, 9, 9, 9)
    assert ledger.jobs.find_past("gpt-4o-mini").jobs == 4
    assert ledger.jobs.find_past("gpt-4o") is None
    assert reader.past_jobs("https://elsewhere.example/v1/", "gpt-4o-mini") is None


def test_the_end_is_the_servers_if_a_run_saw_it_late(ledger, end_jobs):
    """A run without `wait` collects a day later."""
    end_jobs(86_400, 86_400, 86_400)
    with ledger.connection.transaction() as database:
        database.execute("UPDATE jobs SET finished_at = intended_at + 60")
    assert ledger.jobs.find_past("gpt-4o-mini").median_seconds == pytest.approx(60)
    for job in LedgerReader(ledger.path.parent).jobs():
        assert job.end_at - job.created_at == pytest.approx(60)


def test_a_missing_ledger_has_no_past_jobs(tmp_path):
    assert LedgerReader(tmp_path).past_jobs(SCOPE.base_url, "gpt-4o-mini") is None
