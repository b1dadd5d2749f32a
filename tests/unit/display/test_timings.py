"""Tests of `display.timings`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.display.timings import Timing, describe_past_jobs, estimate_seconds_left, job_timings
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from tests.support.entries import COLLECTED_JOB, OPEN_JOB, SCOPE


@pytest.mark.parametrize(
    ("age", "done", "total", "ended_durations", "seconds_left"),
    [
        (100.0, 10, 50, (), 400.0),
        (100.0, 10, 50, (1.0,), 400.0),
        (100.0, 50, 50, (), 0.0),
        (100.0, 60, 50, (), 0.0),
        (100.0, 0, 50, (150.0, 130.0, 9_000.0), 50.0),
        (100.0, 0, 50, (90.0,), None),
        (100.0, 0, 50, (), None),
    ],
)
def test_the_time_left_follows_the_pace_or_the_median_of_ended_jobs(age, done, total, ended_durations, seconds_left):
    assert estimate_seconds_left(age, done, total, ended_durations) == seconds_left


def test_only_a_job_in_progress_has_an_eta():
    """Durations of another model's jobs, and of dropped jobs, predict nothing."""
    waiting = replace(OPEN_JOB, answered=0, failed=0)
    elsewhere = replace(waiting, scope=ScopeName("other", "", SCOPE.base_url), model="other")
    ended = replace(OPEN_JOB, status="completed")
    dropped = replace(COLLECTED_JOB, state=JobState.DROPPED, ended_at=90_000.0)

    timings = job_timings([COLLECTED_JOB, OPEN_JOB, waiting, elsewhere, ended, dropped], now=1_500.0)

    assert timings == [
        Timing(500.0, took=600.0),
        Timing(500.0, eta=1_500.0),
        Timing(500.0, eta=100.0),
        Timing(500.0),
        Timing(500.0),
        Timing(500.0, took=89_000.0),
    ]


@pytest.mark.parametrize(
    ("finished_at", "took"),
    [(1_200.0, 200.0), (None, 600.0), (999.5, 600.0), (2_000.0, 600.0)],
    ids=["server's moment", "no moment", "before the plan", "after the end"],
)
def test_job_takes_the_time_until_its_end_at_the_server(finished_at, took):
    """A run that collects a job days later has not made the job longer; a clock that is wrong counts for nothing."""
    late = replace(COLLECTED_JOB, finished_at=finished_at)
    [timing] = job_timings([late], now=10_000.0)
    assert timing.took == took


def test_polled_job_takes_the_time_until_its_end():
    ended = replace(OPEN_JOB, status="completed", finished_at=OPEN_JOB.created_at + 30.0)
    [timing, running] = job_timings([ended, replace(ended, status="in_progress")], now=OPEN_JOB.created_at + 90.0)
    assert (timing.took, running.took) == (30.0, None)


@pytest.mark.parametrize(
    ("timing", "label"),
    [
        (Timing(500.0, eta=60.0), "ETA 1 min 00 s"),
        (Timing(500.0, took=60.0), "1 min 00 s"),
        (Timing(500.0), "–"),
    ],
)
def test_the_label_is_the_time_left_or_the_time_taken(timing, label):
    assert timing.label == label


def test_jobs_of_the_model_predict_the_end_in_a_new_scope():
    """Jobs of the scope itself count first."""
    new = replace(OPEN_JOB, answered=0, failed=0, scope=ScopeName("new", "", SCOPE.base_url))
    longer = replace(COLLECTED_JOB, ended_at=1_900.0, scope=new.scope)
    assert job_timings([COLLECTED_JOB, new], now=1_100.0)[1].eta == 500.0
    assert job_timings([COLLECTED_JOB, longer, new], now=1_100.0)[2].eta == 800.0


def test_past_jobs_are_described_in_a_sentence():
    sentence = describe_past_jobs(PastJobs("gpt-6-luna", 20, 420.0))
    assert sentence == "Half of the last 20 jobs with gpt-6-luna took at most 7 min 00 s."
