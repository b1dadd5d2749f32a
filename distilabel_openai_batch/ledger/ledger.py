"""What was asked, bought and answered: one SQLite file, from which the next run carries on, whatever died.

A request is *asked* while it is in a job, then *answered* or *failed*. It belongs to a scope: the pipeline and the task
that ask, and the server that is asked. Intents are on the disk (`synchronous=FULL`) before the server hears of them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import filelock
import orjson

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome, batch_failure
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.files import FILE_NAME, guard, is_held
from distilabel_openai_batch.ledger.schema import _APPLICATION_ID, _MIGRATIONS, _statements, check_header
from distilabel_openai_batch.ledger.states import (
    LOST,
    OPEN_STATES,
    TRANSITIONS,
    Job,
    JobFacts,
    JobState,
    Known,
    ScopeName,
)

# Rows looked up or written in one statement or transaction: far above the cost of one, far below a second.
_CHUNK = 5_000

# Seven answers of a thousand bytes fill one well; of SQLite's own 4,096 bytes, three do.
_PAGE_BYTES = 8_192

# A million custom_ids in an index take about 64 MB. Each checkpoint writes pages again that the next one will, too:
# rarer ones write less.
_CACHE_KILOBYTES = 8_192
_CHECKPOINT_BYTES = 67_108_864

_BUSY_SECONDS = 60.0

# Of a batch, as its server has them.
_MOMENTS = ("in_progress_at", "finalizing_at", "cancelling_at", "finished_at")

_looking_at_owners = threading.Lock()


class Ledger:
    """The file, opened for one scope, by one owner.

    Its methods block, and may be called from any thread.

    Args:
        directory: where the file lies, or will; created for its owner's eyes only.
        scope: whose requests are meant.

    Raises:
        LedgerError: the file cannot be read or written, is another program's, or a newer version's.
    """

    def __init__(self, directory: Path, scope: ScopeName) -> None:
        self.path = directory / FILE_NAME
        self._lock = threading.Lock()
        self._owners = directory / "owners"
        self.owner = uuid4().hex
        self._name = scope
        self._scope_id: int | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._owners.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            # Held for as long as this process lives: so others know whether a job's owner is still at it.
            self._alive = filelock.FileLock(self._owners / f"{self.owner}.lock", mode=0o600, thread_local=False)
            self._alive.acquire(blocking=False)
        except OSError as error:
            raise LedgerError(f"The ledger {self.path} cannot be opened: {error}") from None
        try:
            # One at a time: SQLite does not wait when two make a file and change its journal mode at once.
            with filelock.FileLock(self._owners / "opening.lock", timeout=_BUSY_SECONDS, mode=0o600):
                self._database = self._connect()
        except BaseException as error:
            self._let_go()
            if isinstance(error, filelock.Timeout):
                raise LedgerError(f"The ledger {self.path} is being opened by a process that does not end.") from None
            raise

    def _connect(self) -> sqlite3.Connection:
        with self._guard():
            database = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
            )
        try:
            with self._guard():
                check_header(database, self.path)
                self._check_length(database)
                # Of a new file; one that is there keeps its own.
                database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute(f"PRAGMA cache_size = {-_CACHE_KILOBYTES}")
                database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_BYTES // _PAGE_BYTES}")
                self._migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def _check_length(self, database: sqlite3.Connection) -> None:
        """A file that was cut off would only be noticed by whoever needs what is missing."""
        if self.path.with_name(f"{FILE_NAME}-wal").exists():
            return
        [pages] = database.execute("PRAGMA page_count").fetchone()
        [page_size] = database.execute("PRAGMA page_size").fetchone()
        header = self.path.read_bytes()[:32] if self.path.stat().st_size else b""
        if len(header) == 32:
            pages = max(pages, int.from_bytes(header[28:], "big"))
        if header and self.path.stat().st_size < pages * page_size:
            raise LedgerError(
                f"The ledger {self.path} is damaged: it is shorter than it says. It was left as it is. Restore it, or"
                " move it away: jobs that are still on the server are then found there."
            )

    @staticmethod
    def _migrate(database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")
        try:
            [version] = database.execute("PRAGMA user_version").fetchone()
            for migration in _MIGRATIONS[version:]:
                for statement in _statements(migration):
                    database.execute(statement)
            # The header is written only where it changes: others may be reading.
            if version < len(_MIGRATIONS):
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Closes the file, and says that its owner is gone."""
        with self._lock, suppress(sqlite3.Error):
            self._database.close()
        self._let_go()

    def _let_go(self) -> None:
        self._alive.release()
        with suppress(OSError):
            Path(self._alive.lock_file).unlink(missing_ok=True)

    def _guard(self) -> AbstractContextManager[None]:
        return guard(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._guard():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @property
    def _scope(self) -> int:
        """This scope's number; one that none has while nothing of it was written down."""
        if self._scope_id is None:
            row = self._database.execute(
                "SELECT id FROM scopes WHERE pipeline = ? AND task = ? AND base_url = ?",
                (self._name.pipeline, self._name.task, self._name.base_url),
            ).fetchone()
            self._scope_id = row[0] if row else None
        return self._scope_id or 0

    def _make_scope(self) -> None:
        """Comes before the first thing that is written down: who only looks, under a mistyped name, leaves nothing."""
        if self._scope_id is None:
            with self._transaction() as database:
                database.execute(
                    "INSERT OR IGNORE INTO scopes (pipeline, task, base_url) VALUES (?, ?, ?)",
                    (self._name.pipeline, self._name.task, self._name.base_url),
                )

    def submissions(self) -> list[tuple[str, str]]:
        """The names of the runs whose rows are kept, and the address of each one's server."""
        with self._lock, self._guard():
            return self._database.execute(
                "SELECT pipeline, base_url FROM scopes WHERE task = ''"
                " AND EXISTS (SELECT 1 FROM rows WHERE scope = scopes.id) ORDER BY id"
            ).fetchall()

    def look_up(self, custom_ids: Sequence[str]) -> dict[str, Known]:
        """What is known of requests; those that were never asked, or whose job came to nothing, are left out."""
        with self._lock, self._guard():
            rows = self._database.execute(
                "SELECT custom_id, job, requests.state, attempts, handed_over, status_code, code, requests.error,"
                " line, tokens_in, tokens_out"
                " FROM requests JOIN jobs ON jobs.id = job LEFT JOIN answers ON request = requests.id"
                " WHERE requests.scope = ? AND custom_id IN (SELECT value FROM json_each(?))"
                " AND (requests.state != 'asked' OR jobs.state != ?)",
                (self._scope, orjson.dumps(custom_ids).decode(), JobState.DROPPED.value),
            ).fetchall()
        return {
            custom_id: Known(job, attempts, _outcome(state, *said), bool(handed_over))
            for custom_id, job, state, attempts, handed_over, *said in rows
        }

    def handed_over(self, digest: str) -> int:
        """The number behind the last answer to a question that was given to a run that came to its end.

        Those before it may have failed, so counting the answers would lead to one that was given already.
        """
        with self._lock, self._guard():
            [number] = self._database.execute(
                "SELECT coalesce(max(CAST(substr(custom_id, ?) AS INTEGER)) + 1, 0) FROM requests"
                " WHERE scope = ? AND custom_id > ? AND custom_id < ? AND handed_over",
                (len(digest) + 2, self._scope, f"{digest}-", f"{digest}."),
            ).fetchone()
        return int(number)

    def hand_over(self) -> None:
        """Says that a run has come to its end with all the answers there are."""
        with self._transaction() as database:
            database.execute(
                "UPDATE requests SET handed_over = 1 WHERE scope = ? AND state = 'answered' AND NOT handed_over",
                (self._scope,),
            )

    def forget(self) -> int:
        """Drops what became of this scope's requests, so that a later run buys them again.

        Those that a job under way has, or had, stay: whoever runs it goes by their numbers.

        Returns:
            How many were dropped.
        """
        with self._transaction() as database:
            marks = ", ".join("?" * len(OPEN_STATES))
            open_jobs = database.execute(
                "SELECT id, owner, EXISTS (SELECT 1 FROM requests WHERE job = jobs.id AND state = 'asked') FROM jobs"  # noqa: S608
                f" WHERE scope = ? AND state IN ({marks})",
                (self._scope, *(state.value for state in OPEN_STATES)),
            ).fetchall()
            # A run that died may leave a job uncollected of which nothing is missing.
            under_way = [job for job, owner, is_asked in open_jobs if is_asked or self._lives(owner)]
            database.execute(
                "CREATE TEMPORARY TABLE forgotten AS SELECT id FROM requests WHERE scope = :scope AND id NOT IN ("
                "SELECT id FROM requests WHERE job IN (SELECT value FROM json_each(:jobs)) UNION ALL"
                " SELECT request FROM other_jobs WHERE job IN (SELECT value FROM json_each(:jobs)))",
                {"scope": self._scope, "jobs": orjson.dumps(under_way).decode()},
            )
            # The jobs stay, so that they are not looked for on the server.
            database.execute("DELETE FROM answers WHERE request IN (SELECT id FROM forgotten)")
            database.execute("DELETE FROM other_jobs WHERE request IN (SELECT id FROM forgotten)")
            forgotten = database.execute("DELETE FROM requests WHERE id IN (SELECT id FROM forgotten)").rowcount
            database.execute("DROP TABLE forgotten")
        return forgotten

    def plan(self, shard: Shard, state: JobState = JobState.PLANNED) -> tuple[Job, list[str]]:
        """Writes down the intent to buy a shard, before anything else happens.

        Args:
            shard: what is to be bought.
            state: how: `PLANNED`, in a batch, or `SYNCHRONOUS`.

        Returns:
            The job, and the `custom_id`s in it: those of the shard that no other process has put into a job or had
            answered meanwhile.
        """
        now, key = time.time(), uuid4().hex
        claimed: list[str] = []
        self._make_scope()
        with self._transaction() as database:
            job = database.execute(
                "INSERT INTO jobs (scope, key, owner, state, endpoint, model, requests, bytes, intended_at)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (
                    self._scope,
                    key,
                    self.owner,
                    state.value,
                    shard.endpoint,
                    shard.requests[0].model,
                    shard.size,
                    now,
                ),
            ).lastrowid
            assert job is not None
            claimed = self._claim(database, job, [request.custom_id for request in shard.requests])
            database.execute("UPDATE jobs SET requests = ? WHERE id = ?", (len(claimed), job))
        return Job(job, key, self.owner, state, shard.endpoint, len(claimed), now), claimed

    def _claim(self, database: sqlite3.Connection, job: int, custom_ids: Sequence[str]) -> list[str]:
        """Puts requests into a job, except for those that are in another one, or answered."""
        claimed = []
        for start in range(0, len(custom_ids), _CHUNK):
            chunk = custom_ids[start : start + _CHUNK]
            is_free = dict(
                database.execute(
                    "SELECT custom_id, requests.state = 'failed' OR (requests.state = 'asked' AND jobs.state = ?)"
                    " FROM requests JOIN jobs ON jobs.id = job"
                    " WHERE requests.scope = ? AND custom_id IN (SELECT value FROM json_each(?))",
                    (JobState.DROPPED.value, self._scope, orjson.dumps(chunk).decode()),
                )
            )
            database.executemany(
                "INSERT INTO requests (scope, custom_id, job, state, attempts) VALUES (?, ?, ?, 'asked', 1)",
                ((self._scope, custom_id, job) for custom_id in chunk if custom_id not in is_free),
            )
            database.executemany(
                "UPDATE requests SET attempts = attempts + (state = 'failed'), job = ?, state = 'asked',"
                " status_code = NULL, code = NULL, error = NULL WHERE scope = ? AND custom_id = ?",
                ((job, self._scope, custom_id) for custom_id, free in is_free.items() if free),
            )
            claimed += [custom_id for custom_id in chunk if is_free.get(custom_id, True)]
        return claimed

    def adopt(self, batch: Batch, key: str, custom_ids: Sequence[str]) -> Job | None:
        """Takes a batch that is under way on the server, but not in the ledger, for a job of this scope.

        Returns:
            The job, with those of the requests that are in no other one and not answered; `None` if the ledger knows it
            by now.
        """
        self._make_scope()
        with self._transaction() as database:
            job = self._insert_adopted(database, batch, key, JobState.CREATED)
            if job is None:
                return None
            claimed = self._claim(database, job, custom_ids)
            database.execute("UPDATE jobs SET requests = ? WHERE id = ?", (len(claimed), job))
        return self.job(job)

    def adopt_results(self, batch: Batch, key: str, results: Sequence[tuple[str, Outcome]]) -> bool:
        """Takes a batch that has ended, but is not in the ledger, for a job of this scope that is collected.

        Its answers are taken whatever else is known of their requests, short of another answer; its failures where
        nothing is.

        Args:
            batch: that has ended.
            key: what it is found by.
            results: `custom_id`s, and what became of them.

        Returns:
            `False` if the ledger knows it by now.
        """
        answers = [(custom_id, outcome) for custom_id, outcome in results if isinstance(outcome, Answer)]
        failures = [(custom_id, outcome) for custom_id, outcome in results if isinstance(outcome, Failure)]
        self._make_scope()
        with self._transaction() as database:
            job = self._insert_adopted(database, batch, key, JobState.COLLECTED)
            if job is None:
                return False
            database.executemany(
                "INSERT INTO requests"
                " (scope, custom_id, job, state, attempts, status_code, tokens_in, tokens_out, tokens_cached)"
                " VALUES (?, ?, ?, 'answered', 1, 200, ?, ?, ?)"
                " ON CONFLICT (scope, custom_id) DO UPDATE SET state = 'answered', status_code = 200, code = NULL,"
                " error = NULL, tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out,"
                " tokens_cached = excluded.tokens_cached,"
                # A job that is under way keeps its members.
                " job = CASE state WHEN 'asked' THEN job ELSE excluded.job END WHERE state != 'answered'",
                [(self._scope, custom_id, job, *answer.tokens, answer.cached_tokens) for custom_id, answer in answers],
            )
            database.executemany(
                "INSERT OR IGNORE INTO answers (request, line)"
                " SELECT id, ? FROM requests WHERE scope = ? AND custom_id = ?",
                [(answer.line, self._scope, custom_id) for custom_id, answer in answers],
            )
            database.executemany(
                "INSERT OR IGNORE INTO requests (scope, custom_id, job, state, attempts, status_code, code, error)"
                " VALUES (?, ?, ?, 'failed', 1, ?, ?, ?)",
                [
                    (self._scope, custom_id, job, failure.status_code, failure.code, failure.message)
                    for custom_id, failure in failures
                ],
            )
            database.executemany(
                "INSERT OR IGNORE INTO other_jobs (request, job)"
                " SELECT id, :job FROM requests WHERE scope = :scope AND custom_id = :custom_id AND job != :job",
                ({"job": job, "scope": self._scope, "custom_id": custom_id} for custom_id, _ in results),
            )
            database.execute("UPDATE jobs SET requests = ? WHERE id = ?", (len(results), job))
        return True

    def _insert_adopted(self, database: sqlite3.Connection, batch: Batch, key: str, state: JobState) -> int | None:
        if database.execute("SELECT 1 FROM jobs WHERE key = ? OR batch_id = ?", (key, batch.id)).fetchone():
            return None
        now = time.time()
        return database.execute(
            "INSERT INTO jobs (scope, key, owner, state, endpoint, model, requests, bytes, intended_at,"
            " input_file_id, batch_id, status, completed, failed, total, ended_at, in_progress_at, finalizing_at,"
            " cancelling_at, finished_at)"
            " VALUES (?, ?, ?, ?, ?, '', 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._scope,
                key,
                self.owner,
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
                *_moments(batch).values(),
            ),
        ).lastrowid

    def knows(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that belong to a job, of whichever scope."""
        with self._lock, self._guard():
            rows = self._database.execute(
                "SELECT key FROM jobs WHERE key IN (SELECT value FROM json_each(?))",
                (orjson.dumps(list(keys)).decode(),),
            )
            return {key for (key,) in rows}

    def job(self, job_id: int) -> Job:
        """A job as it is now."""
        with self._lock, self._guard():
            row = self._database.execute(
                "SELECT id, key, owner, state, endpoint, requests, intended_at, input_file_id, batch_id FROM jobs"
                " WHERE id = ?",
                (job_id,),
            ).fetchone()
        id_, key, owner, state, *rest = row
        return Job(id_, key, owner, JobState(state), *rest)

    def jobs(self) -> list[JobFacts]:
        """The jobs of this scope that have a batch, oldest first."""
        with self._lock, self._guard():
            rows = self._database.execute(
                "SELECT batch_id, requests, bytes, coalesce(status, state) FROM jobs"
                " WHERE scope = ? AND batch_id IS NOT NULL ORDER BY id",
                (self._scope,),
            ).fetchall()
        return [JobFacts(*row) for row in rows]

    def pipeline_of(self, batch_id: str) -> str | None:
        """The first part of the scope that a batch belongs to, if the ledger knows it."""
        with self._lock, self._guard():
            row = self._database.execute(
                "SELECT pipeline FROM jobs JOIN scopes ON scopes.id = scope WHERE batch_id = ?", (batch_id,)
            ).fetchone()
        return row[0] if row else None

    def batches_of(self, custom_ids: Iterable[str]) -> dict[str, set[str]]:
        """The ids of the batches that each request is, or was, in; none for those that were in none."""
        found: dict[str, set[str]] = {}
        with self._lock, self._guard():
            rows = self._database.execute(
                "SELECT custom_id, batch_id FROM requests JOIN ("
                "SELECT id AS request, job FROM requests UNION ALL SELECT request, job FROM other_jobs) AS every"
                " ON every.request = requests.id JOIN jobs ON jobs.id = every.job"
                " WHERE requests.scope = ? AND batch_id IS NOT NULL"
                " AND custom_id IN (SELECT value FROM json_each(?))",
                (self._scope, orjson.dumps(list(custom_ids)).decode()),
            )
            for custom_id, batch_id in rows:
                found.setdefault(custom_id, set()).add(batch_id)
        return found

    def came_to_nothing(self, custom_ids: Iterable[str]) -> dict[str, Failure]:
        """Those of the requests whose job came to nothing, and why it did."""
        with self._lock, self._guard():
            rows = self._database.execute(
                "SELECT custom_id, batch_id, coalesce(jobs.error, 'it was never created') FROM requests"
                " JOIN jobs ON jobs.id = job WHERE requests.scope = ? AND requests.state = 'asked' AND jobs.state = ?"
                " AND custom_id IN (SELECT value FROM json_each(?))",
                (self._scope, JobState.DROPPED.value, orjson.dumps(list(custom_ids)).decode()),
            ).fetchall()
        return {custom_id: batch_failure(batch_id, error) for custom_id, batch_id, error in rows}

    def keep_rows(self, lines: Sequence[bytes], file_id: str | None) -> None:
        """Remembers the rows of a submission, in place of those that it had.

        Args:
            lines: each row, as JSON.
            file_id: the server's id of the file that has them too.
        """
        self._make_scope()
        with self._transaction() as database:
            database.execute("DELETE FROM rows WHERE scope = ?", (self._scope,))
            database.executemany(
                "INSERT INTO rows (scope, number, line) VALUES (?, ?, ?)",
                ((self._scope, number, line) for number, line in enumerate(lines)),
            )
            database.execute("UPDATE scopes SET rows_file_id = ? WHERE id = ?", (file_id, self._scope))

    def rows(self) -> tuple[list[bytes], str | None]:
        """The rows of a submission, and the server's id of the file that has them too."""
        with self._lock, self._guard():
            lines = self._database.execute("SELECT line FROM rows WHERE scope = ? ORDER BY number", (self._scope,))
            rows = [line for (line,) in lines]
            row = self._database.execute("SELECT rows_file_id FROM scopes WHERE id = ?", (self._scope,)).fetchone()
        return rows, row[0] if row else None

    def open_jobs(self) -> list[Job]:
        """The jobs of this scope that are under way."""
        marks = ", ".join("?" * len(OPEN_STATES))
        with self._lock, self._guard():
            rows = self._database.execute(
                f"SELECT id FROM jobs WHERE scope = ? AND state IN ({marks}) ORDER BY id",  # noqa: S608
                (self._scope, *(state.value for state in OPEN_STATES)),
            ).fetchall()
        return [self.job(job_id) for (job_id,) in rows]

    def beside(self, job_id: int) -> set[int]:
        """The jobs of other scopes that ask the server for a job's model, and are under way in a run that lives."""
        with self._lock, self._guard():
            rows = self._database.execute(
                "SELECT jobs.id, owner FROM jobs JOIN scopes ON scopes.id = scope"
                " WHERE base_url = ? AND scope != ? AND state = ? AND model = (SELECT model FROM jobs WHERE id = ?)",
                (self._name.base_url, self._scope, JobState.CREATED.value, job_id),
            ).fetchall()
        lives = {owner: self._lives(owner) for _, owner in rows}
        return {number for number, owner in rows if lives[owner]}

    def members(self, job: Job) -> dict[str, int]:
        """The `custom_id`s of a job's requests, and their numbers here."""
        with self._lock, self._guard():
            return dict(
                self._database.execute("SELECT custom_id, id FROM requests WHERE job = ? ORDER BY id", (job.id,))
            )

    def take_over(self, job: Job) -> Job | None:
        """Makes the job of an owner that died one's own.

        Returns:
            The job; `None` where its owner is alive, or another one was quicker.
        """
        if job.owner != self.owner and self._lives(job.owner):
            return None
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE jobs SET owner = ? WHERE id = ? AND owner = ?", (self.owner, job.id, job.owner)
            ).rowcount
        return self.job(job.id) if changed else None

    def _lives(self, owner: str) -> bool:
        path = self._owners / f"{owner}.lock"
        if not path.exists():
            return False
        # One thread at a time: another one's look at a dead owner's lock is no sign of life.
        with _looking_at_owners:
            if is_held(path):
                # Another process that looked may have removed it meanwhile.
                return path.exists()
            # Still one at a time: a lock whose file is removed while it is taken is not given.
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return False

    def uploaded(self, job: Job, input_file_id: str) -> Job:
        """The job's input file is on the server."""
        return self._advance(job, JobState.UPLOADED, input_file_id=input_file_id)

    def created(self, job: Job, batch: Batch) -> Job:
        """The server has the job's batch."""
        return self._advance(job, JobState.CREATED, batch_id=batch.id, status=batch.status)

    def ended(self, job: Job, batch: Batch) -> Job:
        """The job's batch will not change any more."""
        return self._advance(
            job,
            JobState.ENDED,
            status=batch.status,
            completed=batch.completed,
            failed=batch.failed,
            total=batch.total,
            ended_at=time.time(),
            error="; ".join(map(str, batch.errors)) or None,
            **_moments(batch),
        )

    def looked_at(self, job: Job, batch: Batch) -> None:
        """The job's batch was seen to have got on, for those who want to know how fast it did."""
        moments = _moments(batch)
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO looks (job, seen_at, completed, failed) VALUES (?, ?, ?, ?)",
                (job.id, time.time(), batch.completed, batch.failed),
            )
            database.execute(
                "UPDATE jobs SET in_progress_at = ?, finalizing_at = ?, cancelling_at = ?, finished_at = ?"
                " WHERE id = ?",
                (*moments.values(), job.id),
            )

    def created_anew(self, job: Job) -> Job:
        """The job's batch was refused for a reason that has passed: it is to be created again, under another key."""
        key = uuid4().hex
        moments = dict.fromkeys(_MOMENTS)
        anew = self._advance(job, JobState.UPLOADED, key=key, batch_id=None, **moments)
        return replace(anew, key=key, batch_id=None)

    def dropped(self, job: Job, error: str | None = None) -> Job:
        """The job came to nothing; its requests are free.

        Args:
            job: which one.
            error: why, where its batch does not say so.
        """
        return self._advance(job, JobState.DROPPED, **({"error": error} if error else {}))

    def lost(self, job: Job) -> Job:
        """The server does not know the job's batch, and the user does not hope for it any more."""
        return self._advance(job, JobState.DROPPED, status=LOST, error="The server did not know this batch any more.")

    def _advance(self, job: Job, state: JobState, **columns: str | float | None) -> Job:
        if state not in TRANSITIONS[job.state]:
            raise ValueError(f"a job that is {job.state.value} cannot become {state.value}")
        assignments = ", ".join(f"{column} = ?" for column in ("state", *columns))
        with self._transaction() as database:
            database.execute(
                f"UPDATE jobs SET {assignments} WHERE id = ?",  # noqa: S608  # the names are those above
                (state.value, *columns.values(), job.id),
            )
        facts = {name: value for name, value in columns.items() if name in ("input_file_id", "batch_id")}
        return replace(job, state=state, **facts)  # type: ignore[arg-type]

    def record(self, members: Mapping[str, int], results: Mapping[str, Outcome]) -> None:
        """Writes down what became of some of a job's requests. What is answered stays answered.

        Args:
            members: what `members` said of the job.
            results: `custom_id`s among them, and what became of them.
        """
        answers = {name: outcome for name, outcome in results.items() if isinstance(outcome, Answer)}
        failures = {name: outcome for name, outcome in results.items() if isinstance(outcome, Failure)}
        with self._transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO answers (request, line) VALUES (?, ?)",
                ((members[name], answer.line) for name, answer in answers.items()),
            )
            database.executemany(
                "UPDATE requests SET state = 'answered', tokens_in = ?, tokens_out = ?, tokens_cached = ?,"
                " status_code = 200, code = NULL, error = NULL WHERE id = ? AND state != 'answered'",
                ((*answer.tokens, answer.cached_tokens, members[name]) for name, answer in answers.items()),
            )
            database.executemany(
                "UPDATE requests SET state = 'failed', status_code = ?, code = ?, error = ? WHERE id = ?"
                " AND state = 'asked'",
                (
                    (failure.status_code, failure.code, failure.message, members[name])
                    for name, failure in failures.items()
                ),
            )

    def collected(self, job: Job, missing: Failure) -> Job:
        """All of a job's results are recorded: what is still open was not among them."""
        if JobState.COLLECTED not in TRANSITIONS[job.state]:
            raise ValueError(f"a job that is {job.state.value} cannot become collected")
        with self._transaction() as database:
            database.execute(
                "UPDATE requests SET state = 'failed', code = ?, error = ? WHERE job = ? AND state = 'asked'",
                (missing.code, missing.message, job.id),
            )
            database.execute(
                # A batch has ended before; requests that were asked one by one have ended now.
                "UPDATE jobs SET state = ?, ended_at = coalesce(ended_at, ?) WHERE id = ?",
                (JobState.COLLECTED.value, time.time(), job.id),
            )
        return replace(job, state=JobState.COLLECTED)


def _moments(batch: Batch) -> dict[str, float | None]:
    """When a batch went through its statuses, as far as its server says."""
    return {name: getattr(batch, name) for name in _MOMENTS}


def _outcome(
    state: str,
    status_code: int | None,
    code: str | None,
    error: str | None,
    line: bytes | None,
    tokens_in: int | None,
    tokens_out: int | None,
) -> Outcome | None:
    if state == "asked":
        return None
    if state == "failed":
        return Failure(error or "no message", status_code, code)
    if line is None:
        return Failure("The ledger has lost this answer.", code="missing_result")
    return Answer(line, (tokens_in or 0, tokens_out or 0))
