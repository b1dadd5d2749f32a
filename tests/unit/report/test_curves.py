"""Tests of `report.curves`."""

from __future__ import annotations

from dataclasses import replace

from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.report.curves import COLOURS, OTHERS_COLOUR, draw_curves
from distilabel_openai_batch.report.history import build_histories
from tests.support.entries import COLLECTED_JOB


def histories(*answers: int):
    """Return the histories of one job for each scope, with these numbers of answers, one after another."""
    jobs = [
        replace(
            COLLECTED_JOB,
            scope=ScopeName(f"pipeline {number}", "generate", ""),
            answered=count,
            created_at=1_000.0 * number,
            ended_at=1_000.0 * number + 500,
        )
        for number, count in enumerate(answers)
    ]
    return build_histories(jobs, [], 100_000.0)


def test_one_scope_has_the_curve_of_its_answers():
    [curve] = draw_curves(histories(7))
    assert (curve.name, curve.colour, curve.counts[-1].answered, curve.has_outcomes) == ("answered", "good", 7, True)
    assert draw_curves([]) == []


def test_each_scope_has_a_curve_over_the_time_of_all():
    curves = draw_curves(histories(7, 9, 8))
    assert [curve.name for curve in curves] == ["pipeline 1/generate", "pipeline 2/generate", "pipeline 0/generate"]
    assert [curve.counts[-1].answered for curve in curves] == [9, 8, 7]
    assert {tuple(count.at for count in curve.counts) for curve in curves} == {
        tuple(count.at for count in curves[0].counts)
    }


def test_the_smallest_of_many_scopes_share_a_curve():
    assert len(draw_curves(histories(*range(1, len(COLOURS) + 1)))) == len(COLOURS)
    curves = draw_curves(histories(*range(1, 9)))
    assert [curve.counts[-1].answered for curve in curves] == [8, 7, 6, 5, 4 + 3 + 2 + 1]
    assert (curves[-1].name, curves[-1].colour) == ("4 other scopes", OTHERS_COLOUR)
