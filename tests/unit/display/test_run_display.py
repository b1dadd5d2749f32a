"""Tests of `display.run_display`."""

from __future__ import annotations

import io
import logging
import sys
import types

import pytest
from rich.console import Console
from rich.logging import RichHandler

from distilabel_openai_batch.display.live import PROGRESS_ENV_NAME
from distilabel_openai_batch.display.run_display import RunDisplay
from distilabel_openai_batch.display.summary import RunSummary, TaskSummary
from distilabel_openai_batch.display.task_counts import TaskCounts
from tests.support.terminal import Terminal, screen

LOGGER = logging.getLogger("test.run_display")
COUNTS = TaskCounts(4, 1, jobs=1)
SUMMARY = RunSummary("preferences", 4, 4, [TaskSummary("generate", 4, 4, COUNTS)], "/data")


@pytest.fixture
def listener(monkeypatch, caplog):
    """Return a function that makes distilabel's listener, whose handler writes to a file."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("CI", PROGRESS_ENV_NAME):
        monkeypatch.delenv(name, raising=False)

    def make(file, is_terminal: bool) -> types.SimpleNamespace:
        console = Console(file=file, force_terminal=is_terminal, width=100)
        return types.SimpleNamespace(handlers=(RichHandler(console=console),))

    return make


def run_to_its_end(display: RunDisplay) -> None:
    display.start()
    display.update("generate", COUNTS)
    display.close()
    display.log_summary(lambda: SUMMARY)
    display.show_summary(lambda: SUMMARY)


def test_bars_and_the_table_appear_in_the_terminal_of_the_log(listener, caplog):
    terminal = Terminal()
    attached = listener(terminal.file, True)
    display = RunDisplay(["generate"], LOGGER)
    display.attach(attached)
    display.update("generate", COUNTS)
    display.start()
    attached.handlers[0].emit(logging.makeLogRecord({"msg": "a line of the log", "levelname": "INFO"}))
    run_to_its_end(display)
    written = terminal.close()
    assert "━" in written
    lines = screen(written)
    assert "a line of the log" in lines[0]
    assert lines[1] == "preferences: 4 rows in, 4 in the dataset"
    assert lines[-1].startswith("Next: distilabel-openai-batch")
    assert caplog.messages == []


@pytest.mark.parametrize("variable", [None, "CI", PROGRESS_ENV_NAME])
def test_elsewhere_the_log_gets_plain_lines(listener, caplog, monkeypatch, variable):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    file = io.StringIO()
    if variable:
        monkeypatch.setenv(variable, "0")
    display = RunDisplay(["generate"], LOGGER)
    display.attach(listener(file, is_terminal=bool(variable)))
    run_to_its_end(display)
    assert file.getvalue() == ""
    assert caplog.messages[0] == "📊 preferences: 4 rows in, 4 in the dataset."


def test_the_log_in_a_file_leaves_the_bars_to_stderr(listener, monkeypatch):
    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal.file)
    display = RunDisplay(["generate"], LOGGER)
    display.attach(listener(file, is_terminal=False))
    run_to_its_end(display)
    assert "━" in terminal.close()
    assert file.getvalue() == ""


def test_an_error_of_the_display_is_logged_once_for_debugging_and_ends_no_run(listener, caplog):
    class BrokenFile(io.StringIO):
        def write(self, text):
            raise OSError("the terminal is gone")

        def isatty(self):
            return True

    attached = listener(BrokenFile(), is_terminal=True)
    handler = logging.StreamHandler(BrokenFile())
    stream = handler.stream
    attached.handlers += (handler,)
    display = RunDisplay(["generate"], LOGGER)
    display.attach(attached)
    run_to_its_end(display)
    assert handler.stream is stream
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "turned off" in caplog.text


def test_a_notebook_gets_one_box(listener, monkeypatch):
    texts: list[str] = []
    handle = types.SimpleNamespace(update=lambda data, raw: texts.append(data["text/plain"]))
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.SimpleNamespace(display=lambda data, raw, display_id: handle)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    display = RunDisplay(["generate"], LOGGER)
    display.attach(listener(io.StringIO(), is_terminal=False))
    run_to_its_end(display)
    assert texts[-1].startswith("preferences: 4 rows in")
