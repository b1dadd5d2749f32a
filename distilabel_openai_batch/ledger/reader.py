"""Reader of a ledger for the command line: all scopes, no write, and no lock that a pipeline could wait for.

Each query is one short statement on a connection of its own. Long tables are read in parts.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.entries import (
    INTERRUPTED,
    STATES_WITHOUT_BATCH,
    AnswerEntry,
    FailureEntry,
    JobEntry,
    JobTimeline,
    ScopeEntry,
)
from distilabel_openai_batch.ledger.files import FILE_NAME, sqlite_errors_translated
from distilabel_openai_batch.ledger.job_counts import COLUMNS, counts_query
from distilabel_openai_batch.ledger.owners import OWNERS_FOLDER, is_owner_alive, lock_path
from distilabel_openai_batch.ledger.pack_reader import PackReader
from distilabel_openai_batch.ledger.packs import PACK_COLUMNS
from distilabel_openai_batch.ledger.past_jobs import SELECT_DURATIONS, PastJobs
from distilabel_openai_batch.ledger.refused_parameters import LIST_REFUSED
from distilabel_openai_batch.ledger.schema import check_header
from distilabel_openai_batch.ledger.states import JobState, ScopeName

# The time that a query waits for a process that is recovering the file.
_BUSY_SECONDS = 10.0

# Rows per query: some megabytes of answers.
_CHUNK = 2_000

# Older schema versions lack these tables; a query of such a file reads empty ones.
_EMPTY_TABLES = {
    "rejections": "rejections (request, code, error) AS (SELECT NULL, NULL, NULL LIMIT 0)",
    "run_owners": "run_owners (owner, began_at) AS (SELECT NULL, NULL LIMIT 0)",
    "answer_sources": "answer_sources (scope, source) AS (SELECT NULL, NULL LIMIT 0)",
    "prompt_starts": "prompt_starts (request, text) AS (SELECT NULL, NULL LIMIT 0)",
    "replaced_requests": "replaced_requests (request) AS (SELECT NULL LIMIT 0)",
    "cut_answers": "cut_answers (request) AS (SELECT NULL LIMIT 0)",
    "job_counts": f"job_counts ({COLUMNS}) AS (SELECT {', '.join(['NULL'] * len(COLUMNS.split(', ')))} LIMIT 0)",
    "packs": f"packs ({PACK_COLUMNS}) AS (SELECT {', '.join(['NULL'] * len(PACK_COLUMNS.split(', ')))} LIMIT 0)",
    "refused_parameters": "refused_parameters (base_url, model, parameter) AS (SELECT NULL, NULL, NULL LIMIT 0)",
    "looks": "looks (job, completed, failed) AS (SELECT NULL, NULL, NULL LIMIT 0)",
}

_Parameters = Sequence[int | float | str] | Mapping[str, int | float | str]

# Older schema versions lack these columns; a query of such a file reads NULL in their place.
_LATER_COLUMNS = (
    "requests.tokens_cached",
    "requests.tokens_written",
    "requests.tokens_reasoning",
    "requests.tier",
    "requests.used_at",
    "jobs.prices",
    "jobs.billed_usage",
    "jobs.billed_model",
    "jobs.finished_at",
)
_COLUMNS = """
    SELECT 'requests.' || name FROM pragma_table_info('requests')
    UNION ALL SELECT 'jobs.' || name FROM pragma_table_info('jobs')
"""

# Requests with an outcome that a retry replaced.
_REPLACED = """
    SELECT job, requests.scope, requests.state = 'failed' OR rejections.request IS NOT NULL AS failed
    FROM replaced_requests JOIN requests ON requests.id = replaced_requests.request
        LEFT JOIN rejections ON rejections.request = requests.id
    WHERE requests.state != 'asked'
