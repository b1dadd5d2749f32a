"""Outlines of the requests of a scope's jobs, by which a run tells what has changed since."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from distilabel_openai_batch.api.body_outline import dump_outline, load_outline
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.job_counts import counts_query
from distilabel_openai_batch.ledger.scope_row import ScopeRow

# Outlines that a run compares: enough for the rounds of a Task.
_OUTLINES = 20

_INSERT = "INSERT OR REPLACE INTO outlines (job, outline) VALUES (?, ?)"

_COUNT_ANSWERS = f"""
    SELECT coalesce(sum(answered), 0)
    FROM jobs JOIN ({counts_query("jobs.scope = :scope")}) AS counts ON counts.job = jobs.id
    WHERE scope = :scope AND intended_at < :before
"""  # noqa: S608  # parts of this package alone

_LIST = """
    SELECT outline FROM outlines JOIN jobs ON jobs.id = job
    WHERE scope = ? AND intended_at < ?
        AND (
            EXISTS (SELECT 1 FROM requests WHERE job = jobs.id AND requests.state = 'answered')
            OR EXISTS (SELECT 1 FROM packs WHERE job = jobs.id AND answered)
        )
    ORDER BY job DESC LIMIT ?
"""


class Outlines:
    """The outlines of the scope's jobs.

    Args:
        connection: the ledger file.
        scope: the scope's row.
    """

    def __init__(self, connection: Connection, scope: ScopeRow) -> None:
        self._connection = connection
        self._scope = scope

    def count_answers(self, before: float) -> int:
        """Return the number of the scope's answers in jobs of earlier runs.

        Args:
            before: a moment in seconds since the epoch, before which the jobs were planned.
        """
        with self._connection.reading() as database:
            return int(database.execute(_COUNT_ANSWERS, {"scope": self._scope.id, "before": before}).fetchone()[0])

    def list_outlines(self, before: float) -> list[dict[str, str]]:
        """Return the outlines of the latest jobs of earlier runs that have answers.

        Args:
            before: as for `count_answers`.
        """
        with self._connection.reading() as database:
            rows = database.execute(_LIST, (self._scope.id, before, _OUTLINES)).fetchall()
        return [load_outline(outline) for (outline,) in rows]


def insert_outline(database: sqlite3.Connection, job_id: int, outline: Mapping[str, str]) -> None:
    """Record the outline of a job's first request.

    Args:
        database: SQLite's connection, in a transaction.
        job_id: the job's id.
        outline: the outline.
    """
    database.execute(_INSERT, (job_id, dump_outline(outline)))
