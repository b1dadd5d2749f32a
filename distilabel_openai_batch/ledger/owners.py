"""Locks of sessions: a job's owner is alive as long as the owner's lock file is locked."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from uuid import uuid4

import filelock

from distilabel_openai_batch.ledger.files import FILE_NAME, is_locked, lock_errors_translated

OWNERS_FOLDER = "owners"
"""The folder of lock files, beside the ledger file."""

# A second thread's test of a lock holds the lock for a moment, which looks like a living owner: test one at a time.
_tests_lock = threading.Lock()


class Owners:
    """Lock files of the sessions that have the ledger open; creating an instance registers a session.

    Attributes:
        own_id: the id of this session, in the column `jobs.owner` of its jobs.

    Args:
        directory: the ledger's directory.

    Raises:
        LedgerError: the file system grants no lock.
        OSError: the lock file cannot be created.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / OWNERS_FOLDER
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self.own_id = uuid4().hex
        # The operating system frees the lock when the process dies, however the process dies.
        self._own_lock = filelock.FileLock(lock_path(directory, self.own_id), mode=0o600, thread_local=False)
        with self._lock_errors_translated():
            self._own_lock.acquire(blocking=False)

    @property
    def opening_lock_path(self) -> Path:
        """The lock file that serialises the opening of the ledger file."""
        return self._directory / "opening.lock"

    def _lock_errors_translated(self) -> AbstractContextManager[None]:
        return lock_errors_translated(self._directory.parent / FILE_NAME)

    def release(self) -> None:
        """Unregister this session: release and remove its lock file."""
        self._own_lock.release()
        with suppress(OSError):
            Path(self._own_lock.lock_file).unlink(missing_ok=True)

    def is_alive(self, owner: str) -> bool:
        """Return `True` if the session `owner` is registered and its process lives; remove a dead session's lock file.

        Args:
            owner: a session's id.

        Raises:
            LedgerError: the file system grants no lock.
        """
        path = self._directory / f"{owner}.lock"
        if not path.exists():
            return False
        with _tests_lock, self._lock_errors_translated():
            if is_locked(path):
                # If another process tested the lock and removed the file, that process held the lock, not the owner.
                return path.exists()
            # Removal stays within the thread lock: a lock file that vanishes during `acquire` grants no lock.
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return False


def lock_path(directory: Path, owner: str) -> Path:
    """Return the path of a session's lock file.

    Args:
        directory: the ledger's directory.
        owner: the session's id.
    """
    return directory / OWNERS_FOLDER / f"{owner}.lock"


def is_owner_alive(lock: Path) -> bool:
    """Return `True` if a session holds the lock file `lock`; leave the file in place."""
    # If the directory is read-only, or its file system grants no lock, no session can write the ledger there.
    with suppress(OSError, NotImplementedError):
        return lock.exists() and is_locked(lock)
    return False