"""

_JOBS_TEMPLATE = """
    SELECT owner, pipeline, task, base_url, batch_id, jobs.state, coalesce(status, jobs.state), endpoint, model,
        requests,
        max(0, min(
            max(jobs.completed, coalesce(counts.answered, 0), coalesce(polled.completed, 0)),
            requests - coalesce(counts.failed, 0)
        ) - coalesce(rejected.answers, 0)),
        max(jobs.failed, coalesce(counts.failed, 0), coalesce(polled.failed, 0)) + coalesce(rejected.answers, 0)
            - coalesce(replaced.failures, 0),
        coalesce(counts.pending, 0),
        coalesce(counts.tokens_in, 0), coalesce(counts.tokens_out, 0), coalesce(counts.tokens_cached, 0), bytes,
        intended_at, ended_at, input_file_id, error,
        (SELECT line FROM requests JOIN answers ON request = requests.id WHERE job = jobs.id LIMIT 1),
        (SELECT packs.model FROM packs WHERE packs.job = jobs.id AND packs.model IS NOT NULL LIMIT 1),
        counts.long_usages, coalesce(cut.answers, 0), coalesce(counts.tokens_written, 0),
        coalesce(counts.tokens_reasoning, 0), jobs.prices, jobs.billed_usage,
        coalesce(replaced.number, 0), coalesce(replaced.failures, 0), tiers.usages,
        jobs.billed_model, jobs.finished_at
    FROM jobs JOIN scopes ON scopes.id = jobs.scope LEFT JOIN (
        {counts}
    ) AS counts ON counts.job = jobs.id LEFT JOIN (
        SELECT job, count(*) AS answers FROM rejections JOIN requests ON requests.id = request GROUP BY job
    ) AS rejected ON rejected.job = jobs.id LEFT JOIN (
        SELECT job, count(*) AS answers FROM cut_answers JOIN requests ON requests.id = request
        WHERE request NOT IN (SELECT request FROM replaced_requests) GROUP BY job
    ) AS cut ON cut.job = jobs.id LEFT JOIN (
        SELECT job, count(*) AS number, sum(failed) AS failures FROM ({REPLACED}) GROUP BY job
    ) AS replaced ON replaced.job = jobs.id LEFT JOIN (
        SELECT job, max(completed) AS completed, max(failed) AS failed FROM looks GROUP BY job
    ) AS polled ON polled.job = jobs.id AND jobs.state = 'created' LEFT JOIN (
        SELECT job, group_concat(usage, ';') AS usages FROM (
            SELECT job, requests.tier || ' ' || coalesce(sum(tokens_in), 0) || ' ' || coalesce(sum(tokens_out), 0)
                || ' ' || coalesce(sum(requests.tokens_cached), 0) || ' ' || coalesce(sum(requests.tokens_written), 0)
                || ' ' || coalesce(sum(requests.tokens_reasoning), 0) || '|' || coalesce(group_concat(
                    CASE WHEN tokens_in > :long_prompt THEN
                        tokens_in || ' ' || coalesce(tokens_out, 0) || ' ' || coalesce(requests.tokens_cached, 0)
                            || ' ' || coalesce(requests.tokens_written, 0)
                            || ' ' || coalesce(requests.tokens_reasoning, 0)
                    END), '') AS usage
            FROM requests WHERE requests.tier IS NOT NULL GROUP BY job, requests.tier
        ) GROUP BY job
    ) AS tiers ON tiers.job = jobs.id
    ORDER BY jobs.id
""".replace("{REPLACED}", _REPLACED)

_SCOPE_ID = "SELECT id FROM scopes WHERE pipeline = :pipeline AND task = :task AND base_url = :base_url"

_JOBS = _JOBS_TEMPLATE.replace("{counts}", counts_query("1"))

_JOBS_OF_SCOPE = _JOBS_TEMPLATE.replace("{counts}", counts_query(f"jobs.scope = ({_SCOPE_ID})")).replace(
    "ORDER BY jobs.id", f"WHERE jobs.scope = ({_SCOPE_ID}) ORDER BY jobs.id"
)

_TIMELINES = """
    SELECT jobs.id, in_progress_at, finalizing_at, cancelling_at, finished_at, seen_at, looks.completed, looks.failed
    FROM jobs LEFT JOIN looks ON looks.job = jobs.id ORDER BY jobs.id, seen_at
