"""Connection of a session to the ledger file: opening, checking, reading and transactions."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import filelock

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.files import (
    FILE_NAME,
    check_locks,
    lock_errors_translated,
    sqlite_errors_translated,
    unsupported_file_system,
)
from distilabel_openai_batch.ledger.schema import APPLICATION_ID, check_header, migrate

# Seven answers of 1,000 bytes fill an 8,192-byte page well; SQLite's default page of 4,096 bytes holds only three.
PAGE_BYTES = 8_192

# Room for the pages of one transaction, about: 1,000 answers of 2,000 bytes. Packs are written once and read in order,
# so a larger cache would only take memory.
_CACHE_KILOBYTES = 2_048

# Each checkpoint rewrites pages that the next one rewrites, such as those of the index of `custom_id`s: a checkpoint
# per 64 MB writes less than SQLite's default of one per 1,000 pages.
_CHECKPOINT_BYTES = 67_108_864

_HEADER_BYTES = 100

BUSY_SECONDS = 60.0
"""The time that a session waits for another process to release the file."""


class Connection:
    """The ledger file, open for one session. Any thread may use the connection; uses take turns.

    Attributes:
        path: the ledger file.
        database: SQLite's connection. Only `reading()`, `snapshot()` and `transaction()` make a use safe.
        rollbacks: the number of transactions that were rolled back.

    Args:
        path: the ledger file, which exists; an empty file becomes a ledger.
        opening_lock: the lock file that serialises the opening of the ledger file.

    Raises:
        LedgerError: the file cannot be read or written, is damaged, is another program's, or a newer release wrote it.
    """

    def __init__(self, path: Path, opening_lock: Path) -> None:
        self.path = path
        self.rollbacks = 0
        self._lock = threading.Lock()
        try:
            # SQLite reports an error, without waiting, if two processes change a new file's journal mode.
            with (
                lock_errors_translated(path),
                filelock.FileLock(opening_lock, timeout=BUSY_SECONDS, mode=0o600),
            ):
                self.database = open_database(path)
        except filelock.Timeout:
            raise LedgerError(
                f"The ledger {path} cannot be opened: another process has been opening it for over"
                f" {BUSY_SECONDS:.0f} seconds."
            ) from None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield SQLite's connection for statements that read."""
        with self._lock, sqlite_errors_translated(self.path):
            yield self.database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield SQLite's connection within a transaction: commit at the end, roll back on an exception."""
        with self._lock, sqlite_errors_translated(self.path):
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield self.database
                self.database.execute("COMMIT")
            except BaseException:
                self.rollbacks += 1
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Yield SQLite's connection for several statements that read the file in one state."""
        with self._lock, sqlite_errors_translated(self.path):
            self.database.execute("BEGIN")
            try:
                yield self.database
            finally:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self.database.close()


def open_database(path: Path) -> sqlite3.Connection:
    """Open, check and migrate a ledger file.

    `synchronous=FULL` puts each intent on the disk before the server hears of the job.

    Args:
        path: the file, which exists.

    Raises:
        LedgerError: the file cannot be read or written, is damaged, is another program's, or a newer release wrote it;
            or its file system lacks shared memory or locks.
    """
    with sqlite_errors_translated(path):
        # Before SQLite opens the file, which creates a write-ahead log.
        _check_length(path)
        database = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            check_header(database, path)
            # The page size takes effect in a new file only.
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            _begin_write_ahead_log(database, path)
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA cache_size = {-_CACHE_KILOBYTES}")
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_BYTES // PAGE_BYTES}")
            migrate(database)
        except BaseException:
            database.close()
            raise
    return database


def check_file_system(path: Path, directory: Path) -> None:
    """Check that a directory can hold a ledger, by temporary files.

    Args:
        path: the ledger file, for the error message.
        directory: the directory of the ledger file, or of the directory that will hold the file.

    Raises:
        LedgerError: the file system lacks locks or shared memory.
        OSError: no file can be written in the directory.
    """
    check_locks(path, directory)
    with (
        tempfile.TemporaryDirectory(dir=directory) as temporary,
        sqlite_errors_translated(path),
        closing(sqlite3.connect(Path(temporary) / FILE_NAME, isolation_level=None)) as database,
    ):
        _begin_write_ahead_log(database, path)
        database.execute("CREATE TABLE first (id)")


def _begin_write_ahead_log(database: sqlite3.Connection, path: Path) -> None:
    """Switch a file to a write-ahead log, and raise `LedgerError` if SQLite leaves the file in another mode.

    With a rollback journal a commit would wait for readers, and a reader without locks would see half a commit → no
    other mode replaces the write-ahead log.
    """
    [mode] = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise unsupported_file_system(path, f"SQLite opens no write-ahead log there, its journal mode stays {mode}")


def _check_length(path: Path) -> None:
    """Raise `LedgerError` if the file was cut off; SQLite reports a missing page only when a query needs the page.

    The offsets in the header: https://www.sqlite.org/fileformat2.html#the_database_header
    """
    # If there is a write-ahead log, the file itself may rightly be shorter.
    if path.with_name(f"{path.name}-wal").exists():
        return
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        length = file.seek(0, os.SEEK_END)
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        return
    page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    if length < pages * page_bytes:
        raise LedgerError(
            f"The ledger {path} is damaged: the file is shorter than its header says. The file was not changed. Restore"
            " the file from a copy, or move it away: the next run then finds the jobs that are still on the server."
        )
