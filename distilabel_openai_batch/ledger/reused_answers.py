"""Answers of other scopes that a scope takes for its equal requests."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from uuid import uuid4

import orjson

from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import REUSED

# Requests per transaction: far above the fixed cost of a transaction, far below a second.
_CHUNK = 5_000

# Each occurrence of a digest, in the order of the occurrence numbers. A copy is known by the request that was billed.
_FIND_ANSWERED = """
    SELECT digests.value, requests.id, coalesce(source_scope, requests.scope), coalesce(source, custom_id)
    FROM json_each(:digests) AS digests
        CROSS JOIN requests ON requests.scope = :scope
            AND custom_id > digests.value || '-' AND custom_id < digests.value || '.'
        JOIN answers ON answers.request = requests.id
        LEFT JOIN reused_answers ON reused_answers.request = requests.id
    WHERE requests.state = 'answered'
    ORDER BY CAST(substr(custom_id, length(digests.value) + 2) AS INTEGER)
"""

_FIND_PENDING = """
    SELECT digests.value, requests.job
    FROM json_each(:digests) AS digests
        CROSS JOIN requests ON requests.scope = :scope
            AND custom_id > digests.value || '-' AND custom_id < digests.value || '.'
        JOIN jobs ON jobs.id = requests.job
    WHERE requests.state = 'asked' AND jobs.state != 'dropped'
    ORDER BY CAST(substr(custom_id, length(digests.value) + 2) AS INTEGER)
"""

_FIND_TAKEN = """
    SELECT source_scope, source
    FROM json_each(:digests) AS digests
        CROSS JOIN requests ON requests.scope = :scope
            AND custom_id > digests.value || '-' AND custom_id < digests.value || '.'
        JOIN reused_answers ON reused_answers.request = requests.id
"""

_INSERT_JOB = """
    INSERT INTO jobs (scope, key, owner, state, status, endpoint, model, requests, bytes, intended_at, ended_at)
    VALUES (:scope, :key, :owner, 'collected', :status, '', '', 0, 0, :now, :now)
"""

_ADD_REQUESTS = "UPDATE jobs SET requests = requests + ? WHERE id = ?"

_COPY_ANSWER = """
    INSERT OR REPLACE INTO answers (request, line)
    SELECT own.id, answers.line FROM requests AS own, answers
    WHERE own.scope = :scope AND own.custom_id = :custom_id AND answers.request = :request
"""

_INSERT_REUSED = """
    INSERT OR REPLACE INTO reused_answers (request, source_scope, source)
    SELECT id, :source_scope, :source FROM requests WHERE scope = :scope AND custom_id = :custom_id
"""

# The tokens stay empty: the source's job was billed for them.
_MARK_ANSWERED = """
    UPDATE requests SET state = 'answered', status_code = 200, tokens_in = NULL, tokens_out = NULL,
        tokens_cached = NULL, tokens_written = NULL, tokens_reasoning = NULL, tier = NULL
    WHERE scope = :scope AND custom_id = :custom_id
"""


class ReusedAnswers:
    """Copies of other scopes' answers in the session's scope.

    The other scopes stay as they are. A billed answer is copied into a scope once, so a request that a run makes twice
    takes two answers, and an answer that the scope itself was billed for never returns to the scope.

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

    def take(self, source_id: int, digests: Mapping[str, str]) -> list[str]:
        """Copy answers of another scope, as one collected job without a batch.

        Args:
            source_id: the id of the other scope's row.
            digests: the digest that each request has in the other scope, by the `custom_id` in this scope. Requests
                that have an answer, or are pending in a job, take none.

        Returns:
            The `custom_id`s of the requests that have an answer now.
        """
        self._scope.insert()
        taken: list[str] = []
        job_id: int | None = None
        # Occurrences of one digest stay together, in their order → the first one takes the first answer.
        remaining = iter(sorted(digests, key=_occurrence))
        while chunk := list(islice(remaining, _CHUNK)):
            with self._connection.transaction() as database:
                answers = self._match(database, source_id, {custom_id: digests[custom_id] for custom_id in chunk})
                if not answers:
                    continue
                job_id = job_id or self._insert_job(database)
                claimed = self._requests.claim(database, job_id, list(answers))
                rows = [{"scope": self._scope.id, "custom_id": name, **answers[name]} for name in claimed]
                for statement in (_COPY_ANSWER, _INSERT_REUSED, _MARK_ANSWERED):
                    database.executemany(statement, rows)
                database.execute(_ADD_REQUESTS, (len(claimed), job_id))
                taken += claimed
        return taken

    def count(self, source_id: int, digests: Mapping[str, str]) -> int:
        """Return the number of requests that another scope has an answer for, or a request in a job in progress.

        Args:
            source_id: the id of the other scope's row.
            digests: as for `take`.
        """
        with self._connection.reading() as database:
            answered = self._match(database, source_id, digests)
        others = {custom_id: digest for custom_id, digest in digests.items() if custom_id not in answered}
        return len(answered) + sum(map(len, self.find_pending(source_id, others).values()))

    def find_pending(self, source_id: int, digests: Mapping[str, str]) -> dict[int, list[str]]:
        """Return the jobs of another scope in which requests are pending.

        Args:
            source_id: the id of the other scope's row.
            digests: as for `take`.

        Returns:
            The `custom_id`s in this scope by the id of the job.
        """
        parameters = {"scope": source_id, "digests": _json(set(digests.values()))}
        jobs: defaultdict[str, list[int]] = defaultdict(list)
        with self._connection.reading() as database:
            for digest, job_id in database.execute(_FIND_PENDING, parameters):
                jobs[digest].append(job_id)
        found: dict[int, list[str]] = {}
        for custom_id in sorted(digests, key=_occurrence):
            if jobs[digests[custom_id]]:
                found.setdefault(jobs[digests[custom_id]].pop(0), []).append(custom_id)
        return found

    def _match(
        self, database: sqlite3.Connection, source_id: int, digests: Mapping[str, str]
    ) -> dict[str, dict[str, int | str]]:
        """Return the answer that each request takes, as parameters of the statements."""
        own_digests = {custom_id.rpartition("-")[0] for custom_id in digests}
        own_id = self._scope.id
        taken = set(database.execute(_FIND_TAKEN, {"scope": own_id, "digests": _json(own_digests)}))
        free: defaultdict[str, list[dict[str, int | str]]] = defaultdict(list)
        parameters = {"scope": source_id, "digests": _json(set(digests.values()))}
        for digest, request, source_scope, source in database.execute(_FIND_ANSWERED, parameters):
            if source_scope != own_id and (source_scope, source) not in taken:
                free[digest].append({"request": request, "source_scope": source_scope, "source": source})
        return {custom_id: free[digest].pop(0) for custom_id, digest in digests.items() if free[digest]}

    def _insert_job(self, database: sqlite3.Connection) -> int:
        columns = {
            "scope": self._scope.id,
            "key": uuid4().hex,
            "owner": self._owners.own_id,
            "status": REUSED,
            "now": time.time(),
        }
        job_id = database.execute(_INSERT_JOB, columns).lastrowid
        assert job_id is not None
        return job_id


def _occurrence(custom_id: str) -> tuple[str, int]:
    """Return the digest and the occurrence number of a request."""
    digest, _, number = custom_id.rpartition("-")
    return digest, int(number)


def _json(values: Iterable[str]) -> str:
    return orjson.dumps(list(values)).decode()
