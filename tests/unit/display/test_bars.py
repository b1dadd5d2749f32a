"""Tests of `display.bars`."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from distilabel_openai_batch.display import bars as bars_module
from distilabel_openai_batch.display.bars import Bar, Bars, count_statuses
from distilabel_openai_batch.ledger.entries import JobEntry
from tests.support.entries import COLLECTED_JOB, OPEN_JOB


def last_drawing(*jobs: JobEntry, width: int) -> list[str]:
    """Return the lines of the second of two drawings."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, legacy_windows=False)
    with Bars(console) as bars:
        bars.show(jobs)
        bars.show([replace(job, answered=job.answered + 1) for job in jobs])
        written = console.file.getvalue()
    drawing = written.rpartition("\x1b[1A")[2]
    return [line.replace("\x1b[2K", "").rstrip() for line in drawing.splitlines()]


def test_statuses_are_counted():
    assert count_statuses(["in_progress", "completed", "completed"]) == "2 completed, 1 in_progress"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_numbers_stay_whole_in_a_narrow_terminal(width, monkeypatch):
    monkeypatch.setattr(bars_module.time, "time", lambda: 2_250.0)

    lines = last_drawing(OPEN_JOB, COLLECTED_JOB, width=width)

    assert max(map(len, lines)) <= width
    assert lines[0].startswith("all ")
    assert "62501/100000" in lines[0]
    assert "12501/50000" in lines[1]
    assert "in_progress" in lines[1]
    assert lines[1].endswith("ETA 1 h 02 min")
    assert "c6e7f8" in lines[1]


def test_a_file_gets_a_line_for_each_change():
    console = Console(file=io.StringIO(), width=20)
    bar = Bar("batch_1", "", 0, 1, "in_progress", False, None)

    with Bars(console) as bars:
        bars.draw([], 0, 1)
        bars.draw([bar], 0, 1)
        bars.draw([bar], 0, 1)
        bars.draw([replace(bar, done=1, status="completed")], 1, 1)

    # rich 13 ends with an empty line.
    assert console.file.getvalue().rstrip() == "0 of 1 request; 1 in_progress\n1 of 1 request; 1 completed"
