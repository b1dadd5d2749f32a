"""Tests of `watch`, `cancel`, `adopt` and `forget` up to the first call of a server."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.support.commands import add_scope, run_command
from tests.support.ledgers import LedgerWriter


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    """Remove keys and addresses from the environment: the error about the key names the server."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ledger(tmp_path):
    """Write a ledger with a completed and an open job, and return its option."""
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("preferences", "generate", "http://one/v1/")
        writer.job(scope, 0.0, requests=3, answered=2)
        writer.job(scope, 0.0, requests=5, status="in_progress")
    return ("--ledger-dir", tmp_path)


@pytest.fixture
def dropped_batch(tmp_path):
    """Write a ledger with a collected and a dropped batch of one scope, and return its option."""
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("preferences", "generate", "http://one/v1/")
        writer.job(scope, 0.0, requests=3, answered=2)
        job = writer.job(scope, 60.0, requests=5, status="failed", error="There is no such model.")
        writer._database.execute("UPDATE jobs SET state = 'dropped' WHERE id = ?", (job,))
    return ("--ledger-dir", tmp_path)


@pytest.mark.parametrize("name", ["preferences", f"batch_{2:024x}", f"{2:08x}"])
def test_watch_tells_what_became_of_a_dropped_batch(dropped_batch, name):
    result = run_command("watch", name, *dropped_batch)
    assert result.exit_code == 1
    assert result.stdout == "No open jobs.\n"
    assert f"Batch batch_{2:024x} of preferences/generate is watched no longer" in result.stderr
    assert "status is failed, and a run has dropped the batch. There is no such model. When the" in result.stderr


def test_watch_tells_what_became_of_a_collected_batch(dropped_batch):
    """An earlier batch that a run dropped is no news where no name selects the batch."""
    result = run_command("watch", f"batch_{1:024x}", *dropped_batch)
    assert result.exit_code == 0
    assert "`results preferences/generate` writes the answers" in result.stderr
    silent = run_command("watch", *dropped_batch)
    assert (silent.exit_code, silent.stdout, silent.stderr) == (0, "No open jobs.\n", "")


def test_cancel_takes_batch_ids_or_all(ledger):
    for arguments in ([], [f"batch_{1:024x}", "--all"]):
        result = run_command("cancel", *arguments, *ledger)
        assert result.exit_code == 2
        assert "Give batch ids, scopes or --all." in result.output


def test_cancel_reports_a_job_that_has_ended(ledger):
    result = run_command("cancel", f"batch_{1:024x}", *ledger)
    assert result.stdout == f"batch_{1:024x} has ended already with status completed.\n"


def test_forget_prints_what_it_drops_and_keeps_before_it_asks(ledger):
    result = run_command("forget", "preferences", *ledger, input="n\n")
    assert "1 failed request; 5 requests in progress, which stay." in result.stderr
    result = run_command("forget", "preferences", "--lost", *ledger, input="n\n")
    assert "5 requests in progress, which stay if the server knows their batch." in result.stderr


def test_adopt_uses_the_scope_of_the_ledger_or_the_default_server(tmp_path, monkeypatch):
    add_scope(tmp_path, "preferences", "generate", "http://one/v1/")
    arguments = ["adopt", "batch_1", "preferences/generate", "--ledger-dir", tmp_path]
    assert "no key for http://one/v1/:" in run_command(*arguments).stderr
    assert "no key for http://two/v1/:" in run_command(*arguments, "--base-url", "http://two/v1").stderr
    arguments[2] = "other"
    assert "no key for https://api.openai.com/v1/:" in run_command(*arguments).stderr
    monkeypatch.setenv("OPENAI_BASE_URL", "http://three/v1")
    assert "no key for http://three/v1/:" in run_command(*arguments).stderr
