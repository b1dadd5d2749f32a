"""The ledger's place on the disk, its locks, and the boundary between SQLite's exceptions and ours."""

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
"""The environment variable that says where the ledger lies."""


_DEFAULT_DIRECTORY = "~/.cache/distilabel/openai_batch"


def directory(chosen: str | Path | None = None) -> Path:
    """Where the ledger lies.

    Args:
        chosen: what the user said; otherwise the environment decides, or the default.

    Raises:
        LedgerError: it is in a home directory, and there is none.
    """
    wanted = Path(chosen or os.getenv(DIRECTORY_ENV_NAME) or _DEFAULT_DIRECTORY)
    try:
        return wanted.expanduser()
    except RuntimeError:
        raise LedgerError(
            f"The ledger cannot lie in {wanted}, since that home directory is not known. Set another directory:"
            f" `ledger_dir` of the LLM, --ledger-dir on the command line, or ${DIRECTORY_ENV_NAME}."
        ) from None


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    lock = filelock.FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


@contextmanager
def guard(path: Path) -> Iterator[None]:
    """The one boundary between SQLite's exceptions and ours.

    Args:
        path: the ledger's file.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        advice = "Is another program holding it?" if "locked" in str(error) else "Nothing in it was overwritten."
        raise LedgerError(f"The ledger {path} cannot be used: {error}. {advice}") from None
    # What a damaged schema says of itself need not be UTF-8, and then this is how it is told.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"The ledger {path} is damaged, or is none: {error}. It was left as it is. Restore it, or move it"
            " away: jobs that are still on the server are then found there."
        ) from None