"""

_TIMELINES_OF_SCOPE = _TIMELINES.replace("ORDER BY", f"WHERE jobs.scope = ({_SCOPE_ID}) ORDER BY", 1)

_HAS_TIMELINES = "SELECT 1 FROM sqlite_master WHERE name = 'looks'"

_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE name = ?"

_SCOPES = f"""
    SELECT scopes.id, pipeline, task, base_url,
        coalesce(sum(counts.answered), 0) - coalesce(rejected.answers, 0)
            - coalesce(replaced.number - replaced.failures, 0),
        coalesce(sum(counts.failed), 0) + coalesce(rejected.answers, 0) - coalesce(replaced.failures, 0),
        coalesce(sum(counts.pending), 0), coalesce(sum(counts.tokens_in), 0), coalesce(sum(counts.tokens_out), 0),
        coalesce(replaced.number, 0)
    FROM scopes LEFT JOIN jobs ON jobs.scope = scopes.id LEFT JOIN ({counts_query("1")}) AS counts
        ON counts.job = jobs.id LEFT JOIN (
        SELECT scope, count(*) AS answers FROM rejections JOIN requests ON requests.id = request GROUP BY scope
    ) AS rejected ON rejected.scope = scopes.id LEFT JOIN (
        SELECT scope, count(*) AS number, sum(failed) AS failures FROM ({_REPLACED}) GROUP BY scope
    ) AS replaced ON replaced.scope = scopes.id
    GROUP BY scopes.id ORDER BY scopes.id
"""  # noqa: S608  # parts of this package alone

_FAILURES = """
    SELECT requests.id, custom_id, batch_id, iif(rejections.request, NULL, status_code),
        iif(rejections.request, rejections.code, requests.code), coalesce(rejections.error, requests.error), attempts,
        max(intended_at, coalesce(ended_at, 0)), owner, coalesce(text, ''), replaced_requests.request IS NOT NULL
    FROM requests JOIN jobs ON jobs.id = job LEFT JOIN rejections ON rejections.request = requests.id
        LEFT JOIN replaced_requests ON replaced_requests.request = requests.id
        LEFT JOIN prompt_starts ON prompt_starts.request = requests.id
    WHERE requests.id IN (
        SELECT * FROM (
            SELECT id FROM requests WHERE scope = :scope AND id > :last_id AND state = 'failed' ORDER BY id LIMIT :limit
        ) UNION SELECT * FROM (
            SELECT request FROM rejections JOIN requests ON requests.id = request
            WHERE scope = :scope AND request > :last_id ORDER BY request LIMIT :limit
        )
    ) ORDER BY requests.id LIMIT :limit
"""

# A run takes over the open jobs of a dead run → the moment of the end counts, not the order of the jobs.
_LAST_RUN = """
    SELECT owner FROM jobs WHERE scope = ? ORDER BY max(intended_at, coalesce(ended_at, 0)) DESC, id DESC LIMIT 1
"""

_RUNS = """
    SELECT jobs.owner, coalesce(began_at, min(intended_at))
    FROM jobs LEFT JOIN run_owners ON run_owners.owner = jobs.owner WHERE scope = ? GROUP BY jobs.owner
"""

# The last run that used answers, and whether its answers are those of the run that had the last job. If not, the run
# with the last job was interrupted before it used its answers, unless it only came to its end earlier.
_LAST_USE = """
    SELECT max(used_at) FROM (
        SELECT max(requests.used_at) AS used_at FROM requests WHERE scope = :scope
        UNION ALL SELECT max(used_at) FROM packs WHERE scope = :scope
    )
