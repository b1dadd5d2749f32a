"""Requests of a scope: their jobs, their outcomes, and the marks of delivered answers."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, cast

import orjson

from distilabel_openai_batch.api.failure_codes import MISSING_RESULT_CODE
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome, batch_failure
from distilabel_openai_batch.api.service_tiers import DEFAULT_TIER
from distilabel_openai_batch.ledger.answer_parts import read_pack_lines
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.job_counts import delete_counts
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.pack_search import PackHits, PackSearch
from distilabel_openai_batch.ledger.pack_table import PackTable, next_request_id
from distilabel_openai_batch.ledger.packs import FirstOccurrences, PackedNames
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import FAILED, OPEN_STATES, PENDING, Job, KnownRequest, KnownRequests

# `find_answers` looks up one request in so many by itself, at most.
_MAX_OTHERS = 10

# Requests per statement: far above the fixed cost of a statement, far below a second.
_CHUNK = 5_000

# The requests of a dropped job are pending in the file, and free to be held by a further job.
_LOOK_UP = """
    SELECT custom_id, job, requests.state, status_code, code, requests.error, line, tokens_in, tokens_out
    FROM requests JOIN jobs ON jobs.id = job LEFT JOIN answers ON request = requests.id
    WHERE requests.scope = ? AND custom_id IN (SELECT value FROM json_each(?))
        AND (requests.state != 'asked' OR jobs.state != 'dropped')
"""

_NAMES_OF_ROWS = "SELECT custom_id FROM requests WHERE scope = ? LIMIT ?"

_HAS_ANSWERED_PACKS = "SELECT EXISTS (SELECT 1 FROM packs WHERE scope = ? AND answered)"

_FIND_DROPPED = """
    SELECT custom_id, batch_id, coalesce(jobs.error, 'it was never created')
    FROM requests JOIN jobs ON jobs.id = job
    WHERE requests.scope = ? AND custom_id IN (SELECT value FROM json_each(?))
        AND requests.state = 'asked' AND jobs.state = 'dropped'
"""

_MARK_DROPPED_FAILED = """
    UPDATE requests SET state = 'failed', code = ?, error = ?
    WHERE scope = ? AND custom_id = ? AND state = 'asked' AND job IN (SELECT id FROM jobs WHERE state = 'dropped')
"""

_FIND_FREE = """
    SELECT custom_id, requests.state = 'failed' OR (requests.state = 'asked' AND jobs.state = 'dropped')
    FROM requests JOIN jobs ON jobs.id = job
    WHERE requests.scope = ? AND custom_id IN (SELECT value FROM json_each(?))
"""

_INSERT_CLAIMED = """
    INSERT INTO requests (id, scope, custom_id, job, state, attempts)
    SELECT ? + key, ?, value, ?, 'asked', 1 FROM json_each(?)
"""

_BATCH_OF_JOBS = """
    SELECT id, batch_id, coalesce(error, 'it was never created') FROM jobs
    WHERE id IN (SELECT value FROM json_each(?))
"""

_UPDATE_CLAIMED = """
    UPDATE requests SET attempts = attempts + (state = 'failed'), job = ?, state = 'asked', status_code = NULL,
        code = NULL, error = NULL
    WHERE scope = ? AND custom_id = ?
"""

_ROW_IDS = "SELECT custom_id, id FROM requests WHERE job = ? ORDER BY id"

_BATCH_IDS = """
    SELECT custom_id, batch_id
    FROM requests
        JOIN (SELECT id AS request, job FROM requests UNION ALL SELECT request, job FROM other_jobs) AS every_job
            ON every_job.request = requests.id
        JOIN jobs ON jobs.id = every_job.job
    WHERE requests.scope = ? AND batch_id IS NOT NULL AND custom_id IN (SELECT value FROM json_each(?))
"""

_INSERT_ANSWER = "INSERT OR IGNORE INTO answers (request, line) VALUES (?, ?)"

_MARK_ANSWERED = """
    UPDATE requests SET state = 'answered', tokens_in = ?, tokens_out = ?, tokens_cached = ?, tokens_written = ?,
        tokens_reasoning = ?, tier = ?, status_code = 200, code = NULL, error = NULL
    WHERE id = ? AND state != 'answered'
