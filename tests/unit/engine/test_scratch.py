"""Scratch files and their directories, and request bodies on the disk."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.scratch import BodyStore, remove_leftovers, scratch_directory, scratch_file


@given(bodies=st.lists(st.binary(max_size=50), max_size=20), order=st.randoms())
def test_stored_bodies_are_read_in_any_order(tmp_path_factory, bodies, order):
    """Bodies can be read while others are added."""
    store = BodyStore(tmp_path_factory.mktemp("store") / "bodies")
    added = []
    for body in bodies:
        added.append((store.add(body), body))
        stored, expected = order.choice(added)
        assert bytes(stored) == expected
        assert len(stored) == len(expected)
    order.shuffle(added)
    assert [bytes(stored) for stored, _ in added] == [body for _, body in added]
    store.close()


def test_the_size_of_a_request_is_the_size_of_its_line(tmp_path):
    """The body may be in memory or on the disk."""
    store = BodyStore(tmp_path / "bodies")
    for body in (b'{"a":1}', store.add(b'{"a":1}')):
        request = Request("0-0", "/v1/chat/completions", "m", body)
        assert request.size == len(request.line())
        assert request.line().endswith(b'"body":{"a":1}}\n')
    store.close()


@pytest.mark.parametrize("is_written", [True, False])
def test_a_scratch_file_is_deleted_at_the_end_of_the_context(tmp_path, is_written):
    with scratch_file(tmp_path) as path:
        if is_written:
            path.write_bytes(b"text")
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_file_is_deleted_after_an_error(tmp_path):
    def fail() -> None:
        with scratch_file(tmp_path) as path:
            path.write_bytes(b"text")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


# Directories of sessions.

KILLED_OWNER = """
import os, signal
from distilabel_openai_batch.engine.scratch import scratch_directory
with scratch_directory() as directory:
    (directory / "bodies").write_text("a private prompt")
    print(directory, flush=True)
    os.kill(os.getpid(), signal.{signal})
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Make a directory the system's temporary directory, for this process and its children."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def leave_directory(kind: str = "SIGKILL") -> Path:
    """Return the directory of a process that a signal ended."""
    script = KILLED_OWNER.format(signal=kind)
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    directory = Path(killed.stdout.strip())
    assert killed.returncode == -getattr(signal, kind)
    assert (directory / "bodies").exists()
    return directory


def test_a_scratch_directory_is_private_and_deleted_at_the_end(temporary):
    with scratch_directory() as directory:
        assert directory.parent == temporary
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()] == [0o600]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
def test_the_next_scratch_directory_deletes_those_of_dead_processes(temporary, kind):
    leftovers = [leave_directory(kind)]
    with scratch_directory() as directory:
        assert list(temporary.iterdir()) == [directory]
    assert not leftovers[0].exists()


def test_leftovers_are_counted(temporary):
    leave_directory()
    assert (remove_leftovers(), remove_leftovers()) == (1, 0)


def test_the_directory_of_a_living_process_is_kept(temporary):
    script = KILLED_OWNER.format(signal="SIGSTOP")
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        directory = Path(owner.stdout.readline().strip())
        assert remove_leftovers() == 0
        assert (directory / "bodies").exists()
    finally:
        owner.kill()
        owner.communicate()
    assert remove_leftovers() == 1


def test_sessions_of_one_process_keep_each_others_directories(temporary):
    with scratch_directory() as first, scratch_directory() as second:
        assert remove_leftovers() == 0
        assert {first, second} == set(temporary.iterdir())


def test_only_locked_directories_of_this_user_and_machine_are_deleted(temporary, monkeypatch):
    """The owner of a directory without its lock may be about to lock the directory."""
    leftover = leave_directory()
    without_lock = temporary / "distilabel-openai-batch-new"
    without_lock.mkdir()
    (without_lock / "owner.new").touch()
    of_other_machine = temporary / "distilabel-openai-batch-elsewhere"
    of_other_machine.mkdir()
    (of_other_machine / "owner-another-machine.lock").touch()
    of_other_program = temporary / "another-program"
    leftover_of_other_program = shutil.copytree(leftover, of_other_program)
    (temporary / "distilabel-openai-batch-link").symlink_to(of_other_program)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: leftover.stat().st_uid + 1)
        assert remove_leftovers() == 0
    assert remove_leftovers() == 1
    assert not leftover.exists()
    assert without_lock.exists()
    assert of_other_machine.exists()
    assert (leftover_of_other_program / "bodies").exists()


@pytest.mark.parametrize("name", ["owner.new", None])
def test_a_directory_that_was_never_locked_is_deleted_after_a_day(temporary, name):
    """A directory with any other file belongs to another program."""
    directories = [temporary / f"distilabel-openai-batch-{kind}" for kind in ("old", "new", "other")]
    for directory in directories:
        directory.mkdir()
        if name:
            (directory / name).touch()
    old, new, other = directories
    (other / "notes").touch()
    long_ago = time.time() - 90_000
    for directory in (old, other):
        os.utime(directory, (long_ago, long_ago))
    assert remove_leftovers() == 1
    assert set(temporary.iterdir()) == {new, other}


def test_a_lock_that_is_a_link_is_kept(temporary):
    directory = leave_directory()
    [lock] = directory.glob("owner-*.lock")
    lock.unlink()
    lock.symlink_to(temporary / "elsewhere")
    assert remove_leftovers() == 0
    assert not (temporary / "elsewhere").exists()
