"""Deadlines: seconds, durations, times of the day and date-times."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.engine.deadlines import Deadline, parse_deadline

# 2026-11-26 20:00 in Berlin.
EVENING = datetime(2026, 11, 26, 19, 0, tzinfo=timezone.utc).timestamp()
HOUR = 3_600.0


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("21600.5", 21_600.5),
        ("45s", 45),
        ("90m", 5_400),
        ("90 min", 5_400),
        ("4h", 14_400),
        ("4 hours", 14_400),
        ("1h30m", 5_400),
        ("1h 30m", 5_400),
        ("1H30M15S", 5_415),
        ("1.5h", 5_400),
        ("2d", 172_800),
        (" 1 day 2 hrs ", 93_600),
    ],
)
def test_numbers_and_durations_count_from_the_planning(value, seconds):
    assert parse_deadline(value) == Deadline(seconds=seconds)


@given(st.tuples(*(st.integers(0, 400) for _ in range(4))).filter(any))
def test_each_combination_of_units_is_the_sum_of_its_parts(parts):
    text = "".join(f"{number}{unit}" for number, unit in zip(parts, "dhms", strict=True) if number)
    days, hours, minutes, seconds = parts
    assert parse_deadline(text).seconds == 86_400 * days + 3_600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-27T06:00", EVENING + 10 * HOUR),
        ("2026-11-27 06:00:00", EVENING + 10 * HOUR),
        ("2026-11-27T06:00:00.5", EVENING + 10 * HOUR + 0.5),
        ("2026-11-27T06:00Z", EVENING + 11 * HOUR),
        ("2026-11-27T06:00+00:00", EVENING + 11 * HOUR),
        ("2026-11-27T06:00-05:00", EVENING + 16 * HOUR),
        ("2026-11-27T06:00+0530", EVENING + 5.5 * HOUR),
        ("2026-11-27T06:00+01", EVENING + 10 * HOUR),
        ("2026-07-01T06:00", datetime(2026, 7, 1, 4, 0, tzinfo=timezone.utc).timestamp()),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_date_times_without_a_zone_are_local(text, moment):
    assert parse_deadline(text) == Deadline(at=moment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "6am",
        "24:00",
        "06:60",
        "06:00Z",
        "4x",
        "h",
        "..h",
        "1h60",
        "30m1h",
        "1h, 30m",
        "-4h",
        "PT4H",
        "True",
        "2027-01-31",
        "2027-02-31T06:00",
        "2027-01-31T25:00",
        "2027-01-31T06:00+30:00",
        "31.01.2027 06:00",
    ],
)
def test_other_texts_are_refused_with_the_forms(text):
    with pytest.raises(ValueError, match=r"^`deadline` is '.*`21600`.*`90m`.*`06:00`.*`2027-01-31T06:00`"):
        parse_deadline(text)


@pytest.mark.parametrize(
    ("clock", "now", "moment"),
    [
        ("06:00", EVENING, EVENING + 10 * HOUR),
        ("20:00", EVENING, EVENING + 24 * HOUR),
        ("20:01", EVENING, EVENING + 60),
        ("0:00", EVENING, EVENING + 4 * HOUR),
        ("23:59:59", EVENING, EVENING + 4 * HOUR - 1),
        # The clock shows 02:30 twice on 25 October 2026, and never on 28 March 2027.
        ("02:30", datetime(2026, 10, 25, 0, 0, tzinfo=timezone.utc).timestamp(), 1_792_888_200.0),
        ("02:30", 1_792_888_200.0, 1_792_888_200.0 + HOUR),
        ("02:30", datetime(2027, 3, 27, 23, 0, tzinfo=timezone.utc).timestamp(), 1_806_280_200.0),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_a_time_of_the_day_is_the_next_moment_at_which_the_local_clock_shows_the_time(clock, now, moment):
    assert parse_deadline(clock).begin(now) == Deadline(at=moment)


@given(now=st.floats(0, 4e9), minute=st.integers(0, 24 * 60 - 1))
def test_the_moment_of_a_time_of_the_day_is_in_the_future_and_shows_the_time(now, minute):
    clock = f"{minute // 60:02}:{minute % 60:02}"
    begun = parse_deadline(clock).begin(now)
    assert now < begun.at < now + 3 * 86_400
    assert datetime.fromtimestamp(begun.at).strftime("%H:%M") == clock
    assert begun.begin(begun.at + 60) == begun


def test_a_fixed_moment_does_not_depend_on_the_planning(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    monkeypatch.setattr(time, "time", lambda: EVENING)
    fixed = Deadline(at=EVENING + 100)
    assert fixed.moment(since=0.0) == fixed.moment(since=40.0) == 150.0
    assert Deadline(seconds=100).moment(since=40.0) == 140.0
    assert math.isinf(Deadline().moment(since=40.0))


@pytest.mark.usefixtures("berlin")
def test_descriptions_contain_the_moment_and_the_time_left():
    assert Deadline(seconds=960).describe(EVENING) == "16 min 00 s after the requests are planned"
    assert Deadline(at=EVENING + 600).describe(EVENING) == "2026-11-26 20:10:00+01:00, in 10 min 00 s"
    assert Deadline(at=EVENING - 600).describe(EVENING) == "2026-11-26 19:50:00+01:00, which has passed"
