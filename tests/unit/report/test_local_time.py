"""Tests of `report.local_time`."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import pytest

from distilabel_openai_batch.report.local_time import label_moments, local, zone_name

HOUR = 3_600.0
DAY = 24 * HOUR
# Europe's clocks went back on 25 October 2026, an hour after this moment, and forward on 29 March 2026.
AUTUMN = datetime(2026, 10, 25, 0, tzinfo=timezone.utc).timestamp()
SPRING = datetime(2026, 3, 28, 22, 30, tzinfo=timezone.utc).timestamp()


@pytest.fixture
def in_zone(monkeypatch):
    """Return a function that sets the time zone of the process."""

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "pixels", "labels"),
    [
        (60, 600, ["00:00:00", "00:00:10"]),
        (30 * 60, 600, ["00:00", "00:05"]),
        (HOUR, 600, ["00:00", "00:10"]),
        (HOUR, 150, ["00:00", "00:30"]),
        (1.5 * DAY, 600, ["1 Jan 00:00", "1 Jan 06:00"]),
        (2.9 * DAY, 960, ["1 Jan 00:00", "1 Jan 12:00"]),
        (10 * DAY, 600, ["1 Jan", "3 Jan"]),
        (365 * DAY, 300, ["1 Jan", "12 Mar"]),
    ],
)
def test_labels_are_as_exact_as_their_step(in_zone, seconds, pixels, labels):
    in_zone("UTC")
    found = list(label_moments(0.0, seconds, pixels, 7, 22).values())
    assert found[:2] == labels


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("start", [AUTUMN - HOUR, SPRING, 1_795_500_000.5])
@pytest.mark.parametrize("seconds", [10, 400, 5 * HOUR, 1.2 * DAY, 2.9 * DAY, 5 * DAY, 90 * DAY, 900 * DAY])
@pytest.mark.parametrize("pixels", [200, 900])
def test_no_label_occurs_twice_and_each_is_the_local_time(in_zone, zone, start, seconds, pixels):
    """The days on which the clocks change have 23 and 25 hours."""
    in_zone(zone)
    labels = label_moments(start, start + seconds, pixels, 7, 22)
    assert len(set(labels.values())) == len(labels)
    for at, label in labels.items():
        assert start <= at <= start + seconds
        moment = local(at)
        texts = (
            f"{moment.day} {moment:%b}",
            f"{moment:%H:%M}",
            f"{moment:%H:%M:%S}",
            f"{moment.day} {moment:%b %H:%M}",
        )
        assert label in texts
        if label == texts[0]:
            assert f"{moment:%H:%M}" == "00:00"


@pytest.mark.parametrize(
    ("zone", "name"), [("UTC", "UTC"), ("Europe/Berlin", "CEST (UTC+02:00)"), ("Asia/Dubai", "UTC+04:00")]
)
def test_a_zone_has_its_offset(in_zone, zone, name):
    in_zone(zone)
    assert zone_name(AUTUMN) == name
