"""Counts of collected jobs, so that commands need not read every request of a large ledger.

The counts are recorded when a job is collected. A later change of the job's requests deletes the counts, and readers
count the requests again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from distilabel_openai_batch.api.usage import LONG_PROMPT

_SUMS = f"""
    coalesce(sum(requests.state = 'answered'), 0) AS answered, coalesce(sum(requests.state = 'failed'), 0) AS failed,
    coalesce(sum(requests.state = 'asked'), 0) AS pending, coalesce(sum(requests.tokens_in), 0) AS tokens_in,
    coalesce(sum(requests.tokens_out), 0) AS tokens_out, coalesce(sum(requests.tokens_cached), 0) AS tokens_cached,
    coalesce(sum(requests.tokens_written), 0) AS tokens_written,
    coalesce(sum(requests.tokens_reasoning), 0) AS tokens_reasoning,
    group_concat(CASE WHEN requests.tokens_in > {LONG_PROMPT} THEN
        requests.tokens_in || ' ' || coalesce(requests.tokens_out, 0) || ' ' || coalesce(requests.tokens_cached, 0)
            || ' ' || coalesce(requests.tokens_written, 0) || ' ' || coalesce(requests.tokens_reasoning, 0)
    END) AS long_usages
"""

COLUMNS = (
    "job, answered, failed, pending, tokens_in, tokens_out, tokens_cached, tokens_written, tokens_reasoning,"
    " long_usages"
)
"""The columns of the table `job_counts`. `long_usages` lists the requests with long prompts, as the report reads them:
`in out cached written reasoning,in out cached written reasoning`."""

# The same sums, of the requests in packs.
_PACK_SUMS = """
    coalesce(sum(size * answered), 0) AS answered, 0 AS failed, coalesce(sum(size * (1 - answered)), 0) AS pending,
    coalesce(sum(tokens_in), 0) AS tokens_in, coalesce(sum(tokens_out), 0) AS tokens_out,
    coalesce(sum(tokens_cached), 0) AS tokens_cached, coalesce(sum(tokens_written), 0) AS tokens_written,
    coalesce(sum(tokens_reasoning), 0) AS tokens_reasoning, group_concat(long_usages) AS long_usages
"""

_TOTALS = """
    sum(answered), sum(failed), sum(pending), sum(tokens_in), sum(tokens_out), sum(tokens_cached),
    sum(tokens_written), sum(tokens_reasoning), group_concat(long_usages)
"""

_INSERT = f"""
    INSERT OR REPLACE INTO job_counts ({COLUMNS}) SELECT :job, {_TOTALS} FROM (
        SELECT {_SUMS} FROM requests WHERE job = :job UNION ALL SELECT {_PACK_SUMS} FROM packs WHERE job = :job
    )
"""  # noqa: S608  # parts of this module alone

_DELETE_OF_REQUESTS = """
    DELETE FROM job_counts WHERE job IN (
        SELECT job FROM requests WHERE scope = ? AND custom_id IN (SELECT value FROM json_each(?))
    )
"""

_DELETE_OF_SCOPE = "DELETE FROM job_counts WHERE job IN (SELECT id FROM jobs WHERE scope = ?)"


def counts_query(condition: str) -> str:
    """Return a query of the counts of jobs, with the columns `COLUMNS` and a row for each job that has requests.

    Args:
        condition: a condition on `jobs` in SQL, which limits the jobs whose requests are counted.
    """
    return f"""
        SELECT {COLUMNS} FROM job_counts
        UNION ALL SELECT job, {_TOTALS} FROM (
            SELECT jobs.id AS job, {_SUMS} FROM jobs JOIN requests ON requests.job = jobs.id
            WHERE jobs.id NOT IN (SELECT job FROM job_counts) AND {condition} GROUP BY jobs.id
            UNION ALL SELECT jobs.id AS job, {_PACK_SUMS} FROM jobs JOIN packs ON packs.job = jobs.id
            WHERE jobs.id NOT IN (SELECT job FROM job_counts) AND {condition} GROUP BY jobs.id
        ) GROUP BY job
    """  # noqa: S608  # the callers pass constants


def insert_counts(database: sqlite3.Connection, job_id: int) -> None:
    """Record the counts of a job whose requests all have an outcome.

    Args:
        database: SQLite's connection, in a transaction.
        job_id: the job's id.
    """
    database.execute(_INSERT, {"job": job_id})


def delete_counts(database: sqlite3.Connection, scope_id: int, custom_ids: Sequence[str] | None = None) -> None:
    """Delete the counts of jobs whose requests are about to change.

    Args:
        database: SQLite's connection, in a transaction.
        scope_id: the id of the scope's row.
        custom_ids: the requests that change; `None` for any requests of the scope.
    """
    if custom_ids is None:
        database.execute(_DELETE_OF_SCOPE, (scope_id,))
    else:
        database.execute(_DELETE_OF_REQUESTS, (scope_id, orjson.dumps(custom_ids).decode()))
