"""Jobs of a scope: the plan, the states of each job, and the take-over of a dead session's jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import uuid4

import orjson

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.body_outline import outline_body
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.job_counts import insert_counts
from distilabel_openai_batch.ledger.outlines import insert_outline
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.pack_table import PackTable
from distilabel_openai_batch.ledger.past_jobs import SELECT_DURATIONS, PastJobs
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import NOT_FOUND, OPEN_STATES, TRANSITIONS, Job, JobState

_TIMELINE_COLUMNS = ("in_progress_at", "finalizing_at", "cancelling_at", "finished_at")

_INSERT_PLANNED = """
    INSERT INTO jobs (scope, key, owner, state, endpoint, model, requests, bytes, intended_at, prices)
    VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?)
"""

_GET = """
    SELECT id, key, owner, state, endpoint, requests, intended_at, input_file_id, batch_id FROM jobs WHERE id = ?
"""

_OPEN_IDS = "SELECT id FROM jobs WHERE scope = ? AND state IN (SELECT value FROM json_each(?)) ORDER BY id"

_KNOWN_KEYS = "SELECT key FROM jobs WHERE key IN (SELECT value FROM json_each(?))"

_SHARING_LIMIT = """
    SELECT jobs.id, owner FROM jobs JOIN scopes ON scopes.id = scope
    WHERE base_url = ? AND scope != ? AND state = 'created' AND model = (SELECT model FROM jobs WHERE id = ?)
"""

_IN_PROGRESS_AT_SERVER = """
    SELECT jobs.id, owner FROM jobs JOIN scopes ON scopes.id = scope
    WHERE base_url = ? AND owner != ? AND state IN ('uploaded', 'created', 'ended')
"""

_BATCH_IDS_OF_JOBS = """
    SELECT DISTINCT batch_id FROM jobs
    WHERE id IN (SELECT value FROM json_each(?)) AND batch_id IS NOT NULL ORDER BY id
"""

_TAKE_OVER = "UPDATE jobs SET owner = ? WHERE id = ? AND owner = ?"

_INSERT_POLL = "INSERT OR REPLACE INTO looks (job, seen_at, completed, failed) VALUES (?, ?, ?, ?)"

_LAST_POLL = """
    SELECT seen_at, completed + failed FROM looks WHERE job = ? ORDER BY completed + failed DESC, seen_at LIMIT 1
"""

_UPDATE_TIMELINE = """
    UPDATE jobs SET in_progress_at = ?, finalizing_at = ?, cancelling_at = ?, finished_at = ? WHERE id = ?
"""

_UPDATE_STATUS = "UPDATE jobs SET status = ? WHERE id = ? AND state = 'created'"

_FAIL_PENDING = "UPDATE requests SET state = 'failed', code = ?, error = ? WHERE job = ? AND state = 'asked'"

# `mark_ended` sets `ended_at` of a batch's job; a synchronous job ends with its collection.
# A server counts an answer without text as completed, the ledger counts the request as failed → the ledger decides.
_MARK_COLLECTED = """
    UPDATE jobs SET state = 'collected', ended_at = coalesce(ended_at, ?), failed = max(failed, left.requests),
        completed = min(completed, jobs.requests - left.requests)
    FROM (SELECT failed AS requests FROM job_counts WHERE job = ?) AS left
    WHERE id = ?
