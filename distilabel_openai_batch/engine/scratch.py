"""Scratch files of a session: their directory, the bodies of requests, and files that are needed for moments."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import filelock

_PREFIX = "distilabel-openai-batch-"
# The name of a lock file while its owner has not locked the file yet; no other process opens this name.
_NEW_LOCK = "owner.new"
# The name contains the machine: on a network's file system, a lock of another machine may look free.
_LOCK = f"owner-{platform.node()}.lock".replace("/", "_")

# A directory without a lock file: its owner died, or is about to lock the directory. No owner takes this long.
_LOCKING_SECONDS = 86_400.0

# The scratch directories of this process and, after a fork, of its parent; each with the id of its process.
_open_directories: dict[Path, int] = {}

# Bodies are added one by one, and most are read in the order in which they were added → few large writes and reads.
_WRITE_BYTES = 262_144
_READ_AHEAD_BYTES = 262_144


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Yield a new directory for prompts and answers, readable by its user only, and delete it when the context ends.

    A process that is killed leaves its directory; the next `scratch_directory` of any process deletes the leftovers. A
    process that exits without the end of the context calls `delete_open_directories` before.

    Raises:
        OSError: the temporary directory of the system cannot be written.
    """
    remove_leftovers()
    # Another process may delete a leftover with a free lock while this directory is deleted here.
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as temporary:
        directory = Path(temporary)
        # The lock file gets its name when the lock is held → a lock that looks free has a dead owner.
        lock = filelock.FileLock(directory / _NEW_LOCK, mode=0o600, thread_local=False)
        lock.acquire(blocking=False)
        try:
            (directory / _NEW_LOCK).rename(directory / _LOCK)
            _open_directories[directory] = os.getpid()
            yield directory
        finally:
            _open_directories.pop(directory, None)
            lock.release()


def delete_open_directories() -> None:
    """Delete the scratch directories of this process, which is about to exit without the end of their contexts."""
    for directory, process_id in list(_open_directories.items()):
        if process_id == os.getpid():
            shutil.rmtree(directory, ignore_errors=True)


def remove_leftovers() -> int:
    """Delete the scratch directories of this user whose process died on this machine.

    A directory without a lock file is kept for a day: its owner may be about to lock the directory.

    Returns:
        The number of deleted directories.
    """
    removed = 0
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with suppress(OSError):
                    removed += _remove_leftover(Path(entry.path))
    return removed


def _remove_leftover(directory: Path) -> bool:
    """Delete a scratch directory if its owner is dead.

    Returns:
        `True` if the directory was deleted.

    Raises:
        OSError: another process deletes the directory, or the directory has no lock.
    """
    if not _is_own(directory, stat.S_ISDIR):
        return False
    if _was_never_locked(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()
    lock_path = directory / _LOCK
    if not _is_own(lock_path, stat.S_ISREG):
        return False
    lock = filelock.FileLock(lock_path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    try:
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        lock.release()
    return not directory.exists()


def _was_never_locked(directory: Path) -> bool:
    """Return whether the owner of a scratch directory died before it locked the directory, and so wrote nothing."""
    is_old = time.time() - directory.stat().st_mtime > _LOCKING_SECONDS
    return is_old and {path.name for path in directory.iterdir()} <= {_NEW_LOCK}


def _is_own(path: Path, has_type: Callable[[int], bool]) -> bool:
    """Return whether a path is no symbolic link, has the type, and belongs to this user.

    Raises:
        OSError: nothing is there.
    """
    status = path.lstat()
    return has_type(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


@contextmanager
def scratch_file(directory: Path) -> Iterator[Path]:
    """Yield the path of a file that may be written, and delete the file when the context ends.

    The name is random: a text of a server, such as a key or an id, must not become a part of a path.

    Args:
        directory: the directory of the file, which only this user may write.
    """
    path = directory / uuid4().hex
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class BodyStore:
    """A file of request bodies, which would take most of the memory of a million requests.

    Args:
        path: the path of the file; a file that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._writer = path.open("wb", buffering=_WRITE_BYTES)
        self._reader = path.open("rb", buffering=_READ_AHEAD_BYTES)
        self._end = 0
        self._is_flushed = True

    def add(self, body: bytes) -> StoredBody:
        """Append a body to the file."""
        self._writer.write(body)
        self._is_flushed = False
        stored = StoredBody(self, self._end, len(body))
        self._end += len(body)
        return stored

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the file.

        Args:
            start: the offset of the first byte.
            length: the number of bytes.
        """
        if not self._is_flushed:
            self._writer.flush()
            self._is_flushed = True
        self._reader.seek(start)
        return self._reader.read(length)

    def close(self) -> None:
        """Close the file; its bodies can be read no more."""
        self._writer.close()
        self._reader.close()


class StoredBody:
    """A body in a `BodyStore`; `len` and `bytes` return those of the body itself.

    Args:
        store: the store.
        start: the offset of the body, in bytes.
        length: the length of the body, in bytes.
    """

    __slots__ = ("_length", "_start", "_store")

    def __init__(self, store: BodyStore, start: int, length: int) -> None:
        self._store = store
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return self._store.read(self._start, self._length)
