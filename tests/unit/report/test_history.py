"""Tests of `report.history`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger.entries import JobEntry, JobTimeline
from distilabel_openai_batch.ledger.states import JobState
from distilabel_openai_batch.report.history import (
    EndState,
    JobHistory,
    Phase,
    PhaseSpan,
    bin_jobs,
    build_histories,
    count_answers_over_time,
    time_range,
)
from tests.support.entries import COLLECTED_JOB

JOB = replace(COLLECTED_JOB, requests=10, answered=8, failed=2, created_at=100.0, ended_at=200.0)
NOW = 1_000.0


def build_history(job: JobEntry = JOB, timeline: JobTimeline | None = None) -> JobHistory:
    [history] = build_histories([job], [timeline or JobTimeline()], NOW)
    return history


@pytest.mark.parametrize(
    ("job", "timeline", "spans"),
    [
        pytest.param(
            JOB,
            JobTimeline(110.0, 180.0, None, 195.0),
            [(Phase.QUEUED, 100, 110), (Phase.IN_PROGRESS, 110, 180), (Phase.FINALIZING, 180, 195)],
            id="all moments are known",
        ),
        pytest.param(
            replace(JOB, status="cancelled"),
            JobTimeline(110.0, None, 150.0, 160.0),
            [(Phase.QUEUED, 100, 110), (Phase.IN_PROGRESS, 110, 150), (Phase.CANCELLING, 150, 160)],
            id="cancelled",
        ),
        pytest.param(JOB, None, [(Phase.UNKNOWN, 100, 200)], id="the server reported no moments"),
        pytest.param(replace(JOB, status="failed"), None, [(Phase.QUEUED, 100, 200)], id="rejected"),
        pytest.param(
            replace(JOB, state=JobState.CREATED, status="in_progress", ended_at=None),
            JobTimeline(110.0),
            [(Phase.QUEUED, 100, 110), (Phase.IN_PROGRESS, 110, NOW)],
            id="in progress",
        ),
        pytest.param(
            replace(JOB, state=JobState.PLANNED, status="planned", batch_id=None, answered=0, ended_at=None),
            None,
            [(Phase.QUEUED, 100, NOW)],
            id="not created yet",
        ),
        pytest.param(replace(JOB, batch_id=None), None, [(Phase.SYNCHRONOUS, 100, 200)], id="synchronous"),
        pytest.param(
            JOB,
            JobTimeline(50.0, 60.0, None, 90.0),
            [(Phase.FINALIZING, 100, 100)],
            id="the server's clock is behind",
        ),
    ],
)
def test_phases_follow_one_another_from_the_plan_to_the_end(job, timeline, spans):
    """An open job's last phase ends now."""
    assert list(build_history(job, timeline).spans) == [PhaseSpan(*span) for span in spans]


@pytest.mark.parametrize(
    ("state", "status", "end_state"),
    [
        (JobState.COLLECTED, "completed", EndState.COMPLETED),
        (JobState.COLLECTED, "expired", EndState.EXPIRED),
        (JobState.COLLECTED, "canceled", EndState.CANCELLED),
        (JobState.DROPPED, "failed", EndState.FAILED),
        (JobState.DROPPED, "dropped", EndState.DROPPED),
        (JobState.CREATED, "in_progress", EndState.OPEN),
        (JobState.CREATED, "a status of tomorrow", EndState.OPEN),
        (JobState.COLLECTED, "a status of tomorrow", EndState.COMPLETED),
        (JobState.CREATED, "not found", EndState.FAILED),
    ],
)
def test_the_end_follows_from_the_state_and_the_status(state, status, end_state):
    assert build_history(replace(JOB, state=state, status=status)).end_state is end_state


@pytest.mark.parametrize(
    ("state", "end_state"), [(JobState.SYNCHRONOUS, EndState.OPEN), (JobState.COLLECTED, EndState.COMPLETED)]
)
def test_a_synchronous_job_is_open_until_it_is_collected(state, end_state):
    assert build_history(replace(JOB, batch_id=None, state=state, status=state.value)).end_state is end_state


def test_a_job_dropped_before_its_batch_ends_with_its_plan():
    history = build_history(
        replace(JOB, state=JobState.DROPPED, status="dropped", batch_id=None, answered=0, ended_at=None)
    )
    assert (history.start, history.end) == (100.0, 100.0)


def test_answers_count_from_the_poll_that_reported_them():
    """Answers after the last poll count from the end."""
    timeline = JobTimeline(110.0, None, None, 200.0, polls=((120.0, 3, 0), (140.0, 3, 1), (150.0, 6, 1)))
    history = build_history(JOB, timeline)
    assert history.gains == ((120.0, 3, 0), (140.0, 0, 1), (150.0, 3, 0), (200.0, 2, 1))
    assert history.answered == 8
    counts = [(count.at, count.answered, count.failed) for count in count_answers_over_time([history], 5)]
    assert counts == [(100.0, 0, 0), (125.0, 3, 0), (150.0, 6, 1), (175.0, 6, 1), (200.0, 8, 2)]


def test_a_poll_with_smaller_counts_takes_nothing_back():
    timeline = JobTimeline(110.0, None, None, 200.0, polls=((120.0, 5, 2), (140.0, 3, 0), (900.0, 6, 2)))
    assert build_history(JOB, timeline).gains == ((120.0, 5, 2), (200.0, 1, 0), (200.0, 2, 0))


@pytest.mark.parametrize("state", [JobState.ENDED, JobState.COLLECTED])
def test_the_counts_of_an_ended_job_are_those_of_the_ledger(state):
    """The server counted answers without text as completed, and the ledger counts failed requests."""
    timeline = JobTimeline(110.0, None, None, 200.0, polls=((120.0, 3, 0), (140.0, 8, 0)))
    history = build_history(replace(JOB, state=state, answered=0, failed=10), timeline)
    assert history.answered == 0
    assert history.gains == ((200.0, 0, 10),)


def test_bins_contain_each_second_of_a_job_and_each_end_once():
    histories = build_histories(
        [replace(JOB, created_at=100.0 + 7 * number, ended_at=150.0 + 9 * number) for number in range(50)],
        [JobTimeline(110.0 + 7 * number, None, None, 150.0 + 9 * number) for number in range(50)],
        NOW,
    )
    bins = bin_jobs(histories, 13)
    seconds = sum(sum(time_bin.phases.values()) * (time_bin.end - time_bin.start) for time_bin in bins)
    assert len(bins) == 13
    assert seconds == pytest.approx(sum(history.end - history.start for history in histories))
    assert sum(sum(time_bin.ends.values()) for time_bin in bins) == 50


def test_the_range_of_a_short_job_has_ten_seconds():
    assert time_range([build_history(replace(JOB, ended_at=101.0))]) == (100.0, 110.0)
    assert time_range([build_history(), build_history(replace(JOB, created_at=50.0))]) == (50.0, 200.0)


def test_without_jobs_there_are_no_counts_and_no_bins():
    assert count_answers_over_time([], 5) == []
    assert bin_jobs([], 5) == []


def test_jobs_without_a_timeline_have_no_known_moments():
    """Jobs and timelines are read one after the other, and a run may add jobs in between."""
    timelines = [JobTimeline(110.0, None, None, 200.0), JobTimeline(110.0, None, None, 200.0)]
    assert len(build_histories([JOB], timelines, NOW)) == 1
    known, unknown = build_histories([JOB, JOB], timelines[:1], NOW)
    assert [span.phase for span in known.spans] == [Phase.QUEUED, Phase.IN_PROGRESS]
    assert [span.phase for span in unknown.spans] == [Phase.UNKNOWN]
