"""Schema of the ledger file: migrations from each version, and the check of the header."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import astuple

import pytest

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.entries import JobTimeline
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    check_header,
    migrate,
    migrations,
    split_statements,
)
from tests.support.ledgers import OLD_LEDGER
from tests.unit.ledger.samples import SCOPE


def test_the_schema_version_counts_the_migrations():
    assert len(migrations()) == SCHEMA_VERSION


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_ledger_of_an_older_release_is_migrated(tmp_path, version):
    """The reader reads the jobs before the migration; a session migrates the file, which keeps its rows."""
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        for statement in split_statements("".join(migrations()[:version])):
            database.execute(statement)
        database.execute("INSERT INTO scopes (id, pipeline, task, base_url) VALUES (1, ?, ?, ?)", astuple(SCOPE))
        database.execute(
            "INSERT INTO jobs (id, scope, key, owner, state, endpoint, model, requests, bytes, intended_at, batch_id)"
            " VALUES (1, 1, 'k', 'o', 'collected', '/v1/chat/completions', 'm', 1, 1, 1.0, 'batch_1')"
        )
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    reader = LedgerReader(tmp_path)
    assert [job.batch_id for job in reader.jobs()] == ["batch_1"]
    assert bool(reader.timelines()) is (version >= 5)
    assert [list(reader.failures(reader.scopes())), list(reader.answers(reader.scopes()[0]))] == [[], []]

    with closing(Ledger(tmp_path, SCOPE)) as ledger:
        assert ledger.submissions.find_run("batch_1") == SCOPE.pipeline

    assert reader.timelines() == [JobTimeline()]


def test_a_new_file_has_the_schema_of_a_migrated_file_of_the_older_release():
    """Tables, columns, indexes and triggers are the same as in the file that commit 149ce07 wrote."""

    def schema(database) -> list[tuple]:
        objects = "SELECT type, name, tbl_name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        columns = (
            "SELECT tables.name, columns.* FROM sqlite_master AS tables, pragma_table_xinfo(tables.name) AS columns"
            " WHERE tables.type = 'table' ORDER BY tables.name, cid"
        )
        return [*database.execute(objects), *database.execute(columns)]

    old, new = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    with closing(old), closing(new):
        old.executescript(OLD_LEDGER.read_text(encoding="utf-8"))
        migrate(old)
        migrate(new)
        assert schema(new) == schema(old)
        for pragma in ("application_id", "user_version"):
            assert new.execute(f"PRAGMA {pragma}").fetchone() == old.execute(f"PRAGMA {pragma}").fetchone()


def test_a_migration_that_fails_changes_nothing(monkeypatch):
    monkeypatch.setattr(
        "distilabel_openai_batch.ledger.schema.migrations", lambda: [*migrations()[:4], "CREATE TABLE looks (;"]
    )
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        with pytest.raises(sqlite3.Error):
            migrate(database)
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        assert not database.in_transaction


def test_a_current_file_is_not_written(monkeypatch):
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate(database)
        before = database.total_changes
        monkeypatch.setattr("distilabel_openai_batch.ledger.schema.migrations", lambda: pytest.fail("were read"))
        migrate(database)
        assert database.total_changes == before


def test_an_error_after_sqlites_own_rollback_is_raised_as_such(monkeypatch):
    """SQLite rolls back by itself on a full disk."""
    monkeypatch.setattr("distilabel_openai_batch.ledger.schema.migrations", lambda: ["ROLLBACK; SELECT missing;"])
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        with pytest.raises(sqlite3.OperationalError, match="no such column: missing"):
            migrate(database)
        assert not database.in_transaction


def test_the_header_tells_a_ledger_from_other_files(tmp_path):
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        check_header(database, path)
        migrate(database)
        check_header(database, path)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with pytest.raises(LedgerError, match=rf"has version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
            check_header(database, path)
        database.execute("PRAGMA application_id = 1")
        with pytest.raises(LedgerError, match="a database of another program"):
            check_header(database, path)


def test_a_trigger_is_one_statement():
    script = "-- A note.\nCREATE TABLE a (b);\nCREATE TRIGGER c AFTER INSERT ON a BEGIN\n DELETE FROM a; END;\n"
    statements = list(split_statements(script))
    assert len(statements) == 2
    assert "DELETE FROM a; END;" in statements[1]