"""

_MARK_FAILED = """
    UPDATE requests SET state = 'failed', status_code = ?, code = ?, error = ?, tokens_in = nullif(?, 0),
        tokens_out = nullif(?, 0), tokens_cached = ?, tokens_written = ?, tokens_reasoning = ?, tier = ?
    WHERE id = ? AND state = 'asked'
"""

_NEXT_OCCURRENCE = """
    SELECT coalesce(max(CAST(substr(custom_id, ?) AS INTEGER)) + 1, 0)
    FROM requests WHERE scope = ? AND custom_id > ? AND custom_id < ? AND handed_over
"""

_MARK_DELIVERED = """
    UPDATE requests SET handed_over = 1, used_at = ?
    WHERE scope = ? AND custom_id IN (SELECT value FROM json_each(?)) AND state = 'answered'
"""

_OPEN_JOBS = """
    SELECT id, owner, EXISTS (SELECT 1 FROM requests WHERE job = jobs.id AND state = 'asked')
        OR EXISTS (SELECT 1 FROM packs WHERE job = jobs.id AND NOT answered)
    FROM jobs WHERE scope = ? AND state IN (SELECT value FROM json_each(?))
"""

_SELECT_FORGOTTEN = """
    CREATE TEMPORARY TABLE forgotten AS SELECT id FROM requests WHERE scope = :scope AND id NOT IN (
        SELECT id FROM requests WHERE job IN (SELECT value FROM json_each(:jobs))
        UNION ALL SELECT request FROM other_jobs WHERE job IN (SELECT value FROM json_each(:jobs))
    )
