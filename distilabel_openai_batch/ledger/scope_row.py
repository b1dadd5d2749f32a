"""Row of a scope in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distilabel_openai_batch.api.addresses import is_same_server
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.states import ScopeName

_FIND = "SELECT id FROM scopes WHERE pipeline = ? AND task = ? AND base_url = ?"

_FIND_ADDRESSES = "SELECT base_url FROM scopes WHERE pipeline = ? AND task = ? ORDER BY id"

_INSERT = "INSERT OR IGNORE INTO scopes (pipeline, task, base_url) VALUES (?, ?, ?)"


class ScopeRow:
    """The row of the session's scope.

    Attributes:
        name: the scope's name, with the spelling of the server's address that the file has.

    Args:
        connection: the ledger file.
        name: the scope's name.
    """

    def __init__(self, connection: Connection, name: ScopeName) -> None:
        self._connection = connection
        with connection.reading() as database:
            addresses = [address for (address,) in database.execute(_FIND_ADDRESSES, (name.pipeline, name.task))]
        self.name = replace(name, base_url=recorded_spelling(name.base_url, addresses))
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


def recorded_spelling(base_url: str, addresses: Sequence[str]) -> str:
    """Return the spelling of a server's address that earlier runs used, so that their answers are found.

    Args:
        base_url: the address of this run, which is preferred.
        addresses: the addresses of earlier runs.
    """
    if base_url in addresses:
        return base_url
    return next((address for address in addresses if is_same_server(address, base_url)), base_url)
