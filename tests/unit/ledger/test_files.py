"""Location of the ledger, lock files, and translation of SQLite's exceptions."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import filelock
import pytest

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger import files
from distilabel_openai_batch.ledger.files import (
    DIRECTORY_ENV_NAME,
    FILE_NAME,
    check_locks,
    is_locked,
    ledger_directory,
    lock_errors_translated,
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
        (sqlite3.OperationalError("no such table"), "cannot be used: no such table. Nothing in it was overwritten."),
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


@pytest.mark.parametrize("message", ["locking protocol", "disk I/O error", "database is locked"])
def test_an_sqlite_error_of_a_file_system_without_locks_or_shared_memory_names_the_ledgers_directory(message):
    with (
        pytest.raises(
            LedgerError, match=rf"{message}\. .*file system .*`ledger_dir`.*--ledger-dir.*{DIRECTORY_ENV_NAME}"
        ),
        sqlite_errors_translated(Path("/ledger/file")),
    ):
        raise sqlite3.OperationalError(message)


@pytest.mark.parametrize("call", ["flock", "lockf"])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_locks_is_an_error_that_names_the_ledgers_directory(tmp_path, monkeypatch, call, number):
    """SQLite locks with `lockf`, the session with `flock`."""

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, call, fail)
    with pytest.raises(LedgerError, match=rf"{os.strerror(number)}\. .*local disk: `ledger_dir`"):
        check_locks(tmp_path / FILE_NAME, tmp_path)


def test_the_check_of_the_locks_leaves_no_file(tmp_path):
    check_locks(tmp_path / FILE_NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("FileSystem does not support flock.")]
)
def test_a_lock_that_the_file_system_refuses_is_a_ledger_error(error):
    """Releases of `filelock` raise different exceptions."""
    with pytest.raises(LedgerError, match="`ledger_dir`"), lock_errors_translated(Path("/ledger/file")):
        raise error


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), filelock.Timeout("/lock")])
def test_another_error_of_a_lock_is_not_translated(error):
    with pytest.raises(type(error)), lock_errors_translated(Path("/ledger/file")):
        raise error


def test_another_exception_is_not_translated():
    with pytest.raises(KeyError), sqlite_errors_translated(Path("/ledger/file")):
        raise KeyError
