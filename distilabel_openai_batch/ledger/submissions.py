"""Submissions: runs whose rows `SubmitBatch` keeps for `LoadBatchResults`."""

from __future__ import annotations

from collections.abc import Sequence

from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import SubmittedJob

_LIST_RUNS = """
    SELECT pipeline, base_url FROM scopes
    WHERE task = '' AND EXISTS (SELECT 1 FROM rows WHERE scope = scopes.id) ORDER BY id
"""

_FIND_RUN = "SELECT pipeline FROM jobs JOIN scopes ON scopes.id = scope WHERE batch_id = ?"

_LIST_JOBS = """
    SELECT batch_id, requests, bytes, coalesce(status, state) FROM jobs
    WHERE scope = ? AND batch_id IS NOT NULL ORDER BY id
"""

_SELECT_ROWS = "SELECT line FROM rows WHERE scope = ? ORDER BY number"


class Submissions:
    """The rows and jobs of submissions.

    The methods concern the session's scope; only `list_runs` and `find_run` search all scopes.

    Args:
        connection: the ledger file.
        scope: the scope's row.
    """

    def __init__(self, connection: Connection, scope: ScopeRow) -> None:
        self._connection = connection
        self._scope = scope

    def list_runs(self) -> list[tuple[str, str]]:
        """Return the name and the server's base URL of each submission in the file, oldest first."""
        with self._connection.reading() as database:
            return database.execute(_LIST_RUNS).fetchall()

    def find_run(self, batch_id: str) -> str | None:
        """Return the name of the run, or pipeline, whose job has a batch; `None` for an unknown batch."""
        with self._connection.reading() as database:
            row = database.execute(_FIND_RUN, (batch_id,)).fetchone()
        return row[0] if row else None

    def list_jobs(self) -> list[SubmittedJob]:
        """Return the jobs that have a batch, oldest first."""
        with self._connection.reading() as database:
            rows = database.execute(_LIST_JOBS, (self._scope.id,)).fetchall()
        return [SubmittedJob(*row) for row in rows]

    def keep_rows(self, lines: Sequence[bytes], file_id: str | None) -> None:
        """Replace the submission's rows.

        Args:
            lines: the rows, each one as JSON.
            file_id: the server's id of the file that holds the same rows.
        """
        self._scope.insert()
        with self._connection.transaction() as database:
            scope_id = self._scope.id
            database.execute("DELETE FROM rows WHERE scope = ?", (scope_id,))
            database.executemany(
                "INSERT INTO rows (scope, number, line) VALUES (?, ?, ?)",
                ((scope_id, number, line) for number, line in enumerate(lines)),
            )
            database.execute("UPDATE scopes SET rows_file_id = ? WHERE id = ?", (file_id, scope_id))

    def load_rows(self) -> tuple[list[bytes], str | None]:
        """Return the submission's rows as JSON, and the server's id of the file that holds the same rows."""
        with self._connection.reading() as database:
            rows = [line for (line,) in database.execute(_SELECT_ROWS, (self._scope.id,))]
            row = database.execute("SELECT rows_file_id FROM scopes WHERE id = ?", (self._scope.id,)).fetchone()
        return rows, row[0] if row else None
