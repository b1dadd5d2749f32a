"""Locks of sessions: a session is alive as long as its process holds its lock file."""

from __future__ import annotations

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.owners import Owners, is_owner_alive, lock_path


@pytest.fixture
def owners(tmp_path):
    owners = Owners(tmp_path)
    yield owners
    owners.release()


def test_a_registered_session_is_alive(owners, tmp_path):
    other = Owners(tmp_path)
    assert other.is_alive(owners.own_id)
    assert is_owner_alive(lock_path(tmp_path, owners.own_id))
    other.release()


def test_a_released_session_is_dead(owners, tmp_path):
    other = Owners(tmp_path)
    other.release()
    assert not owners.is_alive(other.own_id)
    assert not is_owner_alive(lock_path(tmp_path, other.own_id))


def test_a_killed_session_is_dead(owners, tmp_path):
    """The killed process leaves its lock file, which `is_owner_alive` keeps and `is_alive` removes."""
    script = (
        "import os, pathlib, sys; from distilabel_openai_batch.ledger.owners import Owners;"
        " owners = Owners(pathlib.Path(sys.argv[1])); print(owners.own_id, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True).stdout.strip()
    lock = lock_path(tmp_path, killed)
    assert lock.exists()
    assert not is_owner_alive(lock)
    assert lock.exists()
    assert not owners.is_alive(killed)
    assert not lock.exists()


def test_a_session_is_dead_although_a_process_that_it_forked_lives(owners, tmp_path):
    """Helpers such as a pool's workers outlive a killed parent; they must not hold its lock."""
    script = (
        "import os, pathlib, sys; from distilabel_openai_batch.ledger.owners import Owners;"
        " owners = Owners(pathlib.Path(sys.argv[1])); parent = os.fork();"
        " os.write(1, (owners.own_id + '\\n').encode() if parent else b'forked\\n'); parent or sys.stdin.read();"
        " os.kill(os.getpid(), 9)"
    )
    session = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    # The forked process has closed its copy of the lock when it writes. Each line is one write, which no other
    # process's write divides.
    [killed] = {session.stdout.readline().strip() for _ in range(2)} - {"forked"}
    session.wait()
    try:
        assert lock_path(tmp_path, killed).exists()
        assert not owners.is_alive(killed)
    finally:
        # The end of the input ends the forked process.
        session.communicate()


def test_threads_that_test_one_dead_owner_at_once_agree(owners, tmp_path):
    """A thread's test of the lock holds the lock for a moment; no other thread takes that for the owner."""
    lock = lock_path(tmp_path, "dead")
    with ThreadPoolExecutor(16) as threads:
        for _ in range(20):
            lock.touch()
            assert not any(threads.map(owners.is_alive, ["dead"] * 16))


def test_a_file_system_that_loses_its_locks_is_an_error_for_a_session(owners, tmp_path, monkeypatch):
    """No owner may be taken for dead; a reader reports no owner, since no session can write there."""
    lock = lock_path(tmp_path, "owner")
    lock.touch()

    def fail(path):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("distilabel_openai_batch.ledger.owners.is_locked", fail)
    with pytest.raises(LedgerError, match="`ledger_dir`"):
        owners.is_alive("owner")
    assert not is_owner_alive(lock)


def test_an_unreadable_lock_has_no_owner(tmp_path, monkeypatch):
    """In a read-only directory the lock cannot be tested, and no session can write."""
    lock = tmp_path / "owner.lock"
    lock.touch()

    def fail(path):
        raise PermissionError

    monkeypatch.setattr("distilabel_openai_batch.ledger.owners.is_locked", fail)
    assert not is_owner_alive(lock)