"""

_OWNS_USED = """
    SELECT sum(answers), sum(used), max(planned_at) FROM (
        SELECT count(*) AS answers, sum(requests.used_at = :last_use) AS used, max(intended_at) AS planned_at
        FROM requests JOIN jobs ON jobs.id = job
        WHERE requests.scope = :scope AND owner = :owner AND requests.state = 'answered'
        UNION ALL SELECT sum(size), sum(size * (used_at IS :last_use)), max(intended_at)
        FROM packs JOIN jobs ON jobs.id = packs.job WHERE packs.scope = :scope AND owner = :owner AND packs.answered
    )
"""

_ANSWERS = """
    SELECT requests.id, custom_id, batch_id, tokens_in, tokens_out, line, ended_at, requests.used_at, owner,
        replaced_requests.request IS NOT NULL
    FROM requests JOIN jobs ON jobs.id = job JOIN answers ON answers.request = requests.id
        LEFT JOIN replaced_requests ON replaced_requests.request = requests.id
    WHERE requests.scope = :scope AND requests.id > :last_id AND requests.state = 'answered'
    ORDER BY requests.id LIMIT :limit
"""

_COUNT_ANSWERS = """
    SELECT (
        SELECT count(*) FROM requests JOIN answers ON request = requests.id
        WHERE requests.scope = :scope AND requests.state = 'answered'
    ) + (SELECT coalesce(sum(size), 0) FROM packs WHERE scope = :scope AND packs.answered)
"""

_JOBS_OF_PACKS = "SELECT id, batch_id, ended_at, owner FROM jobs WHERE scope = ?"

_ADDRESSES = "SELECT base_url FROM scopes WHERE pipeline = ? AND task = ? ORDER BY id"

_SOURCES = """
    SELECT source.pipeline, source.task, source.base_url
    FROM answer_sources JOIN scopes ON scopes.id = scope JOIN scopes AS source ON source.id = answer_sources.source
    WHERE scopes.pipeline = ? AND scopes.task = ? AND scopes.base_url = ?
"""

_SUBMITTED = """
    SELECT custom_id
    FROM requests JOIN scopes ON scopes.id = requests.scope JOIN jobs ON jobs.id = job
    WHERE pipeline = ? AND task = ? AND base_url = ? AND custom_id IN (SELECT value FROM json_each(?))
        AND (requests.state = 'answered' OR (requests.state = 'asked' AND jobs.state != 'dropped'))
