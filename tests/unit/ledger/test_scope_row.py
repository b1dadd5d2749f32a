"""Row of a scope: inserted by the first write, found by the next session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger.scope_row import ScopeRow
from tests.unit.ledger.samples import SCOPE


def count_scopes(connection) -> int:
    with connection.reading() as database:
        return database.execute("SELECT count(*) FROM scopes").fetchone()[0]


def test_reading_leaves_no_row(ledger):
    scope = ScopeRow(ledger.connection, SCOPE)
    with ledger.connection.reading():
        assert scope.id == 0
    assert count_scopes(ledger.connection) == 0


def test_a_row_is_inserted_once(ledger):
    first, second = ScopeRow(ledger.connection, SCOPE), ScopeRow(ledger.connection, SCOPE)
    with ledger.connection.reading():
        assert second.id == 0
    first.insert()
    second.insert()
    first.insert()
    with ledger.connection.reading():
        assert first.id == second.id == 1
    assert count_scopes(ledger.connection) == 1


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ([], "http://localhost:8000/v1/"),
        (["http://127.0.0.1:8000/v1/"], "http://127.0.0.1:8000/v1/"),
        (["http://127.0.0.1:8000/v1/", "http://localhost:8000/v1/"], "http://localhost:8000/v1/"),
        (["http://[::1]:8000/v1/", "http://127.0.0.1:8000/v1/"], "http://[::1]:8000/v1/"),
        (["https://localhost:8000/v1/", "http://localhost:8001/v1/"], "http://localhost:8000/v1/"),
    ],
    ids=["a new server", "another spelling", "both spellings", "two other spellings", "other servers"],
)
def test_the_recorded_spelling_of_the_server_is_kept(open_ledger, recorded, expected):
    """Scopes of other pipelines and Tasks do not count."""
    connection = open_ledger().connection
    with connection.transaction() as database:
        rows = [(SCOPE.pipeline, SCOPE.task, address) for address in recorded]
        rows.append((SCOPE.pipeline, "other", "http://[::1]:8000/v1/"))
        database.executemany("INSERT INTO scopes (pipeline, task, base_url) VALUES (?, ?, ?)", rows)
    scope = replace(SCOPE, base_url="http://localhost:8000/v1/")
    assert open_ledger(scope).scope == replace(scope, base_url=expected)
