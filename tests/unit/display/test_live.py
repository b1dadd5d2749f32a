"""Tests of `display.live`."""

from __future__ import annotations

import logging
import sys
import types

import pytest

from distilabel_openai_batch.display.bars import Bar
from distilabel_openai_batch.display.live import (
    PAUSE_ENV_NAME,
    PROGRESS_ENV_NAME,
    NotebookDisplay,
    choose_display,
    pause_seconds,
    print_notice,
)
from distilabel_openai_batch.errors import InvalidSettingError
from tests.support.terminal import Terminal, screen

LOGGER = logging.getLogger("test.display")
BAR = Bar("batch_1", "", 1, 4, "in_progress", False, None)


@pytest.fixture
def attach(monkeypatch, caplog):
    """Return a function that makes stderr a terminal.

    pytest captures stderr again when the test begins, so a fixture cannot do this itself.
    """
    terminal = Terminal()
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("CI", PROGRESS_ENV_NAME):
        monkeypatch.delenv(name, raising=False)

    def attach_stderr() -> Terminal:
        monkeypatch.setattr(sys, "stderr", terminal.file)
        return terminal

    yield attach_stderr
    terminal.close()


@pytest.mark.parametrize(
    ("variables", "has_keyboard", "seconds"),
    [
        ({}, True, 10.0),
        ({}, False, 0.0),
        ({"CI": "true"}, True, 0.0),
        ({PAUSE_ENV_NAME: "0"}, True, 0.0),
        ({PAUSE_ENV_NAME: "2.5"}, False, 2.5),
    ],
)
def test_a_submission_pauses_where_a_user_can_stop_it(attach, monkeypatch, variables, has_keyboard, seconds):
    terminal = attach()
    monkeypatch.delenv(PAUSE_ENV_NAME, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal.file if has_keyboard else None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert pause_seconds() == seconds


@pytest.mark.parametrize("value", ["ten", "-1", "nan", "inf", "1e9", ""])
def test_a_pause_that_is_no_number_of_seconds_is_an_error(monkeypatch, value):
    monkeypatch.setenv(PAUSE_ENV_NAME, value)
    with pytest.raises(InvalidSettingError, match=PAUSE_ENV_NAME):
        pause_seconds()


def test_one_run_at_a_time_draws_in_the_terminal(attach):
    terminal = attach()
    first, second = (choose_display(LOGGER) for _ in range(2))
    first.show([], 0, 1)
    second.show([], 0, 1)
    second.close("second")
    first.close("first")
    third = choose_display(LOGGER)
    third.show([], 0, 1)
    third.close("third")
    assert screen(terminal.close()) == ["first", "third"]


def test_the_summary_is_left_to_a_log_that_contains_it(attach, caplog):
    terminal = attach()
    caplog.set_level(logging.INFO)
    display = choose_display(LOGGER)
    display.show([], 0, 1)
    display.close("summary")
    assert screen(terminal.close()) == []


def test_a_log_handler_gets_its_stream_back(attach, monkeypatch):
    terminal = attach()
    handler = logging.StreamHandler(terminal.file)
    monkeypatch.setattr(LOGGER, "handlers", [handler])
    display = choose_display(LOGGER)
    display.show([BAR], 1, 4)
    assert handler.stream is not terminal.file
    LOGGER.warning("logged above")
    display.close("summary")
    assert handler.stream is terminal.file
    assert screen(terminal.close()) == ["logged above", "summary"]


@pytest.mark.parametrize(
    ("name", "value"), [(PROGRESS_ENV_NAME, "0"), ("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown")]
)
def test_an_environment_variable_turns_bars_off(attach, monkeypatch, name, value):
    attach()
    assert choose_display(LOGGER) is not None
    monkeypatch.setenv(name, value)
    assert choose_display(LOGGER) is None


def test_without_a_terminal_there_are_no_bars(monkeypatch, tmp_path):
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        assert choose_display(LOGGER) is None
    monkeypatch.setattr(sys, "stderr", None)
    assert choose_display(LOGGER) is None


@pytest.mark.parametrize(
    ("level", "value", "printed"),
    [(logging.WARNING, None, True), (logging.INFO, None, False), (logging.WARNING, "0", False)],
    ids=["unseen", "logged", "turned off"],
)
def test_a_notice_is_printed_if_nothing_else_shows_it(monkeypatch, caplog, capsys, level, value, printed):
    monkeypatch.delenv(PROGRESS_ENV_NAME, raising=False)
    if value:
        monkeypatch.setenv(PROGRESS_ENV_NAME, value)
    caplog.set_level(level)
    print_notice("Reused.\x1b[2J", LOGGER)
    assert capsys.readouterr().err == ("Reused.\\x1b[2J\n" if printed else "")
    monkeypatch.setattr(sys, "stderr", None)
    print_notice("No stderr.", LOGGER)


def test_a_notebook_kernel_gets_a_line(monkeypatch):
    monkeypatch.delenv(PROGRESS_ENV_NAME, raising=False)
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.SimpleNamespace(display=print)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert isinstance(choose_display(LOGGER), NotebookDisplay)


def test_a_notebook_line_is_updated_in_place():
    texts: list[str] = []

    class Handle:
        def update(self, data, raw):
            texts.append(data["text/plain"])

    def publish(data, raw, display_id):
        texts.append(data["text/plain"])
        return Handle()

    display = NotebookDisplay(publish)
    display.close("summary before the first line")
    display.show([], 0, 1)
    display.show([BAR], 1, 4)
    display.show([BAR], 1, 4)
    display.close("summary")
    assert texts == ["0 of 1 request", "1 of 4 requests; jobs: 1 in_progress", "summary"]
