"""Tests of `report.charts`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger.entries import JobTimeline
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.report import charts
from distilabel_openai_batch.report.curves import Curve
from distilabel_openai_batch.report.history import (
    AnswerCounts,
    EndState,
    Phase,
    build_histories,
)
from tests.support.entries import COLLECTED_JOB, SCOPE

JOB = replace(COLLECTED_JOB, requests=10, answered=8, failed=2, created_at=100.0, ended_at=200.0)
TIMELINE = JobTimeline(110.0, None, None, 200.0)
NOW = 1_000.0


@pytest.fixture(autouse=True)
def drawing_library():
    """Skip a test if the extra `report` is not installed."""
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")


def titles(image: str) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", image)


def test_each_phase_and_each_end_has_a_colour_and_a_shape():
    assert set(charts.PHASE_COLOURS) == set(Phase)
    assert set(charts.END_COLOURS) == set(charts.END_SHAPES) == set(EndState) - {EndState.OPEN}


def test_a_line_has_a_bar_for_each_phase_and_a_mark_at_the_end():
    open_job = replace(JOB, state=JobState.CREATED, status="in_progress", ended_at=None, batch_id="batch_2")
    chart = charts.draw_timeline(build_histories([JOB, open_job], [TIMELINE, TIMELINE], NOW))
    assert len(chart.images) == len(charts.WIDTHS)
    for _, image in chart.images:
        assert sorted(titles(image)) == [
            "preferences/text_generation_0, batch_1: completed at 1 Jan 00:03:20; 8 of 10 answered",
            "preferences/text_generation_0, batch_1: in progress for 1 min 30 s, 1 Jan 00:01:50 to 1 Jan 00:03:20",
            "preferences/text_generation_0, batch_1: queued for 10 s, 1 Jan 00:01:40 to 1 Jan 00:01:50",
            "preferences/text_generation_0, batch_2: in progress for 14 min 50 s, 1 Jan 00:01:50 to 1 Jan 00:16:40",
            "preferences/text_generation_0, batch_2: queued for 10 s, 1 Jan 00:01:40 to 1 Jan 00:01:50",
        ]


def test_names_stand_in_wide_charts_and_numbers_in_narrow_ones():
    long_name = replace(JOB, scope=ScopeName("a pipeline with a rather long name", "generate", SCOPE.base_url))
    (_, narrow), *_, (_, wide) = charts.draw_timeline(build_histories([JOB, long_name], [], NOW)).images
    assert ">preferences/text_generation_0 1</text>" in wide
    assert ">a pipeline with a rather long… 2</text>" in wide
    assert ">2</text>" in narrow
    assert "rather long…" not in narrow


def test_many_jobs_are_stacked_counts():
    jobs = [replace(JOB, created_at=100.0 + 50 * number, ended_at=200.0 + 50 * number) for number in range(50)]
    chart = charts.draw_timeline(build_histories(jobs, [], NOW))
    image = chart.images[-1][1]
    assert ">Open jobs</text>" in image
    assert ">Ended jobs</text>" in image
    ended = [int(count) for title in titles(image) for count in re.findall(r": (\d+) completed", title)]
    assert sum(ended) == 50


def test_failures_have_a_line_of_their_own():
    counts = [AnswerCounts(100.0 + number, number, 0) for number in range(20)]
    without_failures = charts.draw_answers([Curve("answered", "good", counts)]).images[0][1]
    failing = Curve("answered", "good", [*counts, AnswerCounts(120.0, 20, 3)])
    with_failures = charts.draw_answers([failing]).images[0][1]
    assert "var(--bad)" not in without_failures
    assert "var(--bad)" in with_failures
    assert "1 Jan 00:02:00: 20 answered, 3 failed" in titles(with_failures)


def test_each_scope_has_a_curve():
    counts = [AnswerCounts(100.0 + number, number, 1) for number in range(20)]
    curves = [Curve("preferences/generate", "good", counts), Curve("preferences/judge\x01", "working", counts)]
    image = charts.draw_answers(curves).images[0][1]
    assert "var(--good)" in image
    assert "var(--working)" in image
    assert "1 Jan 00:01:59: 19 preferences/generate, 19 preferences/judge, 2 failed" in titles(image)


def test_control_characters_are_left_out():
    """The drawing library ends the process at a character that XML lacks."""
    scope = ScopeName("a\x01b", "\x1b[31mred\x00\x9b\ufffe", SCOPE.base_url)
    chart = charts.draw_timeline(build_histories([replace(JOB, scope=scope)], [], NOW))
    assert ">ab/[31mred 1</text>" in chart.images[-1][1]
