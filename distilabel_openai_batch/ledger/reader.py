"""What a ledger holds, for those who only look: all scopes, nothing written, no lock held while a pipeline works on it.

Each look is one short statement on a connection of its own. Long tables are read in parts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.entries import (
    _BEFORE_ITS_BATCH,
    INTERRUPTED,
    AnswerEntry,
    Course,
    FailureEntry,
    JobEntry,
    ScopeEntry,
)
from distilabel_openai_batch.ledger.files import FILE_NAME, guard, is_held
from distilabel_openai_batch.ledger.schema import check_header
from distilabel_openai_batch.ledger.states import JobState, ScopeName

# As long as one look waits for a process that is just recovering the file.
_BUSY_SECONDS = 10.0

# Rows read in one statement: some megabytes of answers.
_CHUNK = 2_000


_Parameters = Sequence[int | str] | Mapping[str, int]

# A column that older ledgers do not have.
_NEW = "requests.tokens_cached"


_JOBS = """
    SELECT owner, pipeline, task, base_url, batch_id, jobs.state, coalesce(status, jobs.state), endpoint, model,
        requests,
        max(completed, coalesce(its.answered, 0)), max(jobs.failed, coalesce(its.failed, 0)),
        coalesce(its.asked, 0),
        coalesce(its.tokens_in, 0), coalesce(its.tokens_out, 0), coalesce(its.tokens_cached, 0), bytes, intended_at,
        ended_at, input_file_id, error,
        (SELECT line FROM requests JOIN answers ON request = requests.id WHERE job = jobs.id LIMIT 1), its.long
    FROM jobs JOIN scopes ON scopes.id = jobs.scope LEFT JOIN (
        SELECT job, sum(state = 'answered') AS answered, sum(state = 'failed') AS failed,
            sum(state = 'asked') AS asked, sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out,
            sum(requests.tokens_cached) AS tokens_cached,
            group_concat(CASE WHEN tokens_in > :long_prompt THEN
                tokens_in || ' ' || coalesce(tokens_out, 0) || ' ' || coalesce(requests.tokens_cached, 0) END) AS long
        FROM requests GROUP BY job
    ) AS its ON its.job = jobs.id
    ORDER BY jobs.id
"""

_COURSES = """
    SELECT jobs.id, in_progress_at, finalizing_at, cancelling_at, finished_at, seen_at, looks.completed, looks.failed
    FROM jobs LEFT JOIN looks ON looks.job = jobs.id ORDER BY jobs.id, seen_at
"""

_HAS_COURSES = "SELECT 1 FROM sqlite_master WHERE name = 'looks'"

_SCOPES = """
    SELECT scopes.id, pipeline, task, base_url,
        coalesce(sum(state = 'answered'), 0), coalesce(sum(state = 'failed'), 0), coalesce(sum(state = 'asked'), 0),
        coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0)
    FROM scopes LEFT JOIN requests ON requests.scope = scopes.id
    GROUP BY scopes.id ORDER BY scopes.id
"""

_FAILURES = """
    SELECT requests.id, custom_id, batch_id, status_code, code, requests.error, attempts
    FROM requests JOIN jobs ON jobs.id = job
    WHERE requests.scope = ? AND requests.id > ? AND requests.state = 'failed' ORDER BY requests.id LIMIT ?
"""

_ANSWERS = """
    SELECT requests.id, custom_id, batch_id, tokens_in, tokens_out, line
    FROM requests JOIN jobs ON jobs.id = job JOIN answers ON request = requests.id
    WHERE requests.scope = ? AND requests.id > ? AND requests.state = 'answered' ORDER BY requests.id LIMIT ?
"""

_BOUGHT = """
    SELECT custom_id
    FROM requests JOIN scopes ON scopes.id = requests.scope JOIN jobs ON jobs.id = job
    WHERE pipeline = ? AND task = ? AND base_url = ? AND custom_id IN (SELECT value FROM json_each(?))
        AND (requests.state = 'answered' OR (requests.state = 'asked' AND jobs.state != ?))
