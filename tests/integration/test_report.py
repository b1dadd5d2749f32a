"""The command `report`, from a ledger on the disk to a page in a browser."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilabel_openai_batch.cli import app
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from tests.support import ledgers
from tests.support.browser import PAGE_FAULTS, started_browser
from tests.support.ledgers import START, LedgerWriter

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


@pytest.fixture
def drawing_library():
    """Skip a test if the extra `report` is not installed."""
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")


def write_report(directory: Path, tmp_path: Path, *arguments: str) -> Path:
    """Run the command and return the path of the page."""
    output = tmp_path / "report.html"
    command = ["report", *arguments, "-o", str(output), "--ledger-dir", str(directory)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return output


def write_hostile_ledger(directory: Path) -> None:
    """Write a ledger whose names and errors contain markup, a key and a password."""
    with closing(LedgerWriter(directory)) as writer:
        scope = writer.scope(HOSTILE, HOSTILE, "https://me:password-of-mine@example.com/v1/")
        failures = [(400, HOSTILE, f"{HOSTILE} The key sk-proj-abcdef0123456789 is wrong."), (500, None, "x" * 900)]
        facts = {"model": HOSTILE, "error": HOSTILE, "failures": failures, "known": False}
        writer.job(scope, 0, "expired", requests=30, answered=10, **facts)


def test_names_and_errors_are_text_without_keys_passwords_and_answers(drawing_library, tmp_path):
    write_hostile_ledger(tmp_path / "ledger")
    html = write_report(tmp_path / "ledger", tmp_path).read_text()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "abcdef0123456789" not in html
    assert "x" * 300 not in html
    assert "SECRET ANSWER" not in html
    assert "password-of-mine" not in html


def test_control_characters_do_not_end_the_process(drawing_library, tmp_path):
    """The drawing library ends the process at such a character, so the command runs in a process of its own."""
    with closing(LedgerWriter(tmp_path)) as writer:
        writer.job(writer.scope("a\x01b", "\x1b[31mred\x00\x9b\ufffe"), 0.0)
    output = tmp_path / "report.html"
    command = [sys.executable, "-c", "from distilabel_openai_batch.cli import app; app()"]
    ran = subprocess.run(
        [*command, "report", "-o", output, "--ledger-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "ab/[31mred 1" in output.read_text()


def test_the_page_has_no_address_that_a_browser_would_load(drawing_library, tmp_path):
    """The page's security policy forbids loading too."""
    ledgers.write_example_ledger(tmp_path / "ledger")
    html = write_report(tmp_path / "ledger", tmp_path).read_text()
    assert "default-src 'none'" in html
    loads = re.findall(r"""(?:src|href|xlink:href|action)\s*=\s*["']([^"']*)|url\(([^)]*)|@import""", html)
    assert {address for address, _ in loads} <= {"data:,"}
    assert {url for _, url in loads if url} == set()


def test_a_scope_selects_its_jobs_and_failures(drawing_library, tmp_path):
    ledgers.write_example_ledger(tmp_path / "ledger")
    html = write_report(tmp_path / "ledger", tmp_path, "preferences/judge").read_text()
    assert "<h1>preferences/judge</h1>" in html
    assert "preferences/generate" not in html


def test_a_page_of_2000_jobs_is_smaller_than_a_megabyte(drawing_library, tmp_path):
    """The table lists the latest hundred jobs."""
    ledgers.write_large_ledger(tmp_path / "ledger")
    path = write_report(tmp_path / "ledger", tmp_path)
    assert path.stat().st_size < 1_000_000
    html = path.read_text()
    assert html.count("batch_0") == 100
    assert "1,900 older jobs are left out" in html


