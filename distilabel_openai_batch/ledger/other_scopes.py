"""Scopes of the file besides the session's own scope."""

from __future__ import annotations

from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import ScopeName

_LIST = "SELECT id, pipeline, task, base_url FROM scopes WHERE id != ? ORDER BY id DESC"

_LIST_SOURCES = "SELECT source FROM answer_sources WHERE scope = ? ORDER BY source DESC"

_INSERT_SOURCE = """
    INSERT OR IGNORE INTO answer_sources (scope, source)
    SELECT ?, id FROM scopes WHERE pipeline = ? AND task = ? AND base_url = ?
"""


class OtherScopes:
    """The other scopes, whose answers a run may take for its own requests.

    Args:
        connection: the ledger file.
        scope: the row of the session's own scope.
    """

    def __init__(self, connection: Connection, scope: ScopeRow) -> None:
        self._connection = connection
        self._scope = scope

    def list_names(self) -> list[tuple[int, ScopeName]]:
        """Return the id and the name of each other scope, the latest first."""
        with self._connection.reading() as database:
            rows = database.execute(_LIST, (self._scope.id,)).fetchall()
        return [(scope_id, ScopeName(*name)) for scope_id, *name in rows]

    def list_sources(self) -> list[int]:
        """Return the ids of the scopes whose answers `add_source` lets this scope take, the latest scope first."""
        with self._connection.reading() as database:
            return [scope_id for (scope_id,) in database.execute(_LIST_SOURCES, (self._scope.id,))]

    def add_source(self, source: ScopeName) -> None:
        """Let each later run of this scope take the answers of another scope for equal requests.

        Args:
            source: the other scope, as `list_names` returns it.
        """
        self._scope.insert()
        with self._connection.transaction() as database:
            database.execute(_INSERT_SOURCE, (self._scope.id, source.pipeline, source.task, source.base_url))