"""


class JobTable:
    """The jobs of the session's scope.

    Each `mark_…` method moves a job to a further state, and returns the job in that state. A transition that
    `TRANSITIONS` does not have raises `ValueError`, and leaves the file unchanged.

    Args:
        connection: the ledger file.
        scope: the scope's row.
        owners: the sessions that have the ledger open.
        requests: the scope's requests.
        packs: the packs of requests.
        prices: the user's prices as a text, which each job records; `None` for list prices.
    """

    def __init__(
        self,
        connection: Connection,
        scope: ScopeRow,
        owners: Owners,
        requests: RequestTable,
        packs: PackTable,
        prices: str | None = None,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._owners = owners
        self._requests = requests
        self._packs = packs
        self._prices = prices

    def plan(self, shard: Shard, state: JobState = JobState.PLANNED) -> tuple[Job, list[str]]:
        """Record the intent to submit a shard, before any call to the server.

        Args:
            shard: the requests.
            state: `PLANNED` for a batch, or `SYNCHRONOUS`.

        Returns:
            The job, and the `custom_id`s that the job holds: the shard's, except requests that another process has
            put into a job, or recorded an answer to, meanwhile.
        """
        now, key, owner = time.time(), uuid4().hex, self._owners.own_id
        self._scope.insert()
        with self._connection.transaction() as database:
            columns = (
                self._scope.id,
                key,
                owner,
                state.value,
                shard.endpoint,
                shard.requests[0].model,
                shard.size,
                now,
                self._prices,
            )
            job_id = database.execute(_INSERT_PLANNED, columns).lastrowid
            assert job_id is not None
            custom_ids = [request.custom_id for request in shard.requests]
            claimed = self._requests.claim(database, job_id, custom_ids, is_packed=state is JobState.PLANNED)
            database.execute("UPDATE jobs SET requests = ? WHERE id = ?", (len(claimed), job_id))
            insert_outline(database, job_id, outline_body(bytes(shard.requests[0].body)))
        return Job(job_id, key, owner, state, shard.endpoint, len(claimed), now), claimed

    def get(self, job_id: int) -> Job:
        """Return a job as the file has it now.

        Args:
            job_id: the id of a job, of any scope.
        """
        with self._connection.reading() as database:
            row = database.execute(_GET, (job_id,)).fetchone()
        id_, key, owner, state, *columns = row
        return Job(id_, key, owner, JobState(state), *columns)

    def list_open(self) -> list[Job]:
        """Return the jobs in `OPEN_STATES`, oldest first."""
        with self._connection.reading() as database:
            rows = database.execute(_OPEN_IDS, (self._scope.id, orjson.dumps(OPEN_STATES).decode())).fetchall()
        return [self.get(job_id) for (job_id,) in rows]

    def batch_ids(self, job_ids: Iterable[int]) -> list[str]:
        """Return the ids of the batches of jobs, oldest first; leave out jobs without a batch."""
        with self._connection.reading() as database:
            rows = database.execute(_BATCH_IDS_OF_JOBS, (orjson.dumps(list(job_ids)).decode(),)).fetchall()
        return [batch_id for (batch_id,) in rows]

    def find_known(self, keys: Iterable[str]) -> set[str]:
        """Return the keys that belong to a job of any scope."""
        with self._connection.reading() as database:
            rows = database.execute(_KNOWN_KEYS, (orjson.dumps(list(keys)).decode(),))
            return {key for (key,) in rows}

    def find_past(self, model: str) -> PastJobs | None:
        """Return the durations of a model's past jobs at the server, in all scopes; `None` if there are too few."""
        with self._connection.reading() as database:
            rows = database.execute(SELECT_DURATIONS, (self._scope.name.base_url, model)).fetchall()
        return PastJobs.of(model, [seconds for (seconds,) in rows])

    def find_sharing_limit(self, job_id: int) -> set[int]:
        """Return the ids of the jobs that share a job's enqueued-token limit.

        Two jobs share the limit if they submit to the same server and model; only jobs of other scopes are returned,
        whose session lives and whose batch is in progress.
        """
        with self._connection.reading() as database:
            rows = database.execute(_SHARING_LIMIT, (self._scope.name.base_url, self._scope.id, job_id)).fetchall()
        return self._select_living(rows)

    def find_others_in_progress(self) -> set[int]:
        """Return the ids of other living sessions' jobs that have files at the same server."""
        columns = (self._scope.name.base_url, self._owners.own_id)
        with self._connection.reading() as database:
            rows = database.execute(_IN_PROGRESS_AT_SERVER, columns).fetchall()
        return self._select_living(rows)

    def _select_living(self, rows: Sequence[tuple[int, str]]) -> set[int]:
        """Return the ids of the jobs whose owner lives, of rows with id and owner."""
        is_alive = {owner: self._owners.is_alive(owner) for _, owner in rows}
        return {job_id for job_id, owner in rows if is_alive[owner]}

    def take_over(self, job: Job) -> Job | None:
        """Make this session the owner of a dead session's job.

        Returns:
            The job; `None` if its owner lives, or a third session has taken the job over.
        """
        if job.owner != self._owners.own_id and self._owners.is_alive(job.owner):
            return None
        with self._connection.transaction() as database:
            changed = database.execute(_TAKE_OVER, (self._owners.own_id, job.id, job.owner)).rowcount
        return self.get(job.id) if changed else None

    def mark_uploaded(self, job: Job, input_file_id: str) -> Job:
        """Record that the input file is on the server."""
        return self._mark(job, JobState.UPLOADED, input_file_id=input_file_id)

    def mark_created(self, job: Job, batch: Batch) -> Job:
        """Record that the server has the job's batch."""
        return self._mark(job, JobState.CREATED, batch_id=batch.id, status=batch.status)

    def record_progress(self, job: Job, batch: Batch) -> None:
        """Record a batch's status and counts at a poll, and the moments of its statuses, for `jobs` and `report`."""
        poll = (job.id, time.time(), batch.completed, batch.failed)
        with self._connection.transaction() as database:
            database.execute(_INSERT_POLL, poll)
            database.execute(_UPDATE_TIMELINE, (*_timeline(batch).values(), job.id))
            database.execute(_UPDATE_STATUS, (batch.status, job.id))

    def last_progress(self, job: Job) -> tuple[float, int] | None:
        """Return the last recorded progress of a job's batch.

        Returns:
            The time of the first poll that saw the highest count of outcomes, in seconds since the epoch, and the
            count; `None` for a job without a recorded poll.
        """
        with self._connection.reading() as database:
            row: tuple[float, int] | None = database.execute(_LAST_POLL, (job.id,)).fetchone()
        return row

    def mark_ended(self, job: Job, batch: Batch) -> Job:
        """Record that the batch has a final status."""
        return self._mark(
            job,
            JobState.ENDED,
            status=batch.status,
            completed=batch.completed,
            failed=batch.failed,
            total=batch.total,
            ended_at=time.time(),
            error=batch.reasons if batch.errors else None,
            **billed_columns(batch),
            **_timeline(batch),
        )

    def return_to_uploaded(self, job: Job) -> Job:
        """Give an ended job a fresh key, so that a second batch is created from the same input file.

        The server rejected the first batch for a reason that passes. The old key would find the rejected batch.
        """
        key = uuid4().hex
        no_moments = dict.fromkeys(_TIMELINE_COLUMNS)
        uploaded = self._mark(job, JobState.UPLOADED, key=key, batch_id=None, **no_moments)
        return replace(uploaded, key=key, batch_id=None)

    def mark_collected(self, job: Job, missing: Failure) -> Job:
        """Record that the ledger holds all results of a job.

        Args:
            job: the job.
            missing: the failure of the requests that no result line names.
        """
        _check_transition(job, JobState.COLLECTED)
        with self._connection.transaction() as database:
            self._packs.release_pending(database, job.id)
            database.execute(_FAIL_PENDING, (missing.code, missing.message, job.id))
            insert_counts(database, job.id)
            database.execute(_MARK_COLLECTED, (time.time(), job.id, job.id))
        return replace(job, state=JobState.COLLECTED)

    def mark_dropped(self, job: Job, error: str | None = None) -> Job:
        """Drop a job: further jobs may hold its requests.

        Args:
            job: the job.
            error: the reason; `None` keeps the reason that the batch gave.
        """
        return self._mark(job, JobState.DROPPED, **({"error": error} if error else {}))

    def mark_lost(self, job: Job) -> Job:
        """Drop a job whose batch the server does not know, on the user's word (`forget --lost`)."""
        return self._mark(job, JobState.DROPPED, status=NOT_FOUND, error="The server no longer knows this batch.")

    def _mark(self, job: Job, state: JobState, **columns: str | float | None) -> Job:
        _check_transition(job, state)
        assignments = ", ".join(f"{column} = ?" for column in ("state", *columns))
        with self._connection.transaction() as database:
            database.execute(
                f"UPDATE jobs SET {assignments} WHERE id = ?",  # noqa: S608  # the callers above name the columns
                (state.value, *columns.values(), job.id),
            )
        ids = {name: value for name, value in columns.items() if name in ("input_file_id", "batch_id")}
        return replace(job, state=state, **ids)  # type: ignore[arg-type]


def _check_transition(job: Job, state: JobState) -> None:
    if state not in TRANSITIONS[job.state]:
        raise ValueError(f"a job that is {job.state.value} cannot become {state.value}")


def billed_columns(batch: Batch) -> dict[str, str | None]:
    """Return the usage and the model that a batch shows, as the columns of its job."""
    usage = orjson.dumps(batch.usage.counts()).decode() if batch.usage else None
    return {"billed_usage": usage, "billed_model": batch.model or None}


def _timeline(batch: Batch) -> dict[str, float | None]:
    """Return the moments of a batch's statuses, as far as its server reports them."""
    return {name: getattr(batch, name) for name in _TIMELINE_COLUMNS}
