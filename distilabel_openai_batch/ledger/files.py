"""Location of the ledger file, its lock files, and translation of SQLite's exceptions to `LedgerError`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from distilabel_openai_batch.errors import LedgerError

FILE_NAME = "ledger.sqlite3"

DIRECTORY_ENV_NAME = "DISTILABEL_OPENAI_BATCH_DIR"
"""The environment variable that names the ledger's directory."""

_DEFAULT_DIRECTORY = "~/.cache/distilabel/openai_batch"


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
        advice = "Is another program holding it?" if "locked" in str(error) else "Nothing in it was overwritten."
        raise LedgerError(f"The ledger {path} cannot be used: {error}. {advice}") from None
    # SQLite quotes a damaged schema in its message; bytes that are not UTF-8 surface as UnicodeDecodeError.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"The ledger {path} is damaged, or is no ledger: {error}. The file was not changed. Restore the file from a"
            " copy, or move it away: the next run then finds the jobs that are still on the server."
        ) from None
