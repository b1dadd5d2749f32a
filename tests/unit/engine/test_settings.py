"""Poll intervals and completion windows."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule

DAY = 86_400.0
AGES = st.floats(0, 10 * 86_400)
SCHEDULES = st.tuples(st.floats(0.001, 600), st.floats(0.001, 600)).map(
    lambda bounds: PollSchedule(min(bounds), max(bounds))
)


def list_polls(schedule: PollSchedule, ends_at: float) -> list[float]:
    """Return the ages at which a job is polled; the last poll finds that the job has ended."""
    ages = [0.0]
    while ages[-1] < ends_at:
        ages.append(ages[-1] + schedule.interval(ages[-1]))
    return ages[1:]


@pytest.mark.parametrize(("window", "seconds"), [("24h", DAY), ("336h", 14 * DAY), ("two weeks", DAY)])
@pytest.mark.parametrize("window_binds", [True, False])
def test_the_window_of_a_batch_with_an_unknown_status_ends(window, seconds, window_binds):
    """The status may be final."""
    settings = JobSettings(window, PollSchedule(), {}, window_binds=window_binds)
    assert settings.window_seconds(Batch("b", "sealed")) == seconds


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (-5.0, 1.0),
        (0.0, 1.0),
        (19.0, 1.0),
        (20.0, 1.0),
        (40.0, 2.0),
        (600.0, 30.0),
        (1_200.0, 60.0),
        (1_300.0, 65.0),
        (86_400.0, 65.0),
    ],
)
def test_the_interval_is_a_twentieth_of_the_age_between_a_second_and_65(age, seconds):
    """The default bounds hold at their edges and between them."""
    assert PollSchedule().interval(age) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("schedule", "age", "seconds"),
    [
        (PollSchedule(5.0, 5.0), 10_000.0, 5.0),
        (PollSchedule(0.0, 60.0), 0.0, 0.0),
        (PollSchedule(10.0, 2.0), 0.0, 10.0),
        (PollSchedule(10.0, 2.0), 10_000.0, 10.0),
        (PollSchedule(1.0, 600.0), 6_000.0, 300.0),
    ],
    ids=["one interval", "no pause at first", "contradiction, young", "contradiction, old", "rarely"],
)
def test_both_bounds_can_be_set(schedule, age, seconds):
    """The shortest interval counts if the two contradict."""
    assert schedule.interval(age) == pytest.approx(seconds)


@given(SCHEDULES, AGES)
def test_the_interval_stays_within_its_bounds(schedule, age):
    assert schedule.shortest <= schedule.interval(age) <= schedule.longest


@given(SCHEDULES, AGES, AGES)
def test_an_older_job_is_not_polled_more_often(schedule, one, other):
    assert schedule.interval(min(one, other)) <= schedule.interval(max(one, other))


@given(st.floats(0, 2 * 86_400))
def test_an_end_is_noticed_late_by_a_twentieth_of_the_duration_at_most(ends_at):
    """The delay is at most 65 s; for a very short job it is a second."""
    assume(ends_at > 0)
    late = list_polls(PollSchedule(), ends_at)[-1] - ends_at
    assert late <= max(1.0, min(65.0, 0.05 * ends_at)) + 1e-6


def test_a_job_of_a_day_costs_at_most_1500_polls():
    """A poll a minute would make 1,440; the short intervals of the first minutes add some."""
    assert len(list_polls(PollSchedule(), 86_400.0)) <= 1_500


def test_a_job_of_a_minute_costs_at_most_60_polls():
    assert len(list_polls(PollSchedule(), 60.0)) <= 60


@pytest.mark.parametrize(
    ("window", "binds", "times", "seconds"),
    [
        ("24h", True, {"created_at": 10.0, "expires_at": 110.0}, 100.0),
        ("24h", True, {}, DAY),
        ("336h", True, {}, 14 * DAY),
        ("7d", True, {"created_at": 10.0}, 7 * DAY),
        ("a while", True, {}, math.inf),
        ("24h", False, {}, math.inf),
        ("24h", False, {"created_at": 10.0, "expires_at": 110.0}, math.inf),
    ],
)
def test_window_lasts_until_the_servers_or_the_requested_end(window, binds, times, seconds):
    """A window that does not bind, or whose length is unknown, has no end."""
    settings = JobSettings(window, PollSchedule(), {}, window_binds=binds)

    assert settings.window_seconds(Batch("batch_0", "in_progress", **times)) == seconds