"""


_NO_LINE = Failure("The ledger has no result line of this answered request.", code=MISSING_RESULT_CODE)


class RequestTable:
    """The requests of the session's scope.

    Args:
        connection: the ledger file.
        scope: the scope's row.
        owners: the sessions that have the ledger open.
        packs: the packs of requests.
    """

    def __init__(self, connection: Connection, scope: ScopeRow, owners: Owners, packs: PackTable) -> None:
        self._connection = connection
        self._scope = scope
        self._owners = owners
        self._packs = packs

    def look_up(self, custom_ids: Sequence[str]) -> dict[str, KnownRequest]:
        """Return the state of requests by `custom_id`, without unknown requests and requests of dropped jobs."""
        return {
            custom_id: KnownRequest(known.job, outcome)
            for known in self.look_up_jobs(custom_ids)
            for custom_id, outcome in zip(known.custom_ids, known.outcomes or repeat(None), strict=False)
        }

    def look_up_jobs(self, custom_ids: Sequence[str]) -> list[KnownRequests]:
        """Return the state of requests as `look_up` does, for many requests of few jobs."""
        with self._connection.snapshot() as database:
            search = self._packs.search(database, self._scope.id, custom_ids)
            known = [_read_known(database, hits) for hits in search]
            rows = self._query_rows(database, _LOOK_UP, search.others())
            if any(requests.outcomes is None for requests in known):
                dropped = self._packs.list_dropped(database, self._scope.id)
                known = [requests for requests in known if requests.outcomes or requests.job not in dropped]
        pending: defaultdict[int, list[str]] = defaultdict(list)
        ended: defaultdict[int, dict[str, Outcome]] = defaultdict(dict)
        for custom_id, job, state, *columns in rows:
            if outcome := _outcome(state, *columns):
                ended[job][custom_id] = outcome
            else:
                pending[job].append(custom_id)
        known += [KnownRequests(job, custom_ids, None) for job, custom_ids in pending.items()]
        known += [KnownRequests(job, [*outcomes], [*outcomes.values()]) for job, outcomes in ended.items()]
        return known

    def has_answered_packs(self) -> bool:
        """Return whether the scope has answers in packs."""
        with self._connection.reading() as database:
            [has_answers] = database.execute(_HAS_ANSWERED_PACKS, (self._scope.id,)).fetchone()
        return bool(has_answers)

    def find_answers(self, custom_ids: FirstOccurrences) -> tuple[list[Answer], set[int]] | None:
        """Return the answers to requests that the ledger has all answered, in a fraction of the time of `look_up`.

        Args:
            custom_ids: different requests.

        Returns:
            The answer to each request, and the jobs that answered; `None` if a request has no answer, or if packs have
            few of the requests in the given order.
        """
        with self._connection.snapshot() as database:
            search = self._packs.search(database, self._scope.id, custom_ids)
            runs = [*search.runs()]
            others = search.others()
            if _MAX_OTHERS * len(others) > len(custom_ids) or not all(hits.pack.is_answered for hits in runs):
                return None
            known = [_read_known(database, hits) for hits in runs]
            rows = self._query_rows(database, _LOOK_UP, others)
        jobs = {requests.job for requests in known}
        answers: list[Outcome | None] = [answer for requests in known for answer in requests.outcomes or ()]
        if others:
            outcomes = {custom_id: _outcome(state, *columns) for custom_id, _, state, *columns in rows}
            jobs.update(job for _, job, *_ in rows)
            left, found = {*others}, iter(answers)
            answers = [outcomes.get(name) if name in left else next(found) for name in custom_ids]
        return (cast("list[Answer]", answers), jobs) if set(map(type, answers)) == {Answer} else None

    def find_dropped(self, custom_ids: Iterable[str]) -> dict[str, Failure]:
        """Return the pending requests whose job was dropped, each with the reason of the drop as its failure."""
        names = list(custom_ids)
        with self._connection.snapshot() as database:
            rows = database.execute(_FIND_DROPPED, (self._scope.id, orjson.dumps(names).decode())).fetchall()
            dropped = self._packs.list_dropped(database, self._scope.id)
            job_ids = orjson.dumps(list(dropped)).decode()
            jobs = {job_id: columns for job_id, *columns in database.execute(_BATCH_OF_JOBS, (job_ids,))}
            if jobs:
                for hits in self._packs.search(database, self._scope.id, names):
                    if not hits.pack.is_answered and hits.pack.job in jobs:
                        rows += [(name, *jobs[hits.pack.job]) for name in hits.custom_ids]
        return {custom_id: batch_failure(batch_id, error) for custom_id, batch_id, error in rows}

    def fail_dropped(self, failures: Mapping[str, Failure]) -> None:
        """Record the failures of pending requests whose job was dropped, so that commands show the failures.

        Args:
            failures: the failures by `custom_id`, as the method `find_dropped` returns them. A request that another
                job holds meanwhile stays pending.
        """
        with self._connection.transaction() as database:
            self.release(database, list(failures))
            database.executemany(
                _MARK_DROPPED_FAILED,
                ((failure.code, failure.message, self._scope.id, custom_id) for custom_id, failure in failures.items()),
            )

    def claim(
        self, database: sqlite3.Connection, job_id: int, custom_ids: Sequence[str], *, is_packed: bool = False
    ) -> list[str]:
        """Put requests into a job, except requests that have an answer or are pending in another job.

        Args:
            database: SQLite's connection, in a transaction.
            job_id: the job's id.
            custom_ids: the requests.
            is_packed: whether requests that the ledger does not know yet are put into packs. The results of a job with
                packs should be recorded together.

        Returns:
            The `custom_id`s that the job now holds.
        """
        scope_id, asked = self._scope.id, custom_ids
        search = self._packs.search(database, scope_id, asked)
        if held := self._release_dropped(database, search):
            custom_ids = [custom_id for custom_id in custom_ids if custom_id not in held]
        is_free = dict(self._query_rows(database, _FIND_FREE, custom_ids))
        new = [custom_id for custom_id in custom_ids if custom_id not in is_free] if is_free else custom_ids
        if is_packed:
            names = search.names if new is asked else PackedNames.of(new)
            new = self._packs.insert(database, scope_id, job_id, new, names)
        for start in range(0, len(new), _CHUNK):
            chunk = orjson.dumps(new[start : start + _CHUNK]).decode()
            database.execute(_INSERT_CLAIMED, (next_request_id(database), scope_id, job_id, chunk))
        if released := [custom_id for custom_id, free in is_free.items() if free]:
            delete_counts(database, scope_id, released)
            database.executemany(_UPDATE_CLAIMED, ((job_id, scope_id, custom_id) for custom_id in released))
        return [custom_id for custom_id in custom_ids if is_free.get(custom_id, True)] if is_free else [*custom_ids]

    def _query_rows(self, database: sqlite3.Connection, sql: str, custom_ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Run a query by scope and `custom_id`s; in most scopes nearly all requests are in packs, so rows are few."""
        limit = len(custom_ids)
        names = [name for (name,) in database.execute(_NAMES_OF_ROWS, (self._scope.id, limit + 1))] if limit else []
        if len(names) <= limit:
            rows = set(names)
            custom_ids = [name for name in custom_ids if name in rows] if rows else []
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(custom_ids), _CHUNK):
            chunk = orjson.dumps(custom_ids[start : start + _CHUNK]).decode()
            found += database.execute(sql, (self._scope.id, chunk))
        return found

    def _release_dropped(self, database: sqlite3.Connection, search: PackSearch) -> Collection[str]:
        """Give pending requests of dropped jobs rows of their own, and return the requests that stay in packs."""
        held: set[str] = set()
        free: defaultdict[int, set[int]] = defaultdict(set)
        dropped = self._packs.list_dropped(database, self._scope.id)
        for hits in search:
            if not hits.pack.is_answered and hits.pack.job in dropped:
                free[hits.pack.id].update(hits.indexes)
            else:
                held.update(hits.custom_ids)
        self._packs.release_members(database, free)
        return held

    def release(self, database: sqlite3.Connection, custom_ids: Sequence[str]) -> None:
        """Give requests that are in packs rows of their own, so that statements by `custom_id` find them.

        Args:
            database: SQLite's connection, in a transaction.
            custom_ids: requests of any kind.
        """
        self._packs.release(database, self._packs.search(database, self._scope.id, custom_ids))

    def request_ids(self, job: Job) -> dict[str, int]:
        """Return the ids of a job's requests by `custom_id`, in the order of the plan."""
        with self._connection.snapshot() as database:
            rows = database.execute(_ROW_IDS, (job.id,)).fetchall()
            packs = self._packs.list_of_job(database, job.id)
        ids = dict(rows)
        for pack in packs:
            ids.update(zip(pack.custom_ids(), pack.request_ids, strict=True))
        return dict(sorted(ids.items(), key=itemgetter(1))) if rows and packs else ids

    def batch_ids(self, custom_ids: Iterable[str]) -> dict[str, set[str]]:
        """Return the ids of all batches that hold or held each request; leave out requests without a batch."""
        found: dict[str, set[str]] = {}
        names = list(custom_ids)
        with self._connection.snapshot() as database:
            for custom_id, batch_id in database.execute(_BATCH_IDS, (self._scope.id, orjson.dumps(names).decode())):
                found.setdefault(custom_id, set()).add(batch_id)
            hits = [(hit.pack.job, hit.custom_ids) for hit in self._packs.search(database, self._scope.id, names)]
            job_ids = orjson.dumps(list({job_id for job_id, _ in hits})).decode()
            batch_ids = {job_id: batch_id for job_id, batch_id, _ in database.execute(_BATCH_OF_JOBS, (job_ids,))}
        for job_id, members in hits:
            if batch_id := batch_ids[job_id]:
                for custom_id in members:
                    found.setdefault(custom_id, set()).add(batch_id)
        return found

    def record(self, request_ids: Mapping[str, int], outcomes: Mapping[str, Outcome]) -> None:
        """Record outcomes of a job's requests in one transaction. A recorded answer is final.

        Args:
            request_ids: the ids of the requests by `custom_id`, as the method `request_ids` returns them.
            outcomes: outcomes by `custom_id`. A pack whose requests all have outcomes keeps its answers.
        """
        by_id = dict(zip(map(request_ids.__getitem__, outcomes), outcomes.values(), strict=True))
        with self._connection.transaction() as database:
            recorded = self._packs.record(database, by_id)
            if recorded.issuperset(by_id):
                return
            rows = {id_: outcome for id_, outcome in by_id.items() if id_ not in recorded}
            answers = {id_: outcome for id_, outcome in rows.items() if isinstance(outcome, Answer)}
            failures = {id_: outcome for id_, outcome in rows.items() if isinstance(outcome, Failure)}
            database.executemany(_INSERT_ANSWER, ((id_, answer.line) for id_, answer in answers.items()))
            database.executemany(
                _MARK_ANSWERED,
                ((*answer.tokens, *answer.token_details, _priced_tier(answer), id_) for id_, answer in answers.items()),
            )
            database.executemany(
                _MARK_FAILED,
                (
                    (
                        *(failure.status_code, failure.code, failure.message),
                        *failure.tokens,
                        *failure.token_details,
                        _priced_tier(failure),
                        id_,
                    )
                    for id_, failure in failures.items()
                ),
            )

    def next_occurrence(self, digest: str) -> int:
        """Return the occurrence number that follows the highest delivered one of a request digest; 0 if there is none.

        Lower occurrences may have failed, so a count of answers could lead to an occurrence that was delivered before.
        """
        parameters = (len(digest) + 2, self._scope.id, f"{digest}-", f"{digest}.")
        with self._connection.snapshot() as database:
            [number] = database.execute(_NEXT_OCCURRENCE, parameters).fetchone()
            return max(int(number), 1 + self._packs.last_delivered(database, self._scope.id, digest))

    def mark_delivered(self, custom_ids: Sequence[str], began_at: float) -> None:
        """Mark answers as delivered, at the end of a run that succeeded.

        Args:
            custom_ids: the answers that the run delivered. Another run may have recorded further answers, which its
                callers still wait for.
            began_at: the begin of the run, in seconds since the epoch.
        """
        with self._connection.transaction() as database:
            others = self._packs.mark_delivered(database, self._scope.id, custom_ids, began_at)
            for start in range(0, len(others), _CHUNK):
                chunk = orjson.dumps(others[start : start + _CHUNK]).decode()
                database.execute(_MARK_DELIVERED, (began_at, self._scope.id, chunk))

    def forget(self) -> int:
        """Delete the scope's requests and answers, so that a later run submits the requests again.

        Requests that a job in progress holds or held stay, since the session that runs the job records outcomes by row
        id. All jobs stay, so that no run adopts their batches from the server. No other scope's answers are taken any
        more that `OtherScopes.add_source` let this scope take.

        Returns:
            The number of deleted requests.
        """
        with self._connection.transaction() as database:
            states = orjson.dumps(OPEN_STATES).decode()
            open_jobs = database.execute(_OPEN_JOBS, (self._scope.id, states)).fetchall()
            # If a run died just before `mark_collected`, the job is open, but no outcome is missing → not in progress.
            in_progress = [
                job_id for job_id, owner, is_pending in open_jobs if is_pending or self._owners.is_alive(owner)
            ]
            parameters = {"scope": self._scope.id, "jobs": orjson.dumps(in_progress).decode()}
            database.execute(_SELECT_FORGOTTEN, parameters)
            database.execute("DELETE FROM answers WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM other_jobs WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM rejections WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM cut_answers WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM replaced_requests WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM prompt_starts WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM reused_answers WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM answer_sources WHERE scope = ?", (self._scope.id,))
            deleted = database.execute("DELETE FROM requests WHERE id IN (SELECT id FROM forgotten)").rowcount
            database.execute("DROP TABLE forgotten")
            deleted += self._packs.delete(database, self._scope.id, in_progress)
            delete_counts(database, self._scope.id)
        return deleted


