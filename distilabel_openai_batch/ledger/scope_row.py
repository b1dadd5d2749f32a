"""Row of a scope in the ledger."""

from __future__ import annotations

from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.states import ScopeName

_FIND = "SELECT id FROM scopes WHERE pipeline = ? AND task = ? AND base_url = ?"

_INSERT = "INSERT OR IGNORE INTO scopes (pipeline, task, base_url) VALUES (?, ?, ?)"


class ScopeRow:
    """The row of the session's scope.

    Args:
        connection: the ledger file.
        name: the scope's name.
    """

    def __init__(self, connection: Connection, name: ScopeName) -> None:
        self._connection = connection
        self.name = name
        self._id: int | None = None

    @property
    def id(self) -> int:
        """The row's id; 0, which no row has, before `insert`. Read within `reading()` or `transaction()`."""
        if self._id is None:
            row = self._connection.database.execute(_FIND, self._columns()).fetchone()
            self._id = row[0] if row else None
        return self._id or 0

    def insert(self) -> None:
        """Insert the row on the first write, so that reading with a mistyped name leaves no trace."""
        if self._id is None:
            with self._connection.transaction() as database:
                database.execute(_INSERT, self._columns())

    def _columns(self) -> tuple[str, str, str]:
        return self.name.pipeline, self.name.task, self.name.base_url
