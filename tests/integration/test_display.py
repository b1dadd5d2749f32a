"""Bars of a run in a terminal, against the sandbox."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.display.live import PROGRESS_ENV_NAME
from distilabel_openai_batch.engine import calls
from tests.support.environment import API_KEY
from tests.support.terminal import Terminal, screen, strip_escapes

CHATS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]


@pytest.fixture
def attach(monkeypatch, caplog) -> Iterator[Callable[[], Terminal]]:
    """Return a function that makes stderr a terminal.

    pytest captures stderr again when the test begins, so a fixture cannot do this itself.
    """
    terminal = Terminal()
    # A pipeline of an earlier test changed the log's level for the whole process.
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("CI", PROGRESS_ENV_NAME, "DISTILABEL_PIPELINE_NAME"):
        monkeypatch.delenv(name, raising=False)

    def attach_stderr() -> Terminal:
        monkeypatch.setattr(sys, "stderr", terminal.file)
        return terminal

    yield attach_stderr
    terminal.close()


def generate(**fields) -> None:
    """Generate an answer to each of six chats, as a new process would."""
    calls.scope_memories.clear()
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, **fields)
    llm.load()
    llm.generate(CHATS)


def test_a_script_draws_a_bar_for_each_job_and_one_for_all(sandbox, attach):
    """At the end the summary replaces the bars."""
    terminal = attach()
    sandbox.configure(in_progress_seconds=0.3)
    generate(max_requests_per_job=3)
    written = terminal.close()
    assert re.search(r"all +━+ 0/6 0 of 1 ended ETA –\s+…\w{11} ━+ 0/3 ", strip_escapes(written))
    assert re.search(r"all +[━╸╺]+ \d/6 2 of 2 ended ", strip_escapes(written))
    assert written.count("in_progress") > 1
    [line] = screen(written)
    assert line.startswith("🏁 6 of 6 requests answered, 0 failed")
    # The last command about the cursor shows the cursor.
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_log_lines_stand_above_the_bars(sandbox, attach, monkeypatch, caplog):
    """No line is broken or repeated; the summary in the log replaces the summary of the display."""
    terminal = attach()
    handler = logging.StreamHandler(terminal.file)
    logger = logging.getLogger("distilabel")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, "distilabel")
    sandbox.configure(in_progress_seconds=0.3)
    generate(max_requests_per_job=3)
    lines = screen(terminal.close())
    assert handler.stream is terminal.file
    submitted = [line for line in lines if line.startswith("📤 Submitted job")]
    assert len(submitted) == 2
    assert all("3 requests of 6 so far" in line for line in submitted)
    assert [line for line in lines if "🏁" in line] == [line for line in lines if line.startswith("🏁 6 of 6")]
    assert not [line for line in lines if "━" in line]


def test_answers_from_the_ledger_leave_a_summary_of_their_own(sandbox, attach):
    terminal = attach()
    generate()
    generate()
    first, second = screen(terminal.close())
    assert first.startswith("🏁 6 of 6 requests answered, 0 failed")
    assert second.startswith("🏁 6 of 6 requests answered, 0 failed")
    assert "; 0 jobs; 6 reused;" in second


def test_synchronous_requests_have_one_bar_for_all(sandbox, attach):
    terminal = attach()
    generate(sync_below=100)
    written = terminal.close()
    assert re.search(r"all ━+ 0/6 +ETA", strip_escapes(written))
    assert screen(written)[0].startswith("🏁 6 of 6")


def test_a_script_in_a_terminal_leaves_its_output_and_the_summary(sandbox, tmp_path):
    """stdout goes to its pipe, and the API key appears nowhere."""
    sandbox.configure(in_progress_seconds=0.3)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from distilabel_openai_batch import OpenAIBatchLLM

            llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
            llm.load()
            outputs = llm.generate([[{"role": "user", "content": f"Say number {i}."}] for i in range(3)])
            print(len(outputs))
            """
        )
    )
    terminal = Terminal()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", PROGRESS_ENV_NAME)}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", script],
        stdout=subprocess.PIPE,
        stderr=terminal.file,
        env=environment | {"TERM": "xterm", "COLUMNS": "100"},
        check=False,
        timeout=60,
    )
    written = terminal.close()
    assert ran.returncode == 0, written
    assert ran.stdout == b"3\n"
    assert "0 of 1 ended" in written
    assert screen(written)[-1].startswith("🏁 3 of 3 requests answered")
    assert API_KEY not in written


def test_the_durations_of_past_jobs_are_logged_at_the_first_submission(sandbox, caplog):
    """Two jobs say nothing yet; with four, a run has one such line."""
    caplog.set_level("INFO")
    for number in range(3):
        caplog.clear()
        generate(max_requests_per_job=3, reuse_answers=False)
        lines = [message for message in caplog.messages if "Half of the last" in message]
        assert len(lines) == (number >= 2)
    assert "Half of the last 4 jobs with gpt-4o-mini took at most" in lines[0]
