"""Location of the ledger file, its lock files, and translation of SQLite's exceptions to `LedgerError`."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from distilabel_openai_batch.errors import LedgerError

if sys.platform != "win32":
    import fcntl

FILE_NAME = "ledger.sqlite3"

DIRECTORY_ENV_NAME = "DISTILABEL_OPENAI_BATCH_DIR"
"""The environment variable that names the ledger's directory."""

_DEFAULT_DIRECTORY = "~/.cache/distilabel/openai_batch"

_LOCAL_DISK = (
    f"Choose a directory on a local disk: `ledger_dir` of the LLM, --ledger-dir on the command line, or"
    f" ${DIRECTORY_ENV_NAME}. To keep the answers, first copy the ledger's directory there, while no run uses the"
    " ledger."
)

# Errors of `flock` and `lockf` on file systems without locks: NFS mounted with `nolock`, Lustre without `flock`.
# https://github.com/huggingface/datasets/issues/2618, https://github.com/SModelS/smodels/issues/37
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

# Messages of SQLite on file systems without shared memory or without locks: SQLITE_PROTOCOL, and SQLITE_IOERR with its
# extended codes for locks and shared memory. https://www.sqlite.org/rescode.html,
# https://github.com/charmbracelet/crush/issues/3461, https://github.com/AISecurityLab/hackagent/issues/407
_UNSUPPORTED_FILE_SYSTEM = ("locking protocol", "disk I/O error")


def ledger_directory(chosen: str | Path | None = None) -> Path:
    """Return the directory of the ledger file.

    Args:
        chosen: the user's choice; `None` or empty selects the environment variable, then the default.

    Raises:
        LedgerError: the path begins with `~`, and the home directory is unknown.
    """
    path = Path(chosen or os.getenv(DIRECTORY_ENV_NAME) or _DEFAULT_DIRECTORY)
    try:
        return path.expanduser()
    except RuntimeError:
        raise LedgerError(
            f"The ledger cannot lie in {path}: the home directory is unknown. Set another directory:"
            f" `ledger_dir` of the LLM, --ledger-dir on the command line, or ${DIRECTORY_ENV_NAME}."
        ) from None


def is_locked(path: Path) -> bool:
    """Return `True` if a process holds the lock file `path`."""
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def check_locks(path: Path, directory: Path) -> None:
    """Check that the file system of a directory grants file locks, by locks of a temporary file.

    The session's own lock is of the kind `flock`, SQLite's locks are of the kind `lockf`. Without this check, an old
    `filelock` takes the missing locks for a living owner, and SQLite takes them for another program's lock.

    Args:
        path: the ledger file, for the error message.
        directory: the directory of the ledger file, or of the directory that will hold the file.

    Raises:
        LedgerError: the file system grants no lock.
        OSError: no file can be written in the directory.
    """
    if sys.platform == "win32":  # pragma: no cover  # each file system locks files there
        return
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            for lock in (fcntl.flock, fcntl.lockf):
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock(file, fcntl.LOCK_UN)
        except OSError as error:
            raise unsupported_file_system(path, error.strerror or error) from None


@contextmanager
def lock_errors_translated(path: Path) -> Iterator[None]:
    """Raise each exception that means that the file system grants no lock as a `LedgerError`.

    Args:
        path: the ledger file.

    Raises:
        LedgerError: the file system grants no lock.
    """
    try:
        yield
    except NotImplementedError as error:
        raise unsupported_file_system(path, str(error).rstrip(".")) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise unsupported_file_system(path, error.strerror) from None
        raise


def unsupported_file_system(path: Path, reason: object) -> LedgerError:
    """Return the error of a ledger on a file system without file locks or without shared memory.

    Args:
        path: the ledger file.
        reason: the error of the operating system or of SQLite, without a full stop.
    """
    return LedgerError(
        f"The ledger {path} cannot be used: {reason}. Its file system may lack file locks or shared memory, as many"
        f" network file systems do; otherwise its disk fails. {_LOCAL_DISK}"
    )


@contextmanager
def sqlite_errors_translated(path: Path) -> Iterator[None]:
    """Raise each SQLite exception of the context as a `LedgerError` that names the file and the way out.

    Args:
        path: the ledger file.

    Raises:
        LedgerError: SQLite raised an exception.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if any(words in str(error) for words in _UNSUPPORTED_FILE_SYSTEM):
            raise unsupported_file_system(path, error) from None
        advice = "Nothing in it was overwritten."
        if "locked" in str(error):
            # SQLite reports ENOLCK as a lock of another program.
            advice = f"Is another program holding it? If not, its file system may lack file locks. {_LOCAL_DISK}"
        raise LedgerError(f"The ledger {path} cannot be used: {error}. {advice}") from None
    # SQLite quotes a damaged schema in its message; bytes that are not UTF-8 surface as UnicodeDecodeError.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"The ledger {path} is damaged, or is no ledger: {error}. The file was not changed. Restore the file from a"
            " copy, or move it away: the next run then finds the jobs that are still on the server."
        ) from None