def test_without_the_extra_the_error_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with closing(LedgerWriter(tmp_path)) as writer:
        writer.scope("preferences", "generate")
    arguments = ["report", "-o", str(tmp_path / "r.html"), "--ledger-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "pip install 'distilabel-openai-batch[report]'" in result.output
    # A mistyped scope is reported before the missing extra, whose installation would not help.
    result = CliRunner().invoke(app, [*arguments, "nosuch"])
    assert "has no scope nosuch. Its scopes: preferences/generate" in result.output
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("name", ["report.pdf", "report.png", "report.svg"])
def test_another_format_is_refused_with_the_way_to_print(tmp_path, name):
    result = CliRunner().invoke(app, ["report", "-o", str(tmp_path / name), "--ledger-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "the name has to end with .html" in result.output
    assert not (tmp_path / name).exists()


def test_a_file_that_cannot_be_written_is_named_in_the_error(drawing_library, tmp_path):
    LedgerWriter(tmp_path / "ledger").close()
    output = tmp_path / "nowhere" / "report.html"
    result = CliRunner().invoke(app, ["report", "-o", str(output), "--ledger-dir", str(tmp_path / "ledger")])
    assert result.exit_code == 1
    assert str(output) in result.output


def test_a_report_does_not_wait_for_a_run_that_writes(drawing_library, tmp_path):
    ledgers.write_example_ledger(tmp_path / "ledger")
    scope = ScopeName("preferences", "generate", "https://api.openai.com/v1/")
    with closing(Ledger(tmp_path / "ledger", scope)) as ledger, ledger.connection.transaction() as database:
        database.execute("UPDATE jobs SET requests = requests + 1")
        assert "5 completed" in re.sub(r"\s+", " ", write_report(tmp_path / "ledger", tmp_path).read_text())


def test_the_numbers_of_the_page_are_the_numbers_of_the_ledger(drawing_library, tmp_path, monkeypatch):
    ledgers.write_example_ledger(tmp_path / "ledger")
    monkeypatch.setattr(time, "time", lambda: START + 14_600)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    html = write_report(tmp_path / "ledger", tmp_path).read_text()
    monkeypatch.undo()
    time.tzset()
    scopes = LedgerReader(tmp_path / "ledger").scopes()
    for number in (sum(scope.answered for scope in scopes), sum(scope.failed for scope in scopes)):
        assert f"<strong>{number:,}</strong>" in html
    assert "24 Nov 2026, 07:00 to 11:03 CET (UTC+01:00), 4 h 03 min" in html
    assert "`" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    for words in ("5 completed", "1 expired", "1 cancelled", "1 failed"):
        assert words in re.sub(r"\s+", " ", html)


WIDTHS = {"wide": 1_280, "medium": 720, "narrow": 375, "small": 320}


@pytest.fixture(scope="module")
def browser():
    with started_browser() as browser:
        yield browser


def write_job_without_moments(directory: Path) -> None:
    """Write a ledger with one job whose server reported no moments."""
    with closing(LedgerWriter(directory)) as writer:
        writer.job(writer.scope("preferences", "generate"), 0, known=False, took=0.0, queued=0.0)


def write_empty_ledger(directory: Path) -> None:
    LedgerWriter(directory).close()


def write_synchronous_job(directory: Path) -> None:
    """Write a ledger with synchronous requests of a script with a long name."""
    with closing(LedgerWriter(directory)) as writer:
        scope = writer.scope("a script with a rather long name, longer than most charts of a report are wide.py", "")
        writer.job(scope, 0, known=False, requests=12, queued=1.0, took=9.0)
        writer._database.execute("UPDATE jobs SET batch_id = NULL, status = NULL")


@pytest.mark.parametrize(
    "write_ledger",
    [
        write_empty_ledger,
        write_job_without_moments,
        write_synchronous_job,
        write_hostile_ledger,
        ledgers.write_example_ledger,
        ledgers.write_large_ledger,
    ],
)
def test_a_page_is_legible_in_light_and_dark_at_every_width(
    drawing_library, browser, tmp_path, monkeypatch, write_ledger
):
    """No text is cut off or overlaps, and the browser sends no request and logs no error."""
    write_ledger(tmp_path / "ledger")
    monkeypatch.setattr(time, "time", lambda: START + 14_600)
    path = write_report(tmp_path / "ledger", tmp_path)
    backgrounds = set()
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1_280, "height": 900})
        events: list[str] = []
        page = context.new_page()
        page.on("request", lambda request, events=events: events.append(request.url))
        page.on("console", lambda message, events=events: events.append(message.text))
        page.on("pageerror", lambda error, events=events: events.append(str(error)))
        page.goto(path.as_uri())
        if page.locator("summary").count():
            page.locator("summary").click()
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for size, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(PAGE_FAULTS) == [], f"{scheme}, {size}"
        assert [event for event in events if not event.startswith("data:")] == [path.as_uri()]
        context.close()
    assert len(backgrounds) == 2
