"""All commands with hostile texts in each field that a server, a script or another member of the project gives."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import httpx
import pytest
import respx
from rich.text import Text

from distilabel_openai_batch.api.outcomes import build_result_line
from distilabel_openai_batch.cli import arguments
from distilabel_openai_batch.display.layout import coloured_status, markup
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.text import printable
from tests.support.commands import run_command
from tests.support.hostile import HOSTILE, is_harmless
from tests.support.ledgers import LedgerWriter

URL = "https://api.example.com/v1/"
SCOPE = f"{HOSTILE}/{HOSTILE}"
ENDED, OPEN = f"batch_1{HOSTILE}", "batch_2"


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Write a ledger whose texts are all hostile, and return its option; the open job's id can be part of a URL."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope(HOSTILE, HOSTILE, URL)
        failures = [(400, HOSTILE, HOSTILE)]
        writer.job(scope, 0.0, requests=5, answered=3, model=HOSTILE, error=HOSTILE, failures=failures)
        writer.job(scope, 9.0, requests=5, status="in_progress", model=HOSTILE, error=HOSTILE)
        writer.job(scope, 9.0, requests=5, status="in_progress", model=HOSTILE)
    line = build_result_line(HOSTILE, {"model": HOSTILE, "choices": [{"message": {"content": HOSTILE}}]})
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as database:
        database.execute("UPDATE jobs SET endpoint = ?, input_file_id = ?", (HOSTILE, HOSTILE))
        database.execute("UPDATE jobs SET batch_id = ?, status = ? WHERE id = 1", (ENDED, HOSTILE))
        database.execute("UPDATE jobs SET batch_id = ?, status = ? WHERE id = 2", (OPEN, HOSTILE))
        database.execute("UPDATE jobs SET batch_id = NULL, state = 'planned', owner = 'dead' WHERE id = 3")
        database.execute("UPDATE requests SET custom_id = custom_id || ?", (HOSTILE,))
        database.execute("UPDATE answers SET line = ?", (line,))
    return ("--ledger-dir", tmp_path)


@pytest.fixture
def server():
    """Return a server of which each field of a batch is hostile, apart from the id."""
    errors = {"data": [{"code": HOSTILE, "message": HOSTILE, "param": HOSTILE, "line": 1}]}
    batch = {
        "id": OPEN,
        "status": "failed",
        "endpoint": HOSTILE,
        "model": HOSTILE,
        "errors": errors,
        "input_file_id": "file-1",
        "metadata": {HOSTILE: HOSTILE},
    }
    request = {"custom_id": HOSTILE, "method": "POST", "url": HOSTILE, "body": {"model": HOSTILE, "messages": []}}
    with respx.mock(base_url=URL, assert_all_called=False) as router:
        router.get(f"batches/{OPEN}").respond(json=batch)
        router.post(f"batches/{OPEN}/cancel").respond(json=batch)
        router.get("batches").respond(json={"data": [batch]})
        router.get("files").respond(json={"data": [{"id": "file-1", "filename": HOSTILE}]})
        router.get("files/file-1/content").respond(content=json.dumps(request).encode())
        yield router


READING = {
    "jobs": ["jobs"],
    "costs": ["costs"],
    "failures": ["failures"],
    "show the ended job": ["show", ENDED],
    "show the open job": ["show", OPEN],
    "results": ["results", SCOPE],
    "an unknown scope": ["jobs", f"{HOSTILE}?"],
    "an unknown batch": ["show", f"{HOSTILE}?"],
}
POLLING = {
    "jobs --look": ["jobs", "--look"],
    "show --look": ["show", OPEN, "--look"],
    "watch": ["watch", "--interval", "0.05"],
    "cancel": ["cancel", OPEN, "-y"],
    "cancel an ended job": ["cancel", ENDED, "-y"],
    "cancel --all": ["cancel", "--all", "-y"],
    "adopt": ["adopt", OPEN, SCOPE],
    "forget": ["forget", SCOPE, "-y"],
    "forget --lost": ["forget", SCOPE, "--lost", "-y"],
    "doctor": ["doctor", "--base-url", URL],
}


@pytest.mark.parametrize("command", READING.values(), ids=READING.keys())
def test_commands_that_read_the_ledger_print_no_control_characters(ledger, command):
    result = run_command(*command, *ledger)
    assert is_harmless(result.output)
    assert "\\x1b" in result.output or "\\u001b" in result.output


@pytest.mark.parametrize("command", POLLING.values(), ids=POLLING.keys())
def test_commands_that_call_the_server_print_no_control_characters(ledger, server, command):
    assert is_harmless(run_command(*command, *ledger).output)


@pytest.mark.parametrize("command", POLLING.values(), ids=POLLING.keys())
def test_refusals_of_the_server_are_printed_without_control_characters(ledger, command):
    error = {"error": {"message": HOSTILE, "code": HOSTILE, "type": HOSTILE, "param": HOSTILE}}
    with respx.mock(assert_all_called=False) as router:
        router.route().mock(return_value=httpx.Response(400, json=error))
        assert is_harmless(run_command(*command, *ledger).output)


@pytest.mark.parametrize(
    ("command", "find"),
    [
        (["jobs", "--json"], lambda value: value[0]["batch_id"]),
        (["show", ENDED, "--json"], lambda value: value["batch_id"]),
        (["costs", "--json"], lambda value: "batch_1" + value["scopes"][0]["model"]),
        (["failures", "--jsonl"], lambda value: "batch_1" + value["message"]),
        (["results", SCOPE], lambda value: "batch_1" + value["generations"][0]),
    ],
    ids=["jobs", "show", "costs", "failures", "results"],
)
def test_json_output_has_no_control_characters_and_the_unchanged_texts(ledger, command, find):
    output = run_command(*command, *ledger).stdout
    assert is_harmless(output)
    first = output if command[-1] == "--json" else output.partition("\n")[0]
    assert find(json.loads(first)) == ENDED


def test_the_report_has_no_control_characters(ledger, tmp_path, monkeypatch):
    pytest.importorskip("vl_convert")
    run_command("report", "-o", tmp_path / "report.html", *ledger)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert is_harmless(html)
    assert "gpt\\u202egnp.exe" in html


def test_names_with_control_characters_are_not_completed(ledger, monkeypatch, tmp_path):
    """A shell prints the completions as they are."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    assert arguments.complete_scope("") == []
    assert arguments.complete_batch("") == [OPEN]


def test_cells_of_tables_show_markup_and_control_characters_as_they_are():
    assert Text.from_markup(markup(HOSTILE)).plain == printable(HOSTILE)
    assert Text.from_markup(coloured_status(HOSTILE)).plain == printable(HOSTILE)
