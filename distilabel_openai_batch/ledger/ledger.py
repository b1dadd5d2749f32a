"""The ledger: requests, jobs and answers of every run in one SQLite file, from which the next run continues.

A request is pending while a job holds it, then answered or failed. A request belongs to a scope: pipeline, task and
server. An intent is on the disk before the server hears of the job, so a run may die at any moment.
"""

from __future__ import annotations

import os
from pathlib import Path

from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.adopted_jobs import AdoptedJobs
from distilabel_openai_batch.ledger.connection import Connection
from distilabel_openai_batch.ledger.files import FILE_NAME, check_locks
from distilabel_openai_batch.ledger.job_table import JobTable
from distilabel_openai_batch.ledger.other_scopes import OtherScopes
from distilabel_openai_batch.ledger.outlines import Outlines
from distilabel_openai_batch.ledger.owners import Owners
from distilabel_openai_batch.ledger.pack_table import PackTable
from distilabel_openai_batch.ledger.refused_parameters import RefusedParameters
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.reused_answers import ReusedAnswers
from distilabel_openai_batch.ledger.row_failures import RowFailures
from distilabel_openai_batch.ledger.scope_row import ScopeRow
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.ledger.submissions import Submissions


class Ledger:
    """The ledger file, open for one scope and one session. The parts' methods block; any thread may call them.

    Attributes:
        path: the ledger file.
        scope: the scope of all requests. If an earlier run of the scope spelled the server's address in another way,
            `scope` has the earlier spelling.
        owner: the session's id, in the column `jobs.owner` of its jobs.
        connection: SQLite's connection and its lock.
        requests: the scope's requests: look-up, record, delivery.
        jobs: the scope's jobs: plan, states, take-over.
        adopted_jobs: insertion of batches that the server has, and the ledger does not.
        submissions: rows and jobs of submissions.
        refused_parameters: parameters that the server refused for its models.
        other_scopes: the scopes besides the session's own scope.
        reused_answers: answers of other scopes that this scope takes.
        outlines: outlines of the requests of the scope's jobs.
        row_failures: answers that lack a generation, and rows that no request was sent for.

    Args:
        directory: the directory of the file, created for its user only.
        scope: the scope of all requests.
        prices: the user's prices, as a text that `pricing.own_prices` reads; each job records them. `None` for list
            prices.
        is_compressed: whether to compress the result lines of new answers.

    Raises:
        LedgerError: the file cannot be read or written, is damaged, is another program's, or a newer release wrote it;
            or its file system lacks shared memory or locks.
    """

    def __init__(
        self, directory: Path, scope: ScopeName, prices: str | None = None, *, is_compressed: bool = False
    ) -> None:
        self.path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            check_locks(self.path, directory)
            owners = Owners(directory)
        except OSError as error:
            raise LedgerError(f"The ledger {self.path} cannot be opened: {error}") from None
        try:
            self.connection = Connection(self.path, owners.opening_lock_path)
            scope_row = ScopeRow(self.connection, scope)
        except BaseException:
            owners.release()
            raise
        self.scope = scope_row.name
        self._owners = owners
        self.owner = owners.own_id
        packs = PackTable(self.connection, is_compressed=is_compressed)
        self.requests = RequestTable(self.connection, scope_row, owners, packs)
        self.jobs = JobTable(self.connection, scope_row, owners, self.requests, packs, prices)
        self.adopted_jobs = AdoptedJobs(self.connection, scope_row, owners, self.requests, prices)
        self.submissions = Submissions(self.connection, scope_row)
        self.refused_parameters = RefusedParameters(self.connection, self.scope.base_url)
        self.other_scopes = OtherScopes(self.connection, scope_row)
        self.outlines = Outlines(self.connection, scope_row)
        self.reused_answers = ReusedAnswers(self.connection, scope_row, owners, self.requests, packs)
        self.row_failures = RowFailures(self.connection, scope_row, owners, self.requests)

    def close(self) -> None:
        """Close the file, then unregister the session as an owner of jobs."""
        self.connection.close()
        self._owners.release()
