"""The schema of the ledger's file, its migrations and the check of its header."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from distilabel_openai_batch.errors import LedgerError

# "doba": by this number in its header a file is known to be a ledger.
_APPLICATION_ID = 0x646F6261


# Each brings a file from the version that is its index to the next one.
_MIGRATIONS = [
    """
    CREATE TABLE scopes (
        id INTEGER PRIMARY KEY,
        pipeline TEXT NOT NULL,
        task TEXT NOT NULL,
        base_url TEXT NOT NULL,
        UNIQUE (pipeline, task, base_url)
    );
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        scope INTEGER NOT NULL REFERENCES scopes,
        key TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        state TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        intended_at REAL NOT NULL,
        input_file_id TEXT,
        batch_id TEXT,
        status TEXT,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL DEFAULT 0,
        ended_at REAL,
        error TEXT
    );
    CREATE INDEX jobs_by_scope ON jobs (scope, state);
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        scope INTEGER NOT NULL REFERENCES scopes,
        custom_id TEXT NOT NULL,
        digest TEXT GENERATED ALWAYS AS (substr(custom_id, 1, 32)) VIRTUAL,
        job INTEGER NOT NULL REFERENCES jobs,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        handed_over INTEGER NOT NULL DEFAULT 0,
        status_code INTEGER,
        code TEXT,
        error TEXT,
        tokens_in INTEGER,
        tokens_out INTEGER,
        UNIQUE (scope, custom_id)
    );
    CREATE INDEX requests_by_job ON requests (job);
    CREATE TABLE answers (
        request INTEGER PRIMARY KEY REFERENCES requests,
        line BLOB NOT NULL
    );
    """,
    """
    CREATE TABLE rows (
        scope INTEGER NOT NULL REFERENCES scopes,
        number INTEGER NOT NULL,
        line BLOB NOT NULL,
        PRIMARY KEY (scope, number)
    ) WITHOUT ROWID;
    ALTER TABLE scopes ADD COLUMN rows_file_id TEXT;
    CREATE INDEX jobs_by_batch ON jobs (batch_id);
    """,
    """
    CREATE TABLE other_jobs (
        request INTEGER NOT NULL REFERENCES requests,
        job INTEGER NOT NULL REFERENCES jobs,
        PRIMARY KEY (request, job)
    ) WITHOUT ROWID;
    CREATE TRIGGER requests_moved AFTER UPDATE OF job ON requests WHEN OLD.job != NEW.job BEGIN
        INSERT OR IGNORE INTO other_jobs (request, job) VALUES (OLD.id, OLD.job);
    END;
    """,
    """
    ALTER TABLE requests ADD COLUMN tokens_cached INTEGER;
    """,
    """
    ALTER TABLE jobs ADD COLUMN in_progress_at REAL;
    ALTER TABLE jobs ADD COLUMN finalizing_at REAL;
    ALTER TABLE jobs ADD COLUMN cancelling_at REAL;
    ALTER TABLE jobs ADD COLUMN finished_at REAL;
    CREATE TABLE looks (
        job INTEGER NOT NULL REFERENCES jobs,
        seen_at REAL NOT NULL,
        completed INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        PRIMARY KEY (job, seen_at)
    ) WITHOUT ROWID;
    """,
]


def check_header(database: sqlite3.Connection, path: Path) -> None:
    """Refuses what is no ledger of this release or an older one.

    Args:
        database: the opened file.
        path: where it lies.

    Raises:
        LedgerError: it is another program's, or a newer version's.
    """
    [application_id] = database.execute("PRAGMA application_id").fetchone()
    [version] = database.execute("PRAGMA user_version").fetchone()
    [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != _APPLICATION_ID:
        raise LedgerError(f"{path} is a database of another program. Choose another `ledger_dir`.")
    if version > len(_MIGRATIONS):
        raise LedgerError(
            f"{path} was written by a newer release of distilabel-openai-batch (schema {version}, this"
            f" one knows {len(_MIGRATIONS)}). Upgrade it, or choose another `ledger_dir`."
        )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; that of a trigger has semicolons of its own."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
