"""Status of a batch at a given time."""

from dataclasses import replace

import pytest

from distilabel_openai_batch.sandbox.timeline import ScriptedEnd, Timeline, stage_at

# Validating until 10, in progress until 110, finalizing until 120; the window closes at 1,000.
LINE = Timeline(
    created_at=0,
    expires_at=1_000,
    validating=10,
    in_progress=100,
    finalizing=10,
    cancelling=5,
    request_count=50,
    read_at=0,
    answered_at=0,
)
WORKING = replace(LINE, answered_at=None)
SHORT = replace(LINE, expires_at=60)


@pytest.mark.parametrize(
    ("line", "now", "status", "answered_count"),
    [
        (LINE, 0, "validating", 0),
        (LINE, 9.9, "validating", 0),
        (LINE, 10, "in_progress", 0),
        (LINE, 60, "in_progress", 25),
        (LINE, 109.9, "in_progress", 49),
        (LINE, 110, "finalizing", 50),
        (LINE, 120, "completed", 50),
        (LINE, 5_000, "completed", 50),
        (replace(LINE, read_at=None), 500, "validating", 0),
        (WORKING, 500, "in_progress", 50),
        (replace(LINE, answered_at=300), 299, "in_progress", 50),
        (replace(LINE, answered_at=300), 310, "completed", 50),
        (replace(LINE, is_valid=False), 9, "validating", 0),
        (replace(LINE, is_valid=False), 10, "failed", 0),
        (SHORT, 59, "in_progress", 24),
        (SHORT, 60, "expired", 25),
        (SHORT, 5_000, "expired", 25),
        (replace(LINE, expires_at=5), 4, "validating", 0),
        (replace(LINE, expires_at=5), 5, "expired", 0),
        # A batch that is finalizing when the window closes is completed.
        (replace(LINE, expires_at=115), 130, "completed", 50),
        (replace(LINE, cancel_at=60), 60, "cancelling", 25),
        (replace(LINE, cancel_at=60), 65, "cancelled", 25),
        (replace(LINE, cancel_at=4), 4, "cancelling", 0),
        (replace(LINE, cancel_at=4), 9, "cancelled", 0),
        (replace(LINE, cancel_at=112), 117, "cancelled", 50),
        (replace(WORKING, cancel_at=60), 500, "cancelling", 25),
        (replace(LINE, scripted_end=ScriptedEnd("in_progress", 7)), 9_999, "in_progress", 7),
        (replace(LINE, scripted_end=ScriptedEnd("in_progress", 7), cancel_at=50), 55, "cancelled", 7),
        (replace(LINE, scripted_end=ScriptedEnd("expired", 7)), 10, "expired", 7),
        (replace(LINE, scripted_end=ScriptedEnd("expired", 99)), 10, "expired", 50),
        (replace(LINE, scripted_end=ScriptedEnd("failed", 7)), 10, "failed", 7),
    ],
)
def test_status_follows_from_the_clock(line, now, status, answered_count):
    """Durations set the times; worker and window set the end."""
    stage = stage_at(line, now)
    assert (stage.status, stage.answered_count) == (status, answered_count)


@pytest.mark.parametrize(
    ("line", "timestamps"),
    [
        (LINE, {"in_progress_at": 10, "finalizing_at": 110, "completed_at": 120}),
        (SHORT, {"in_progress_at": 10, "expired_at": 60}),
        (replace(LINE, is_valid=False), {"failed_at": 10}),
        (replace(LINE, cancel_at=60), {"in_progress_at": 10, "cancelling_at": 60, "cancelled_at": 65}),
        (replace(LINE, cancel_at=4), {"cancelling_at": 4, "cancelled_at": 9}),
        (
            replace(LINE, scripted_end=ScriptedEnd("cancelled", 7)),
            {"in_progress_at": 10, "cancelling_at": 10, "cancelled_at": 10},
        ),
    ],
)
def test_each_timestamp_is_recorded(line, timestamps):
    """Timestamps do not depend on the time of the question."""
    stage = stage_at(line, 9_999)
    assert stage.timestamps == timestamps
    assert stage.ended_at == max(timestamps.values())


def test_batch_does_not_end_before_it_was_last_seen_unfinished():
    """Shortened durations end a batch now, not in the past."""
    stage = stage_at(replace(LINE, in_progress=0, finalizing=0, seen_at=80), 81)
    assert (stage.status, stage.ended_at) == ("completed", 80)
