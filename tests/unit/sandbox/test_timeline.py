"""Where a batch stands at each moment."""

from dataclasses import replace

import pytest

from distilabel_openai_batch.sandbox.timeline import Halt, Timeline, stage

# Validated until 10, at work until 110, finalized until 120, out of time at 1,000.
LINE = Timeline(
    created_at=0,
    expires_at=1_000,
    validating=10,
    in_progress=100,
    finalizing=10,
    cancelling=5,
    requests=50,
    examined_at=0,
    answered_at=0,
)
WORKING = replace(LINE, answered_at=None)
SHORT = replace(LINE, expires_at=60)


@pytest.mark.parametrize(
    ("line", "now", "status", "done"),
    [
        (LINE, 0, "validating", 0),
        (LINE, 9.9, "validating", 0),
        (LINE, 10, "in_progress", 0),
        (LINE, 60, "in_progress", 25),
        (LINE, 109.9, "in_progress", 49),
        (LINE, 110, "finalizing", 50),
        (LINE, 120, "completed", 50),
        (LINE, 5_000, "completed", 50),
        (replace(LINE, examined_at=None), 500, "validating", 0),
        (WORKING, 500, "in_progress", 50),
        (replace(LINE, answered_at=300), 299, "in_progress", 50),
        (replace(LINE, answered_at=300), 310, "completed", 50),
        (replace(LINE, valid=False), 9, "validating", 0),
        (replace(LINE, valid=False), 10, "failed", 0),
        (SHORT, 59, "in_progress", 24),
        (SHORT, 60, "expired", 25),
        (SHORT, 5_000, "expired", 25),
        (replace(LINE, expires_at=5), 4, "validating", 0),
        (replace(LINE, expires_at=5), 5, "expired", 0),
        # What is finalizing when the window closes is completed.
        (replace(LINE, expires_at=115), 130, "completed", 50),
        (replace(LINE, cancel_at=60), 60, "cancelling", 25),
        (replace(LINE, cancel_at=60), 65, "cancelled", 25),
        (replace(LINE, cancel_at=4), 4, "cancelling", 0),
        (replace(LINE, cancel_at=4), 9, "cancelled", 0),
        (replace(LINE, cancel_at=112), 117, "cancelled", 50),
        (replace(WORKING, cancel_at=60), 500, "cancelling", 25),
        (replace(LINE, halt=Halt("in_progress", 7)), 9_999, "in_progress", 7),
        (replace(LINE, halt=Halt("in_progress", 7), cancel_at=50), 55, "cancelled", 7),
        (replace(LINE, halt=Halt("expired", 7)), 10, "expired", 7),
        (replace(LINE, halt=Halt("expired", 99)), 10, "expired", 50),
        (replace(LINE, halt=Halt("failed", 7)), 10, "failed", 7),
    ],
)
def test_the_status_follows_from_the_clock(line, now, status, done):
    """Durations set when, the worker and the window set how."""
    found = stage(line, now)
    assert (found.status, found.done) == (status, done)


@pytest.mark.parametrize(
    ("line", "moments"),
    [
        (LINE, {"in_progress_at": 10, "finalizing_at": 110, "completed_at": 120}),
        (SHORT, {"in_progress_at": 10, "expired_at": 60}),
        (replace(LINE, valid=False), {"failed_at": 10}),
        (replace(LINE, cancel_at=60), {"in_progress_at": 10, "cancelling_at": 60, "cancelled_at": 65}),
        (replace(LINE, cancel_at=4), {"cancelling_at": 4, "cancelled_at": 9}),
        (replace(LINE, halt=Halt("cancelled", 7)), {"in_progress_at": 10, "cancelling_at": 10, "cancelled_at": 10}),
    ],
)
def test_each_moment_is_noted(line, moments):
    """Whenever someone looks, the moments are those at which it happened."""
    found = stage(line, 9_999)
    assert found.moments == moments
    assert found.ended_at == max(moments.values())


def test_a_batch_cannot_have_ended_before_it_was_last_seen_unfinished():
    """Times that are shortened while it runs end it now, not in the past."""
    found = stage(replace(LINE, in_progress=0, finalizing=0, seen_at=80), 81)
    assert (found.status, found.ended_at) == ("completed", 80)
