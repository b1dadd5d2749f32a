"""Opening of the ledger file: each damaged, external or locked file is one clear error, and stays unchanged."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys

import filelock
import pytest

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger import connection as connection_module
from distilabel_openai_batch.ledger import files
from distilabel_openai_batch.ledger.connection import PAGE_BYTES, Connection, check_file_system, open_database
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from tests.support.environment import ROOT
from tests.support.limited_sqlite import UnsharedConnection, connect_with
from tests.unit.ledger.samples import SCOPE, make_shard


@pytest.fixture
def path(tmp_path):
    """A ledger file with 2,000 requests, closed."""
    ledger = Ledger(tmp_path, SCOPE)
    ledger.jobs.plan(make_shard(*(f"{n}-0" for n in range(2_000))))
    ledger.close()
    return tmp_path / FILE_NAME


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_last_page_off(path):
    os.truncate(path, path.stat().st_size - 1)


def overwrite(path):
    path.write_bytes(b"This is a letter, not a ledger.\n" * 200)


def scramble(path):
    """Overwrite the first page behind the file header: the page lists the tables."""
    with path.open("r+b") as file:
        file.seek(200)
        file.write(os.urandom(PAGE_BYTES - 200))


def replace_with_other_database(path):
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE letters (text)")


def raise_schema_version(path):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")


DAMAGES = {
    "cut off": (cut_off, "damaged"),
    "cut off in the last page": (cut_last_page_off, "damaged: the file is shorter than its header says"),
    "not a database": (overwrite, "damaged, or is no ledger"),
    "scrambled": (scramble, "damaged"),
    "another program's": (replace_with_other_database, "another program"),
    "a newer version's": (raise_schema_version, "newer release"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_file_that_is_no_ledger_is_an_error_and_stays_unchanged(path, case):
    """The error names the file and the way out."""
    damage, words = DAMAGES[case]
    damage(path)
    before = path.read_bytes()

    with pytest.raises(LedgerError, match=words) as raised:
        Ledger(path.parent, SCOPE).requests.look_up([f"{n}-0" for n in range(2_000)])

    assert str(path) in str(raised.value)
    assert path.read_bytes() == before


def test_a_file_that_another_program_locks_is_an_error(path, monkeypatch):
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(LedgerError, match=r"locked\. Is another program holding it"):
            Ledger(path.parent, SCOPE)
    finally:
        holder.close()


@pytest.mark.parametrize("error", ["", "locking protocol", "disk I/O error"])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_system_without_shared_memory_is_an_error(path, tmp_path, monkeypatch, error, is_new):
    """No other journal mode replaces the write-ahead log; the content stays."""
    monkeypatch.setattr(UnsharedConnection, "error", error)
    directory = tmp_path / "new" if is_new else path.parent
    with monkeypatch.context() as patch:
        connect_with(patch, UnsharedConnection)
        with pytest.raises(LedgerError, match=r"local disk: `ledger_dir`.*--ledger-dir"):
            Ledger(directory, SCOPE)
        with pytest.raises(LedgerError, match=r"local disk: `ledger_dir`"):
            check_file_system(directory / FILE_NAME, directory)
    ledger = Ledger(directory, SCOPE)
    assert len(ledger.requests.look_up([f"{n}-0" for n in range(2_000)])) == (0 if is_new else 2_000)
    ledger.close()


def test_a_file_system_without_locks_is_an_error(path, monkeypatch):
    """SQLite would wait for a minute, and an old `filelock` would take each dead owner for a living one."""

    def fail(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", fail)
    with pytest.raises(LedgerError, match=r"No locks available\. .*local disk: `ledger_dir`"):
        Ledger(path.parent, SCOPE)


def test_locks_that_fail_later_are_an_error(path, monkeypatch):
    """The lock service of a network file system may go away."""

    def fail(*arguments, **settings):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.raises(LedgerError, match=r"No locks available\. .*local disk: `ledger_dir`"):
        Ledger(path.parent, SCOPE)
    with pytest.raises(LedgerError, match=r"No locks available\. .*local disk: `ledger_dir`"):
        Connection(path, path.with_name("opening.lock"))


def test_the_check_of_a_file_system_leaves_no_file(tmp_path):
    check_file_system(tmp_path / FILE_NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_session_keeps_opening_is_an_error(path, monkeypatch):
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.1)
    with (
        filelock.FileLock(path.parent / "owners" / "opening.lock"),
        pytest.raises(LedgerError, match="another process has been opening it"),
    ):
        Ledger(path.parent, SCOPE)


def test_a_killed_sessions_intents_are_in_the_write_ahead_log(tmp_path):
    """The ledger file is then shorter than its content, which is no damage."""
    script = (
        "import os, pathlib, sys; from distilabel_openai_batch.ledger.ledger import Ledger;"
        " from tests.unit.ledger.samples import SCOPE, make_shard;"
        " ledger = Ledger(pathlib.Path(sys.argv[1]), SCOPE); ledger.jobs.plan(make_shard('a-0', 'b-0'));"
        " os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / FILE_NAME).stat().st_size <= PAGE_BYTES < (tmp_path / f"{FILE_NAME}-wal").stat().st_size

    database = open_database(tmp_path / FILE_NAME)
    assert database.execute("SELECT custom_id FROM requests").fetchall() == [("a-0",), ("b-0",)]
    database.close()


def test_a_transaction_that_raises_changes_nothing(path, tmp_path):
    connection = Connection(path, tmp_path / "opening.lock")

    def count() -> int:
        with connection.reading() as database:
            return database.execute("SELECT count(*) FROM requests").fetchone()[0]

    def delete_and_raise() -> None:
        with connection.transaction() as database:
            database.execute("DELETE FROM requests")
            raise KeyError

    with pytest.raises(KeyError):
        delete_and_raise()
    assert count() == 2_000

    with connection.transaction() as database:
        database.execute("DELETE FROM requests WHERE id = 1")
    assert count() == 1_999
    connection.close()


def test_an_sqlite_error_is_a_ledger_error(path, tmp_path):
    connection = Connection(path, tmp_path / "opening.lock")
    with pytest.raises(LedgerError, match="no such table"), connection.reading() as database:
        database.execute("SELECT * FROM letters")
    connection.close()


def test_an_intent_is_on_the_disk_after_each_transaction(path):
    """`synchronous=FULL` (2) syncs the write-ahead log at each commit."""
    database = open_database(path)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    database.close()
