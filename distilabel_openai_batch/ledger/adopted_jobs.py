"""Adopted jobs: batches on the server that no job of the ledger has."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from itertools import count

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.job_counts import delete_counts, insert_counts
from distilabel_openai_batch.ledger.job_table import billed_columns
from distilabel_openai_batch.ledger.outlines import insert_outline
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.pack_table import next_request_id
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import JobState

_IS_KNOWN = "SELECT 1 FROM jobs WHERE key = ? OR batch_id = ?"

# Another machine made the job, so its model and the size of its input file are unknown.
_INSERT_JOB = """
    INSERT INTO jobs (
        scope, key, owner, state, endpoint, model, requests, bytes, intended_at, input_file_id, batch_id, status,
        completed, failed, total, ended_at, in_progress_at, finalizing_at, cancelling_at, finished_at, prices,
        billed_usage, billed_model
    ) VALUES (?, ?, ?, ?, ?, '', 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# If a request is pending in a job in progress, that job keeps the request: the job records outcomes by row id.
_INSERT_ANSWERED = """
    INSERT INTO requests (
        id, scope, custom_id, job, state, attempts, status_code, tokens_in, tokens_out, tokens_cached, tokens_written,
        tokens_reasoning
    )
    VALUES (?, ?, ?, ?, 'answered', 1, 200, ?, ?, ?, ?, ?)
    ON CONFLICT (scope, custom_id) DO UPDATE SET
        state = 'answered', status_code = 200, code = NULL, error = NULL, tokens_in = excluded.tokens_in,
        tokens_out = excluded.tokens_out, tokens_cached = excluded.tokens_cached,
        tokens_written = excluded.tokens_written, tokens_reasoning = excluded.tokens_reasoning,
        job = CASE state WHEN 'asked' THEN job ELSE excluded.job END
    WHERE state != 'answered'
"""

_INSERT_ANSWER = """
    INSERT OR IGNORE INTO answers (request, line) SELECT id, ? FROM requests WHERE scope = ? AND custom_id = ?
"""

_INSERT_FAILED = """
    INSERT OR IGNORE INTO requests (
        id, scope, custom_id, job, state, attempts, status_code, code, error, tokens_in, tokens_out, tokens_cached,
        tokens_written, tokens_reasoning
    )
    VALUES (?, ?, ?, ?, 'failed', 1, ?, ?, ?, nullif(?, 0), nullif(?, 0), ?, ?, ?)
"""

# If another job has the request's row, `other_jobs` ties the request to the adopted job.
_INSERT_OTHER_JOB = """
    INSERT OR IGNORE INTO other_jobs (request, job)
    SELECT id, :job FROM requests WHERE scope = :scope AND custom_id = :custom_id AND job != :job
"""

_SET_REQUESTS = "UPDATE jobs SET requests = ? WHERE id = ?"

_SET_ERROR = "UPDATE jobs SET requests = ?, error = ? WHERE id = ?"


class AdoptedJobs:
    """Insertion of batches that the server has, and the ledger does not, as jobs of the session's scope.

    Args:
        connection: the ledger file.
        scope: the scope's row.
        owners: the sessions that have the ledger open.
        requests: the scope's requests.
        prices: the user's prices as a text, which each job records; `None` for list prices.
    """

    def __init__(
        self,
        connection: Connection,
        scope: ScopeRow,
        owners: Owners,
        requests: RequestTable,
        prices: str | None = None,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._owners = owners
        self._requests = requests
        self._prices = prices

    def add_in_progress(self, batch: Batch, key: str, custom_ids: Sequence[str]) -> bool:
        """Insert a batch in progress as a created job.

        The job holds the batch's requests, except requests that have an answer or are pending in another job.

        Args:
            batch: the batch.
            key: the value of the batch's metadata key `KEY_METADATA`.
            custom_ids: the batch's requests.

        Returns:
            `False` if the ledger has the batch by now.
        """
        self._scope.insert()
        with self._connection.transaction() as database:
            job_id = self._insert(database, batch, key, JobState.CREATED)
            if job_id is None:
                return False
            claimed = self._requests.claim(database, job_id, custom_ids)
            database.execute(_SET_REQUESTS, (len(claimed), job_id))
        return True

    def add_ended(
        self,
        batch: Batch,
        key: str,
        results: Sequence[tuple[str, Outcome]],
        outline: Mapping[str, str] | None = None,
    ) -> bool:
        """Insert a batch with a final status as a collected job.

        An answer is recorded unless the ledger has an answer; a failure is recorded only for an unknown request.

        Args:
            batch: the batch.
            key: the value of the batch's metadata key `KEY_METADATA`.
            results: pairs of a `custom_id` and its outcome.
            outline: the outline of the batch's first request; `None` if the request is unknown.

        Returns:
            `False` if the ledger has the batch by now.
        """
        answers = [(custom_id, outcome) for custom_id, outcome in results if isinstance(outcome, Answer)]
        failures = [(custom_id, outcome) for custom_id, outcome in results if isinstance(outcome, Failure)]
        self._scope.insert()
        with self._connection.transaction() as database:
            job_id = self._insert(database, batch, key, JobState.COLLECTED)
            if job_id is None:
                return False
            scope_id = self._scope.id
            custom_ids = [custom_id for custom_id, _ in results]
            self._requests.release(database, custom_ids)
            delete_counts(database, scope_id, custom_ids)
            request_ids = count(next_request_id(database))
            database.executemany(
                _INSERT_ANSWERED,
                [
                    (next(request_ids), scope_id, custom_id, job_id, *answer.tokens, *answer.token_details)
                    for custom_id, answer in answers
                ],
            )
            database.executemany(_INSERT_ANSWER, [(answer.line, scope_id, custom_id) for custom_id, answer in answers])
            database.executemany(
                _INSERT_FAILED,
                [
                    (
                        *(next(request_ids), scope_id, custom_id, job_id),
                        *(failure.status_code, failure.code, failure.message),
                        *failure.tokens,
                        *failure.token_details,
                    )
                    for custom_id, failure in failures
                ],
            )
            database.executemany(
                _INSERT_OTHER_JOB,
                ({"job": job_id, "scope": scope_id, "custom_id": custom_id} for custom_id, _ in results),
            )
            database.execute(_SET_REQUESTS, (len(results), job_id))
            insert_counts(database, job_id)
            if outline:
                insert_outline(database, job_id, outline)
        return True

    def add_unreadable(self, batch: Batch, key: str, reason: str) -> None:
        """Insert an ended batch whose results cannot be read as a dropped job, so that no run tries again.

        Args:
            batch: the batch.
            key: the value of the batch's metadata key `KEY_METADATA`.
            reason: the reason.
        """
        self._scope.insert()
        with self._connection.transaction() as database:
            if job_id := self._insert(database, batch, key, JobState.DROPPED):
                database.execute(_SET_ERROR, (batch.total, reason, job_id))

    def _insert(self, database: sqlite3.Connection, batch: Batch, key: str, state: JobState) -> int | None:
        """Insert the job's row, and return its id; `None` if a job has the key or the batch."""
        if database.execute(_IS_KNOWN, (key, batch.id)).fetchone():
            return None
        now = time.time()
        columns = (
            self._scope.id,
            key,
            self._owners.own_id,
            state.value,
            batch.endpoint or "",
            batch.created_at or now,
            batch.input_file_id,
            batch.id,
            batch.status,
            batch.completed,
            batch.failed,
            batch.total,
            now if batch.has_ended else None,
            batch.in_progress_at,
            batch.finalizing_at,
            batch.cancelling_at,
            batch.finished_at,
            self._prices,
            *billed_columns(batch).values(),
        )
        return database.execute(_INSERT_JOB, columns).lastrowid
