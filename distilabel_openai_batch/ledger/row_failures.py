"""Facts about rows that no job shows: answers that lack a generation or are cut, replaced requests, unsent rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import count

import orjson

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.pack_table import next_request_id
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import NOT_SENT
from distilabel_openai_batch.text import escape_surrogates

_LIST_REJECTED = "SELECT custom_id FROM rejections JOIN requests ON requests.id = request WHERE scope = ?"

_INSERT_REJECTION = """
    INSERT OR REPLACE INTO rejections (request, code, error)
    SELECT id, ?, ? FROM requests WHERE scope = ? AND custom_id = ? AND state = 'answered'
"""

_DELETE_REJECTION = """
    DELETE FROM rejections WHERE request IN (SELECT id FROM requests WHERE scope = ? AND custom_id = ?)
"""

_INSERT_CUT = """
    INSERT OR IGNORE INTO cut_answers (request)
    SELECT id FROM requests WHERE scope = ? AND custom_id = ? AND state = 'answered'
"""

_LIST_REPLACED = "SELECT custom_id FROM replaced_requests JOIN requests ON requests.id = request WHERE scope = ?"

_INSERT_REPLACED = """
    INSERT OR IGNORE INTO replaced_requests (request) SELECT id FROM requests WHERE scope = ? AND custom_id = ?
"""

_DELETE_REPLACED = """
    DELETE FROM replaced_requests WHERE request IN (SELECT id FROM requests WHERE scope = ? AND custom_id = ?)
"""

_INSERT_PROMPT_START = """
    INSERT OR REPLACE INTO prompt_starts (request, text) SELECT id, ? FROM requests WHERE scope = ? AND custom_id = ?
"""

_INSERT_RUN = """
    INSERT OR REPLACE INTO run_owners (owner, began_at)
    SELECT :owner, :began_at WHERE EXISTS (SELECT 1 FROM jobs WHERE owner = :owner)
"""

_FIND_RECORDED = """
    SELECT custom_id FROM requests WHERE scope = ? AND custom_id IN (SELECT value FROM json_each(?))
"""

_INSERT_UNSENT_JOB = """
    INSERT INTO jobs (scope, key, owner, state, status, endpoint, model, requests, bytes, intended_at, ended_at)
    VALUES (:scope, :key, :owner, 'dropped', :status, '', '', :requests, 0, :now, :now)
"""

_INSERT_UNSENT = """
    INSERT INTO requests (id, scope, custom_id, job, state, attempts, status_code, code, error)
    VALUES (?, ?, ?, ?, 'failed', 0, ?, ?, ?)
"""


class RowFailures:
    """The failures, and the replaced requests, of the session's scope that no job shows.

    Args:
        connection: the ledger file.
        scope: the scope's row.
        owners: the sessions that have the ledger open.
        requests: the scope's requests.
    """

    def __init__(self, connection: Connection, scope: ScopeRow, owners: Owners, requests: RequestTable) -> None:
        self._connection = connection
        self._scope = scope
        self._owners = owners
        self._requests = requests

    def list_rejected(self) -> set[str]:
        """Return the `custom_id`s of the answers that lacked a generation when a run last read the answers."""
        with self._connection.reading() as database:
            return {custom_id for (custom_id,) in database.execute(_LIST_REJECTED, (self._scope.id,))}

    def record_rejections(self, rejections: Mapping[str, Failure | None]) -> None:
        """Record why answers lack a generation, by `custom_id`; `None` deletes the rejection of an answer."""
        with self._connection.transaction() as database:
            scope_id = self._scope.id
            self._requests.release(database, [custom_id for custom_id, failure in rejections.items() if failure])
            database.executemany(
                _INSERT_REJECTION,
                (
                    (failure.code, escape_surrogates(failure.message), scope_id, custom_id)
                    for custom_id, failure in rejections.items()
                    if failure
                ),
            )
            database.executemany(
                _DELETE_REJECTION, ((scope_id, custom_id) for custom_id, failure in rejections.items() if not failure)
            )

    def record_cut(self, custom_ids: Iterable[str]) -> None:
        """Record that the limit of tokens cut the answers of requests."""
        names = list(custom_ids)
        with self._connection.transaction() as database:
            self._requests.release(database, names)
            database.executemany(_INSERT_CUT, ((self._scope.id, custom_id) for custom_id in names))

    def list_replaced(self) -> set[str]:
        """Return the `custom_id`s of the requests whose row got the outcome of another request in the last run."""
        with self._connection.reading() as database:
            return {custom_id for (custom_id,) in database.execute(_LIST_REPLACED, (self._scope.id,))}

    def record_replaced(self, is_replaced: Mapping[str, bool]) -> None:
        """Record whether the row of a request got the outcome of another request, by `custom_id`."""
        replaced = [custom_id for custom_id, value in is_replaced.items() if value]
        restored = [custom_id for custom_id, value in is_replaced.items() if not value]
        with self._connection.transaction() as database:
            scope_id = self._scope.id
            self._requests.release(database, replaced)
            database.executemany(_INSERT_REPLACED, ((scope_id, custom_id) for custom_id in replaced))
            database.executemany(_DELETE_REPLACED, ((scope_id, custom_id) for custom_id in restored))

    def record_run(self, began_at: float) -> None:
        """Record the begin of the run that the session belongs to, if the session has jobs.

        Args:
            began_at: the begin of the run, in seconds since the epoch; sessions of one run have one begin.
        """
        with self._connection.transaction() as database:
            database.execute(_INSERT_RUN, {"owner": self._owners.own_id, "began_at": began_at})

    def record_prompt_starts(self, starts: Mapping[str, str]) -> None:
        """Record the start of the prompt of failed requests, by `custom_id`."""
        with self._connection.transaction() as database:
            self._requests.release(database, list(starts))
            database.executemany(
                _INSERT_PROMPT_START, ((text, self._scope.id, custom_id) for custom_id, text in starts.items())
            )

    def record_unsent(self, failures: Mapping[str, Failure]) -> None:
        """Record rows that no request was sent for, as the failed requests of a job without a batch.

        Args:
            failures: the reasons by `custom_id`; a recorded `custom_id` is skipped.
        """
        self._scope.insert()
        with self._connection.transaction() as database:
            scope_id = self._scope.id
            parameters = (scope_id, orjson.dumps(list(failures)).decode())
            self._requests.release(database, list(failures))
            recorded = {custom_id for (custom_id,) in database.execute(_FIND_RECORDED, parameters)}
            rows = [(custom_id, failure) for custom_id, failure in failures.items() if custom_id not in recorded]
            if not rows:
                return
            job = {
                "scope": scope_id,
                "key": f"{NOT_SENT} {rows[0][0]} {self._owners.own_id}",
                "owner": self._owners.own_id,
                "status": NOT_SENT,
                "requests": len(rows),
                "now": time.time(),
            }
            job_id = database.execute(_INSERT_UNSENT_JOB, job).lastrowid
            request_ids = count(next_request_id(database))
            database.executemany(
                _INSERT_UNSENT,
                (
                    (
                        *(next(request_ids), scope_id, custom_id, job_id),
                        *(failure.status_code, failure.code, escape_surrogates(failure.message)),
                    )
                    for custom_id, failure in rows
                ),
            )