def _read_known(database: sqlite3.Connection, hits: PackHits) -> KnownRequests:
    """Return the state of requests in a pack."""
    pack, indexes = hits.pack, hits.indexes
    if not pack.is_answered:
        return KnownRequests(pack.job, hits.custom_ids, None)
    places, pairs = pack.places or range(len(pack)), pack.token_pairs()
    if indexes != range(len(pack)):
        pairs = [pairs[index] for index in indexes]
        is_run = isinstance(indexes, range) and isinstance(places, range)
        places = indexes if is_run else [places[index] for index in indexes]
    answers: list[Outcome] = []
    tokens = iter(pairs)
    for lines in read_pack_lines(database.execute, pack.id, places):
        if all(lines):
            answers += map(Answer, lines, tokens)
        else:
            answers += [Answer(line, pair) if line else _NO_LINE for line, pair in zip(lines, tokens, strict=False)]
    return KnownRequests(pack.job, hits.custom_ids, answers)


def _priced_tier(outcome: Outcome) -> str | None:
    """Return the tier whose price counts for an outcome; `None` for the price of a batch and of the default tier."""
    return None if outcome.tier == DEFAULT_TIER else outcome.tier


def _outcome(
    state: str,
    status_code: int | None,
    code: str | None,
    error: str | None,
    line: bytes | None,
    tokens_in: int | None,
    tokens_out: int | None,
) -> Outcome | None:
    """Return a request's outcome from its columns; `None` for a pending request."""
    if state == PENDING:
        return None
    if state == FAILED:
        return Failure(error or "no message", status_code, code, (tokens_in or 0, tokens_out or 0))
    if line is None:
        return _NO_LINE
    # A copy of another scope's answer has no tokens in the ledger, as its job was not billed.
    return Answer.from_line(line) if tokens_in is None else Answer(line, (tokens_in, tokens_out or 0))
