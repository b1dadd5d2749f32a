"""Progress where it runs: in a terminal, and nowhere that it would be debris."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.display.live import PROGRESS_ENV_NAME, display
from distilabel_openai_batch.engine import calls
from tests.support.environment import API_KEY

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]


class Terminal:
    """A pseudo-terminal, and what is written to it.

    Attributes:
        file: its other end, for the program.
    """

    def __init__(self) -> None:
        self._end, other = pty.openpty()
        self.file = open(other, "w", buffering=1, encoding="utf-8")  # noqa: SIM115  # closed by `close`
        self._written: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while some := os.read(self._end, 65_536):
                self._written.append(some)
        except OSError:
            # What Linux says of a terminal that nobody has open any more.
            return

    def close(self) -> str:
        """All that was written."""
        if not self.file.closed:
            self.file.close()
            self._reader.join(10)
            os.close(self._end)
        return b"".join(self._written).decode()


def screen(written: str) -> list[str]:
    """What a terminal shows after all that was written: rich moves up, erases lines, and writes them anew."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.endswith("A") and part[0] == "\x1b":
            row -= int(part[2:-1] or 1)
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def plain(written: str) -> str:
    """Without colours and the like."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written)


@pytest.fixture
def terminal(monkeypatch, caplog) -> Iterator[Callable[[], Terminal]]:
    """Makes stderr one, when it is called: before the test begins, pytest would take it away again."""
    made = Terminal()
    # A pipeline that an earlier test ran has its log's level changed for good.
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("CI", PROGRESS_ENV_NAME, "DISTILABEL_PIPELINE_NAME"):
        monkeypatch.delenv(name, raising=False)

    def attach() -> Terminal:
        monkeypatch.setattr(sys, "stderr", made.file)
        return made

    yield attach
    made.close()


def ask(questions=QUESTIONS, **fields) -> None:
    calls._scopes.clear()
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, **fields)
    llm.load()
    llm.generate(questions)


def test_a_script_shows_a_bar_for_each_job_and_one_for_all(sandbox, terminal):
    """While it waits; in the end one line is left."""
    terminal = terminal()
    sandbox.configure(in_progress_seconds=0.3)
    ask(max_requests_per_job=3)
    written = terminal.close()
    assert re.search(r"all +━+ 0/6 0 of 1 ended ETA –\s+…\w{11} ━+ 0/3 ", plain(written))
    assert re.search(r"all +[━╸╺]+ \d/6 2 of 2 ended ", plain(written))
    assert written.count("in_progress") > 1
    [line] = screen(written)
    assert line.startswith("🏁 6 of 6 requests answered, 0 failed")
    # The cursor is back.
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_what_is_logged_meanwhile_stands_above(sandbox, terminal, monkeypatch, caplog):
    """Whole lines, by whichever handler, and none twice; the log's own end takes the place of the last line."""
    terminal = terminal()
    handler = logging.StreamHandler(terminal.file)
    logger = logging.getLogger("distilabel")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, "distilabel")
    sandbox.configure(in_progress_seconds=0.3)
    ask(max_requests_per_job=3)
    shown = screen(terminal.close())
    assert handler.stream is terminal.file
    submitted = [line for line in shown if line.startswith("📤 Submitted job")]
    assert len(submitted) == 2
    assert all(line.endswith("requests so far.") for line in submitted)
    assert [line for line in shown if "🏁" in line] == [line for line in shown if line.startswith("🏁 6 of 6")]
    assert not [line for line in shown if "━" in line]


def test_what_needs_no_job_needs_no_bar(sandbox, terminal):
    """Answers from the ledger are there at once."""
    terminal = terminal()
    ask()
    before = len(terminal._written)
    ask()
    assert terminal._written[before:] == []


def test_what_is_asked_at_once_has_a_bar_too(sandbox, terminal):
    """One for all."""
    terminal = terminal()
    ask(sync_below=100)
    written = terminal.close()
    assert re.search(r"all ━+ 0/6 +ETA", plain(written))
    assert screen(written)[0].startswith("🏁 6 of 6")


def test_one_run_at_a_time_has_the_terminal(terminal):
    """A second one, in another thread, draws nothing."""
    terminal = terminal()
    first, second = (display(logging.getLogger("test.display")) for _ in range(2))
    first.show([], 0, 1)
    second.show([], 0, 1)
    second.close("second")
    first.close("first")
    again = display(logging.getLogger("test.display"))
    again.show([], 0, 1)
    again.close("again")
    assert screen(terminal.close()) == ["first", "again"]


@pytest.mark.parametrize(
    ("name", "value"), [(PROGRESS_ENV_NAME, "0"), ("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown")]
)
def test_no_bar_where_none_is_wanted(terminal, monkeypatch, name, value):
    """By the user, in CI, or by the terminal."""
    terminal = terminal()
    assert display(logging.getLogger("test.display")) is not None
    monkeypatch.setenv(name, value)
    assert display(logging.getLogger("test.display")) is None


def test_no_bar_where_there_is_no_terminal(monkeypatch, tmp_path):
    """A file, a pipe, nothing at all."""
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        assert display(logging.getLogger("test.display")) is None
    monkeypatch.setattr(sys, "stderr", None)
    assert display(logging.getLogger("test.display")) is None


def test_a_script_in_a_terminal(sandbox, tmp_path):
    """As users run it: what it prints goes where it should, and the bars are gone in the end."""
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
