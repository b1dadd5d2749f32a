"""Location of the ledger, lock files, and translation of SQLite's exceptions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import filelock
import pytest

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.files import (
    DIRECTORY_ENV_NAME,
    is_locked,
    ledger_directory,
    sqlite_errors_translated,
)


def test_the_directory_is_the_choice_then_the_environment_then_the_default(monkeypatch):
    monkeypatch.setenv(DIRECTORY_ENV_NAME, "/from/environment")
    assert ledger_directory("/chosen") == Path("/chosen")
    assert ledger_directory() == ledger_directory("") == Path("/from/environment")
    monkeypatch.delenv(DIRECTORY_ENV_NAME)
    assert ledger_directory() == Path.home() / ".cache/distilabel/openai_batch"


def test_an_unknown_home_directory_is_an_error(monkeypatch):
    def fail(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", fail)
    with pytest.raises(LedgerError, match=rf"~/ledger: the home directory is unknown.*\${DIRECTORY_ENV_NAME}"):
        ledger_directory("~/ledger")


def test_a_lock_is_locked_while_held(tmp_path):
    path = tmp_path / "owner.lock"
    lock = filelock.FileLock(path, thread_local=False)
    with lock:
        assert is_locked(path)
    assert not is_locked(path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.OperationalError("database is locked"), "cannot be used: database is locked. Is another program"),
        (sqlite3.OperationalError("disk I/O error"), "cannot be used: disk I/O error. Nothing in it was overwritten."),
        (sqlite3.DatabaseError("file is not a database"), "is damaged, or is no ledger: file is not a database."),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "is damaged, or is no ledger"),
    ],
)
def test_an_sqlite_error_names_the_file_and_the_way_out(error, words):
    with (
        pytest.raises(LedgerError, match="The ledger /ledger/file ") as raised,
        sqlite_errors_translated(Path("/ledger/file")),
    ):
        raise error
    assert words in str(raised.value)


def test_another_exception_is_not_translated():
    with pytest.raises(KeyError), sqlite_errors_translated(Path("/ledger/file")):
        raise KeyError