"""


class LedgerReader:
    """A ledger, for reading.

    Every query raises `LedgerError` if there is no ledger, or the file cannot be read.

    Attributes:
        path: the ledger file.
        packs: the packs of requests.

    Args:
        directory: the directory of the ledger file.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self.packs = PackReader(self._query)

    def is_in_use(self) -> bool:
        """Return `True` if a run has the ledger open. Each run holds a lock as long as the run lives."""
        return any(map(is_owner_alive, self.path.parent.glob(f"{OWNERS_FOLDER}/*.lock")))

    def jobs(self, scope: ScopeName | None = None) -> list[JobEntry]:
        """Return all jobs, oldest first.

        Args:
            scope: a scope whose jobs are returned; `None` for the jobs of all scopes.

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        entries = []
        is_alive: dict[str, bool] = {}
        parameters: dict[str, int | str] = {"long_prompt": LONG_PROMPT}
        if scope:
            parameters |= _scope_columns(scope)
        for row in self._query(_JOBS_OF_SCOPE if scope else _JOBS, parameters):
            owner, pipeline, task, base_url, batch_id, state_name, status, *columns = row
            *columns, replaced, replaced_failures, tiers, billed_model, finished_at = columns
            *columns, line, model, long_usages, cut, written, reasoning, prices, usage = columns
            name, state = ScopeName(pipeline, task, base_url), JobState(state_name)
            if not batch_id and state in STATES_WITHOUT_BATCH:
                if owner not in is_alive:
                    is_alive[owner] = is_owner_alive(lock_path(self.path.parent, owner))
                status = status if is_alive[owner] else INTERRUPTED
            billed = Usage(**orjson.loads(usage)) if usage else None
            answered_by = model or _model(line) or billed_model or ""
            values = (*columns, answered_by, _usages(long_usages), cut, written, reasoning, prices, billed)
            entry = JobEntry(name, batch_id, state, status, *values)
            others = {"replaced": replaced, "replaced_failures": replaced_failures, "finished_at": finished_at}
            entries.append(dataclasses.replace(entry, usage_by_tier=_usages_by_tier(tiers), **others))
        return entries

    def timelines(self, scope: ScopeName | None = None) -> list[JobTimeline]:
        """Return each job's timeline, in the order of `jobs`; an empty list for a file of schema version 1 to 4.

        Jobs are never deleted. If a pipeline inserts jobs between two queries, only the last jobs differ.

        Args:
            scope: see `jobs`.

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        if not self._query(_HAS_TIMELINES):
            return []
        timelines = []
        query = self._query(_TIMELINES_OF_SCOPE, _scope_columns(scope)) if scope else self._query(_TIMELINES)
        for _, job_rows in groupby(query, key=lambda row: row[0]):
            rows = list(job_rows)
            polls = tuple((seen_at, completed, failed) for *_, seen_at, completed, failed in rows if seen_at)
            in_progress_at, finalizing_at, cancelling_at, finished_at = rows[0][1:5]
            timelines.append(JobTimeline(in_progress_at, finalizing_at, cancelling_at, finished_at, polls))
        return timelines

    def past_jobs(self, base_url: str, model: str) -> PastJobs | None:
        """Return the durations of a model's past jobs at a server; `None` if there are too few, or no ledger.

        Args:
            base_url: the server's address, as the ledger spells it.
            model: the model that the requests name.
        """
        try:
            rows = self._query(SELECT_DURATIONS, (base_url, model)) if self._query(_HAS_TIMELINES) else []
        except LedgerError:
            return None
        return PastJobs.of(model, [seconds for (seconds,) in rows])

    def scopes(self) -> list[ScopeEntry]:
        """Return all scopes, oldest first.

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        return [ScopeEntry(row[0], ScopeName(*row[1:4]), *row[4:]) for row in self._query(_SCOPES)]

    def failures(self, scopes: Iterable[ScopeEntry]) -> Iterator[FailureEntry]:
        """Yield the requests of scopes that failed, or whose answer lacks a generation, oldest first in each scope.

        Raises:
            LedgerError: the file cannot be read.
        """
        for scope in scopes:
            runs = dict(self._query(_RUNS, (scope.id,)))
            last_run = [runs.get(owner) for (owner,) in self._query(_LAST_RUN, (scope.id,))]
            for row in self._query_in_parts(_FAILURES, scope):
                _, custom_id, batch_id, status_code, code, message, attempts, failed_at, owner, prompt, replaced = row
                yield FailureEntry(
                    scope.name,
                    custom_id,
                    batch_id,
                    status_code,
                    code,
                    message or "no message",
                    attempts,
                    failed_at,
                    runs.get(owner) in last_run,
                    prompt,
                    runs.get(owner, 0.0),
                    bool(replaced),
                )

    def answers(self, scope: ScopeEntry, *, of_last_run: bool = False) -> Iterator[AnswerEntry]:
        """Yield the answers of a scope, in the order in which the requests were planned.

        Args:
            scope: the scope.
            of_last_run: whether to yield only the answers that the last run used. If the last run was interrupted, the
                answers that its jobs received are yielded.

        Raises:
            LedgerError: the file cannot be read.
        """
        last_use, last_owner = self._last_run(scope) if of_last_run else (None, None)
        for _, owner, entry in merge(self._answers_in_rows(scope), self._answers_in_packs(scope), key=itemgetter(0)):
            if last_use in (None, entry.run_at) and last_owner in (None, owner):
                yield entry

    def _answers_in_rows(self, scope: ScopeEntry) -> Iterator[tuple[int, str, AnswerEntry]]:
        """Yield the id of each answered request that has a row, the owner of its job, and its answer."""
        label = scope.name.label
        for row in self._query_in_parts(_ANSWERS, scope):
            id_, custom_id, batch_id, tokens_in, tokens_out, line, answered_at, used_at, owner, replaced = row
            answer = Answer.from_line(line) if tokens_in is None else Answer(line, (tokens_in, tokens_out or 0))
            entry = AnswerEntry(custom_id, batch_id, answer, answered_at, used_at, None, label, bool(replaced))
            yield id_, owner, entry

    def _answers_in_packs(self, scope: ScopeEntry) -> Iterator[tuple[int, str, AnswerEntry]]:
        """Yield the id of each answered request in a pack, the owner of its job, and its answer."""
        label = scope.name.label
        jobs = {job_id: columns for job_id, *columns in self._query(_JOBS_OF_PACKS, (scope.id,))}
        for request_id, pack, index, line in self.packs.answers(scope.id):
            batch_id, ended_at, owner = jobs[pack.job]
            answer = Answer(line, pack.tokens(index)[:2])
            entry = AnswerEntry(pack.custom_id(index), batch_id, answer, ended_at, pack.used_at, scope=label)
            yield request_id, owner, entry

    def count_answers(self, scope: ScopeEntry) -> int:
        """Return the number of answers that `answers` yields, of all runs."""
        [(number,)] = self._query(_COUNT_ANSWERS, {"scope": scope.id}) or [(0,)]
        return int(number)

    def _last_run(self, scope: ScopeEntry) -> tuple[float | None, str | None]:
        """Return the begin of the last run, or the owner of its jobs if no run used their answers."""
        [(last_use,)] = self._query(_LAST_USE, {"scope": scope.id}) or [(None,)]
        for (owner,) in self._query(_LAST_RUN, (scope.id,)):
            [(answers, used, planned_at)] = self._query(
                _OWNS_USED, {"last_use": last_use or 0.0, "scope": scope.id, "owner": owner}
            )
            if answers and not used and planned_at > (last_use or 0.0):
                return None, owner
        return last_use, None

    def addresses(self, scope: ScopeName) -> list[str]:
        """Return the servers' addresses with which the file has a pipeline and a Task, oldest first.

        Args:
            scope: a scope with the names of pipeline and Task.

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        return [address for (address,) in self._query(_ADDRESSES, (scope.pipeline, scope.task))]

    def sources(self, scope: ScopeName) -> list[ScopeName]:
        """Return the scopes whose answers a scope takes for equal requests (`adopt --from`).

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        return [ScopeName(*name) for name in self._query(_SOURCES, (scope.pipeline, scope.task, scope.base_url))]

    def refused_parameters(self, base_url: str) -> list[tuple[str, str]]:
        """Return pairs of a model's name and a parameter that a server refused for the model.

        Args:
            base_url: address of the server, as the file has the address.

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        return [(model, parameter) for model, parameter in self._query(LIST_REFUSED, (base_url,))]

    def find_submitted(self, scope: ScopeName, custom_ids: Sequence[str]) -> set[str]:
        """Return the requests that have an answer or are pending in a job, and so will not be submitted again.

        Args:
            scope: the requests' scope.
            custom_ids: the requests.

        Raises:
            LedgerError: the file cannot be read.
        """
        found: set[str] = set()
        for start in range(0, len(custom_ids), _CHUNK):
            chunk = orjson.dumps(custom_ids[start : start + _CHUNK]).decode()
            rows = self._query(_SUBMITTED, (scope.pipeline, scope.task, scope.base_url, chunk))
            found.update(custom_id for (custom_id,) in rows)
        for (scope_id,) in self._query(_SCOPE_ID, _scope_columns(scope)):
            found |= self.packs.find_submitted(scope_id, custom_ids)
        return found

    def _query_in_parts(self, sql: str, scope: ScopeEntry) -> Iterator[Sequence[Any]]:
        """Yield the rows of a query by scope, last id and limit. The id is the first column."""
        last_id = 0
        while rows := self._query(sql, {"scope": scope.id, "last_id": last_id, "limit": _CHUNK}):
            yield from rows
            last_id = rows[-1][0]

    def _query(self, sql: str, parameters: _Parameters = ()) -> list[tuple[Any, ...]]:
        """Return a query's rows, and leave no file beside the ledger."""
        try:
            before = self._fingerprint()
        except FileNotFoundError:
            raise LedgerError(
                f"There is no ledger in {self.path.parent}. No run has submitted requests from here yet, or its"
                " ledger lies in another directory: choose that directory with --ledger-dir."
            ) from None
        except OSError as error:
            raise LedgerError(f"The ledger {self.path} cannot be opened: {error}") from None
        with sqlite_errors_translated(self.path):
            if before[-1]:
                return self._read("mode=ro", sql, parameters)
            # No process has the file open → read it as immutable. Otherwise SQLite would create a `-wal` and a
            # `-shm` file, which also fails in a read-only directory.
            try:
                rows = self._read("mode=ro&immutable=1", sql, parameters)
            except sqlite3.Error:
                if self._fingerprint() == before:
                    raise
            else:
                if self._fingerprint() == before:
                    return rows
            # A pipeline has opened the file meanwhile → read again, with SQLite's locks.
            return self._read("mode=ro", sql, parameters)

    def _fingerprint(self) -> tuple[int, int, bool]:
        """Return the file's mtime in ns, its size in bytes, and `True` if a process has the file open, or died then."""
        facts = self.path.stat()
        return facts.st_mtime_ns, facts.st_size, self.path.with_name(f"{FILE_NAME}-wal").exists()

    def _read(self, options: str, sql: str, parameters: _Parameters) -> list[tuple[Any, ...]]:
        address = f"{self.path.resolve().as_uri()}?{options}"
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
            check_header(database, self.path)
            if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                # A first run has created the file, and not yet the tables.
                return []
            columns = database.execute(_COLUMNS).fetchall()
            for name in _LATER_COLUMNS:
                if (name,) not in columns:
                    sql = sql.replace(name, "NULL")
            missing = [
                definition
                for name, definition in _EMPTY_TABLES.items()
                if name in sql and not database.execute(_HAS_TABLE, (name,)).fetchone()
            ]
            if missing:
                sql = f"WITH {', '.join(missing)}{sql}"
            return database.execute(sql, parameters).fetchall()


def _scope_columns(scope: ScopeName) -> dict[str, int | str]:
    return {"pipeline": scope.pipeline, "task": scope.task, "base_url": scope.base_url}


def _usages(text: str | None) -> tuple[Usage, ...]:
    """Return the usages in a list as `in out cached written reasoning,in out cached written reasoning`."""
    counts = (map(int, part.split()) for part in (text.split(",") if text else ()))
    return tuple(
        Usage(tokens_in, tokens_out, cached, written, reasoning)
        for tokens_in, tokens_out, cached, written, reasoning in counts
    )


def _usages_by_tier(text: str | None) -> tuple[tuple[str, Usage], ...]:
    """Return the tiers and usages in a list as `tier usage|long usages;tier usage|long usages`, see `_usages`."""
    usages = []
    for part in text.split(";") if text else ():
        tier, _, counts = part.partition(" ")
        total, _, long_usages = counts.partition("|")
        [usage] = _usages(total)
        usages.append((tier, dataclasses.replace(usage, long_prompts=_usages(long_usages))))
    return tuple(usages)


def _model(line: bytes | None) -> str:
    """Return the model that a result line names; empty if there is none."""
    return str(Answer(line, (0, 0)).body.get("model") or "") if line else ""
