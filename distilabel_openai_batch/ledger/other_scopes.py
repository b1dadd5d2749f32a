"""Scopes of the file besides the session's own scope."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import ScopeName

_LIST = "SELECT id, pipeline, task, base_url FROM scopes WHERE id != ? ORDER BY id DESC"

_COUNT_ANSWERED = """
    SELECT count(*) FROM requests
    WHERE scope = ? AND custom_id IN (SELECT value FROM json_each(?)) AND state = 'answered'
"""


class OtherScopes:
    """The other scopes, for a warning about answers that a run does not use.

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

    def count_answered(self, scope_id: int, custom_ids: Iterable[str]) -> int:
        """Return the number of requests that have an answer in another scope.

        Args:
            scope_id: the id of the scope's row.
            custom_ids: the requests.
        """
        with self._connection.reading() as database:
            [number] = database.execute(_COUNT_ANSWERED, (scope_id, orjson.dumps(list(custom_ids)).decode())).fetchone()
        return int(number)
