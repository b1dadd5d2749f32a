"""Row of a scope: inserted by the first write, found by the next session."""

from __future__ import annotations

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
