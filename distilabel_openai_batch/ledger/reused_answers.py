"""Answers of other scopes that a scope takes for its equal requests."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from uuid import uuid4

import orjson

from distilabel_openai_batch.ledger.answer_parts import read_lines
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.pack_table import PackTable
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import REUSED

# Requests per transaction: far above the fixed cost of a transaction, far below a second.
_CHUNK = 5_000

# Each occurrence of a digest. A copy is known by the request that was billed.
_FIND_ANSWERED = """
    SELECT digests.value, CAST(substr(custom_id, length(digests.value) + 2) AS INTEGER), requests.id,
        coalesce(source_scope, requests.scope), coalesce(source, custom_id)
    FROM json_each(:digests) AS digests
        CROSS JOIN requests ON requests.scope = :scope
            AND custom_id > digests.value || '-' AND custom_id < digests.value || '.'
        JOIN answers ON answers.request = requests.id
        LEFT JOIN reused_answers ON reused_answers.request = requests.id
    WHERE requests.state = 'answered'
"""

_FIND_PENDING = """
    SELECT digests.value, CAST(substr(custom_id, length(digests.value) + 2) AS INTEGER), requests.job
    FROM json_each(:digests) AS digests
        CROSS JOIN requests ON requests.scope = :scope
            AND custom_id > digests.value || '-' AND custom_id < digests.value || '.'
        JOIN jobs ON jobs.id = requests.job
    WHERE requests.state = 'asked' AND jobs.state != 'dropped'
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
    SELECT own.id, coalesce(:line, (SELECT line FROM answers WHERE request = :request)) FROM requests AS own
    WHERE own.scope = :scope AND own.custom_id = :custom_id
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


@dataclass(frozen=True, order=True, slots=True)
class _Source:
    """An answer of another scope.

    Attributes:
        digest, occurrence: the digest of the request in the other scope, and its occurrence number.
        request_id: the request's id in the ledger.
        scope: the scope that was billed for the answer; for a copy, the scope that the copy was taken from.
        custom_id: the request in that scope.
    """

    digest: str
    occurrence: int
    request_id: int
    scope: int
    custom_id: str


class ReusedAnswers:
    """Copies of other scopes' answers in the session's scope.

    The other scopes stay as they are. A billed answer is copied into a scope once, so a request that a run makes twice
    takes two answers, and an answer that the scope itself was billed for never returns to the scope.

    Args:
        connection: the ledger file.
        scope: the scope's row.
        owners: the sessions that have the ledger open.
        requests: the scope's requests.
        packs: the packs of requests, of all scopes.
    """

    def __init__(
        self, connection: Connection, scope: ScopeRow, owners: Owners, requests: RequestTable, packs: PackTable
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._owners = owners
        self._requests = requests
        self._packs = packs

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
                lines = read_lines(database.execute, [answers[name].request_id for name in claimed])
                rows = [
                    {
                        "scope": self._scope.id,
                        "custom_id": name,
                        "request": answers[name].request_id,
                        "line": lines.get(answers[name].request_id),
                        "source_scope": answers[name].scope,
                        "source": answers[name].custom_id,
                    }
                    for name in claimed
                ]
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
        with self._connection.snapshot() as database:
            answered = self._match(database, source_id, digests)
        others = {custom_id: digest for custom_id, digest in digests.items() if custom_id not in answered}
        pending = self.find_pending(source_id, others)
        # Each other scope of the ledger is counted once, and most have no answers for this scope → keep no index.
        self._packs.drop_index(source_id)
        return len(answered) + sum(map(len, pending.values()))

    def find_pending(self, source_id: int, digests: Mapping[str, str]) -> dict[int, list[str]]:
        """Return the jobs of another scope in which requests are pending.

        Args:
            source_id: the id of the other scope's row.
            digests: as for `take`.

        Returns:
            The `custom_id`s in this scope by the id of the job.
        """
        wanted = set(digests.values())
        with self._connection.snapshot() as database:
            pending = database.execute(_FIND_PENDING, {"scope": source_id, "digests": _json(wanted)}).fetchall()
            members = list(self._packs.find_digests(database, source_id, wanted))
            dropped = self._packs.list_dropped(database, source_id)
        pending += [
            (digest, pack.occurrence(index), pack.job)
            for digest, pack, index in members
            if not pack.is_answered and pack.job not in dropped
        ]
        jobs: defaultdict[str, list[int]] = defaultdict(list)
        for digest, _, job_id in sorted(pending):
            jobs[digest].append(job_id)
        found: dict[int, list[str]] = {}
        for custom_id in sorted(digests, key=_occurrence):
            if jobs[digests[custom_id]]:
                found.setdefault(jobs[digests[custom_id]].pop(0), []).append(custom_id)
        return found

    def _match(self, database: sqlite3.Connection, source_id: int, digests: Mapping[str, str]) -> dict[str, _Source]:
        """Return the answer that each request takes."""
        own_digests = {custom_id.rpartition("-")[0] for custom_id in digests}
        own_id = self._scope.id
        taken = set(database.execute(_FIND_TAKEN, {"scope": own_id, "digests": _json(own_digests)}))
        wanted = set(digests.values())
        answered = [
            _Source(*columns)
            for columns in database.execute(_FIND_ANSWERED, {"scope": source_id, "digests": _json(wanted)})
        ]
        answered += [
            _Source(digest, pack.occurrence(index), pack.request_ids[index], source_id, pack.custom_id(index))
            for digest, pack, index in self._packs.find_digests(database, source_id, wanted)
            if pack.is_answered
        ]
        free: defaultdict[str, list[_Source]] = defaultdict(list)
        for source in sorted(answered):
            if source.scope != own_id and (source.scope, source.custom_id) not in taken:
                free[source.digest].append(source)
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
