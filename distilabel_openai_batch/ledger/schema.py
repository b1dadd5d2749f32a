"""Schema of the ledger file: header check and migrations. The SQL lies in `migrations/`, one file per version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from distilabel_openai_batch.errors import LedgerError

# "doba" in ASCII: the file header's application id, which tells a ledger from another program's database.
APPLICATION_ID = 0x646F6261

SCHEMA_VERSION = 15
"""The number of migrations. `PRAGMA user_version` of a file counts the migrations that the file has had."""


def migrations() -> list[str]:
    """Return the SQL scripts in order: script `n` (from 0) migrates a file from version `n` to version `n + 1`."""
    folder = files(__package__).joinpath("migrations")
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".sql")), key=lambda path: path.name)
    return [path.read_text(encoding="utf-8") for path in paths]


def check_header(database: sqlite3.Connection, path: Path) -> None:
    """Check that a file is a ledger of this release or of an older release.

    Args:
        database: an open connection to the file.
        path: the file's path, for the error message.

    Raises:
        LedgerError: the file is another program's database, or a newer release wrote the file.
    """
    [application_id] = database.execute("PRAGMA application_id").fetchone()
    [version] = database.execute("PRAGMA user_version").fetchone()
    [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise LedgerError(f"{path} is a database of another program. Choose another `ledger_dir`.")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} was written by a newer release of distilabel-openai-batch: its schema has version {version}, and"
            f" this release reads versions up to {SCHEMA_VERSION}. Upgrade distilabel-openai-batch, or choose another"
            " `ledger_dir`."
        )


def migrate(database: sqlite3.Connection) -> None:
    """Migrate a file to `SCHEMA_VERSION` in one transaction.

    Args:
        database: a connection without an open transaction.

    Raises:
        sqlite3.Error: the file cannot be written. The transaction is rolled back.
    """
    database.execute("BEGIN IMMEDIATE")
    try:
        [version] = database.execute("PRAGMA user_version").fetchone()
        # Only an outdated header is written: a write to the first page would disturb other readers.
        if version < SCHEMA_VERSION:
            for script in migrations()[version:]:
                for statement in split_statements(script):
                    database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def split_statements(script: str) -> Iterator[str]:
    """Yield the statements of a SQL script. A `CREATE TRIGGER` statement contains semicolons of its own."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
