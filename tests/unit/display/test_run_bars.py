"""Tests of `display.run_bars`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.display import run_bars as run_bars_module
from distilabel_openai_batch.display.bars import Bar
from distilabel_openai_batch.display.run_bars import RunBars


class RecordingDisplay:
    """Display that records each drawing."""

    def __init__(self) -> None:
        self.drawings: list[tuple[list[Bar], int, int]] = []
        self.summary = ""

    def show(self, bars, done, total) -> None:
        self.drawings.append((list(bars), done, total))

    def close(self, summary: str) -> None:
        self.summary = summary


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(run_bars_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_bar_follows_its_batch_to_the_end(clock):
    display = RecordingDisplay()
    bars = RunBars(display)
    bars.update(Batch("batch_1", "validating"), requests=10)
    bars.draw(0, 10)
    clock.now = 40.0
    bars.update(Batch("batch_1", "in_progress", completed=3, failed=1, total=10))
    bars.draw(4, 10)
    bars.update(Batch("batch_1", "finalizing", completed=3, total=10), is_collected=True)
    bars.draw(10, 10)
    bars.close("summary")

    assert [drawing[0] for drawing in display.drawings] == [
        [Bar("batch_1", "", 0, 10, "validating", False, None)],
        [Bar("batch_1", "", 4, 10, "in_progress", False, 60.0)],
        [Bar("batch_1", "", 10, 10, "finalizing", True, None)],
    ]
    assert [drawing[1:] for drawing in display.drawings] == [(0, 10), (4, 10), (10, 10)]
    assert display.summary == "summary"


def test_a_batch_with_an_unknown_number_of_requests_has_an_empty_bar(clock):
    display = RecordingDisplay()
    bars = RunBars(display)
    bars.update(Batch("batch_1", "failed", completed=5))
    bars.draw(0, 0)
    assert display.drawings[0][0] == [Bar("batch_1", "", 0, 0, "failed", True, None)]


def test_a_drawing_is_due_after_a_tenth_of_a_second(clock):
    bars = RunBars(RecordingDisplay())
    assert bars.is_due()
    bars.draw(0, 1)
    clock.now = 0.05
    assert not bars.is_due()
    clock.now = 0.1
    assert bars.is_due()
