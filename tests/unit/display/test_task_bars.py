"""Tests of `display.task_bars`."""

from __future__ import annotations

import io
import logging
import types
from decimal import Decimal

import pytest
from rich.console import Console

from distilabel_openai_batch.display import task_bars
from distilabel_openai_batch.display.task_bars import NotebookTaskBars, TerminalTaskBars, describe_counts
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.pricing.prices import Cost
from tests.support.terminal import Terminal, screen

RUNNING = TaskCounts(
    *(100_000, 62_000, 500, {"500": 500}),
    jobs=2,
    reused=10,
    cost=Cost(Decimal(3), Decimal(6)),
    seconds=60.0,
    seconds_left=3_700.0,
)
TASKS = {"a_task_with_a_rather_long_name_in_its_pipeline": RUNNING, "judge": TaskCounts()}


def last_drawing(tasks, width: int) -> list[str]:
    """Return the lines that a terminal shows after the second of two drawings."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, legacy_windows=False)
    bars = TerminalTaskBars(console, [])
    bars.show(dict.fromkeys(tasks, TaskCounts()))
    bars.show(tasks)
    written = console.file.getvalue()
    bars.close()
    return screen(written.replace("\n", "\r\n"))


@pytest.mark.parametrize("width", [60, 80, 160])
def test_each_task_and_all_tasks_have_one_line_in_any_terminal(width):
    lines = last_drawing(TASKS, width)
    assert [line.split()[0][:6] for line in lines] == ["a_task", "judge", "all"]
    assert max(map(len, lines)) <= width
    assert "62500/100000" in lines[0]
    assert lines[1].endswith("waiting")


def test_one_task_has_no_line_for_all():
    assert len(last_drawing({"generate": RUNNING}, 80)) == 1


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (80, "ETA 1 h 01 min · 500 failed · 2 jobs · $3.00 · 10 reused"),
        (30, "ETA 1 h 01 min · 500 failed"),
        (20, "ETA 1 h 01 min"),
        (5, ""),
    ],
)
def test_details_are_left_out_where_they_do_not_fit(width, text):
    assert describe_counts(RUNNING, width) == text


def test_a_task_that_is_done_shows_its_duration():
    assert describe_counts(TaskCounts(2, 2, seconds=61.0), 80) == "1 min 01 s"


def test_lines_of_handlers_for_a_terminal_stand_above_the_bars():
    terminal = Terminal()
    console = Console(file=terminal.file, force_terminal=True, width=100)
    handler = logging.StreamHandler(terminal.file)
    bars = TerminalTaskBars(console, [handler, logging.StreamHandler(io.StringIO())])
    bars.show(TASKS)
    handler.emit(logging.makeLogRecord({"msg": "logged above"}))
    bars.show(TASKS)
    assert handler.stream is not terminal.file
    bars.close()
    assert handler.stream is terminal.file
    written = terminal.close()
    assert screen(written) == ["logged above"]
    # A killed pipeline leaves the cursor visible.
    assert written.index("\x1b[?25h") < written.index("logged above")


@pytest.fixture
def box(monkeypatch):
    """Return a notebook's bars, the texts of its box, and the handler of its log."""
    monkeypatch.setattr(task_bars, "_SECONDS_BETWEEN_UPDATES", 0.0)
    texts: list[str] = []
    handle = types.SimpleNamespace(update=lambda data, raw: texts.append(data["text/plain"]))

    def publish(data, raw, display_id):
        texts.append(data["text/plain"])
        return handle

    rich_handler = types.SimpleNamespace(console=types.SimpleNamespace(is_jupyter=True))
    listener = types.SimpleNamespace(handlers=(logging.StreamHandler(io.StringIO()), rich_handler))
    bars = NotebookTaskBars(publish, listener)
    assert len(listener.handlers) == 2
    return bars, texts, listener.handlers[1]


def test_a_notebook_has_one_box_with_bars_and_the_latest_log_lines(box):
    bars, texts, handler = box
    bars.show({"generate": TaskCounts(4, 1), "judge": TaskCounts()})
    for number in range(100):
        handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
    lines = texts[-1].splitlines()
    assert lines[0].startswith("generate  ████████░░░")
    assert lines[0].endswith("1/4 ETA –")
    assert (lines[3], lines[4], lines[-1]) == ("", "line 60", "line 99")
    bars.replace("summary\nof the run")
    assert texts[-1].splitlines()[:3] == ["summary", "of the run", ""]
    texts.clear()
    bars.close()
    assert texts == []


def test_a_burst_of_lines_makes_one_update_and_the_end_shows_the_rest(box, monkeypatch):
    bars, texts, handler = box
    monkeypatch.setattr(task_bars, "_SECONDS_BETWEEN_UPDATES", float("inf"))
    bars._updated_at = 0.0
    handler.emit(logging.makeLogRecord({"msg": "a line\x1b[31m"}))
    assert texts == []
    bars.close()
    assert texts == ["a line\\x1b[31m"]