"""


class Inventory:
    """A ledger, to be looked at.

    Args:
        directory: where it lies.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME

    def is_in_use(self) -> bool:
        """Whether a run has the ledger open: each holds a lock for as long as it lives."""
        return any(map(_is_alive, self.path.parent.glob("owners/*.lock")))

    def jobs(self) -> list[JobEntry]:
        """All jobs, oldest first.

        Raises:
            LedgerError: there is no ledger, or it cannot be read.
        """
        entries = []
        is_alive: dict[str, bool] = {}
        for row in self._rows(_JOBS, {"long_prompt": LONG_PROMPT}):
            owner, pipeline, task, base_url, batch_id, state_name, status, *facts, line, long = row
            scope, state = ScopeName(pipeline, task, base_url), JobState(state_name)
            if not batch_id and state in _BEFORE_ITS_BATCH:
                if owner not in is_alive:
                    is_alive[owner] = _is_alive(self.path.parent / "owners" / f"{owner}.lock")
                status = status if is_alive[owner] else INTERRUPTED
            entries.append(JobEntry(scope, batch_id, state, status, *(*facts, _model(line), _usages(long))))
        return entries

    def courses(self) -> list[Course]:
        """How each job went on, in the order of `jobs`; none where an older release wrote the ledger.

        Jobs are never removed, so where a pipeline works on the ledger the last ones alone may be missing there.

        Raises:
            LedgerError: there is no ledger, or it cannot be read.
        """
        if not self._rows(_HAS_COURSES):
            return []
        courses = []
        for _, of_job in groupby(self._rows(_COURSES), key=lambda row: row[0]):
            rows = list(of_job)
            looks = tuple((seen_at, completed, failed) for *_, seen_at, completed, failed in rows if seen_at)
            in_progress_at, finalizing_at, cancelling_at, finished_at = rows[0][1:5]
            courses.append(Course(in_progress_at, finalizing_at, cancelling_at, finished_at, looks))
        return courses

    def scopes(self) -> list[ScopeEntry]:
        """All scopes, oldest first.

        Raises:
            LedgerError: there is no ledger, or it cannot be read.
        """
        return [ScopeEntry(row[0], ScopeName(*row[1:4]), *row[4:]) for row in self._rows(_SCOPES)]

    def failures(self, scopes: Iterable[ScopeEntry]) -> Iterator[FailureEntry]:
        """The requests of some scopes that have no answer, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        for scope in scopes:
            for custom_id, batch_id, status_code, code, message, attempts in self._all(_FAILURES, scope):
                yield FailureEntry(
                    scope.name, custom_id, batch_id, status_code, code, message or "no message", attempts
                )

    def answers(self, scope: ScopeEntry) -> Iterator[AnswerEntry]:
        """The answers of a scope, in the order in which they were asked.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        for custom_id, batch_id, tokens_in, tokens_out, line in self._all(_ANSWERS, scope):
            yield AnswerEntry(custom_id, batch_id, Answer(line, (tokens_in or 0, tokens_out or 0)))

    def bought(self, scope: ScopeName, custom_ids: Sequence[str]) -> set[str]:
        """Those of a scope's requests that have an answer or are under way, and so are not bought again.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found: set[str] = set()
        for start in range(0, len(custom_ids), _CHUNK):
            chunk = orjson.dumps(custom_ids[start : start + _CHUNK]).decode()
            names = (scope.pipeline, scope.task, scope.base_url, chunk, JobState.DROPPED.value)
            found.update(custom_id for (custom_id,) in self._rows(_BOUGHT, names))
        return found

    def _all(self, sql: str, scope: ScopeEntry) -> Iterator[Sequence[Any]]:
        last = 0
        while rows := self._rows(sql, (scope.id, last, _CHUNK)):
            for _, *row in rows:
                yield row
            last = rows[-1][0]

    def _rows(self, sql: str, parameters: _Parameters = ()) -> list[tuple[Any, ...]]:
        try:
            before = self._fingerprint()
        except FileNotFoundError:
            raise LedgerError(
                f"There is no ledger in {self.path.parent}. Nothing was asked through the Batch API from here yet, or"
                " its directory is another one: choose it with --ledger-dir."
            ) from None
        except OSError as error:
            raise LedgerError(f"The ledger {self.path} cannot be opened: {error}") from None
        with guard(self.path):
            if before[-1]:
                return self._read("mode=ro", sql, parameters)
            # Nobody has it open, and so it can be read as it lies there, on a disk that is read-only too. Otherwise
            # SQLite would leave two files beside it.
            try:
                rows = self._read("mode=ro&immutable=1", sql, parameters)
            except sqlite3.Error:
                if self._fingerprint() == before:
                    raise
            else:
                if self._fingerprint() == before:
                    return rows
            # A pipeline has come in between.
            return self._read("mode=ro", sql, parameters)

    def _fingerprint(self) -> tuple[int, int, bool]:
        """Changes with the file; the last part says whether somebody has it open, or died with it."""
        facts = self.path.stat()
        return facts.st_mtime_ns, facts.st_size, self.path.with_name(f"{FILE_NAME}-wal").exists()

    def _read(self, how: str, sql: str, parameters: _Parameters) -> list[tuple[Any, ...]]:
        address = f"{self.path.resolve().as_uri()}?{how}"
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
            check_header(database, self.path)
            if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                # It is being made.
                return []
            columns = database.execute("SELECT name FROM pragma_table_info('requests')").fetchall()
            if ("tokens_cached",) not in columns:
                # An older release wrote it, and only a run changes it.
                sql = sql.replace(_NEW, "NULL")
            return database.execute(sql, parameters).fetchall()


def _is_alive(lock: Path) -> bool:
    """Whether the session lives that made a lock."""
    # In a directory that is read-only nobody writes.
    with suppress(OSError):
        return lock.exists() and is_held(lock)
    return False


def _usages(listed: str | None) -> tuple[Usage, ...]:
    """The tokens of each long request."""
    found = []
    for each in listed.split(",") if listed else ():
        tokens_in, tokens_out, tokens_cached = map(int, each.split())
        found.append(Usage(tokens_in, tokens_out, tokens_cached))
    return tuple(found)


def _model(line: bytes | None) -> str:
    """The model's name in an answer."""
    return str(Answer(line, (0, 0)).body.get("model") or "") if line else ""
