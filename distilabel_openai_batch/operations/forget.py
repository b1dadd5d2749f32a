"""Release the requests of jobs that no run works on: interrupted jobs, and jobs whose batch the server has lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.creation import UnclearCreationError
from distilabel_openai_batch.engine.job_runner import resolve_interrupted_job
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState
from distilabel_openai_batch.operations.server_access import SHORT_PATIENCE, ServerAccess, retrieve_batches


@dataclass(frozen=True, slots=True)
class Server:
    """The server of a scope.

    Attributes:
        base_url: address of the server.
        headers: headers of every call.
        logger: logger of retried calls.
    """

    base_url: str
    headers: Mapping[str, str] = field(repr=False)
    logger: logging.Logger

    def access(self) -> ServerAccess:
        """Return the access to the server with the key in the environment.

        Raises:
            OpenAIBatchError: if the environment has no key.
        """
        return ServerAccess.from_environment(self.base_url, self.headers)


@dataclass(slots=True)
class InterruptedRelease:
    """Result of releasing interrupted jobs.

    Attributes:
        found_batches: batches that the server has of interrupted jobs; these jobs are in progress now.
        unresolved: number of jobs that stay, because the server could not be asked for their batch.
        error: message of the error that kept the server from being asked; empty if none did.
    """

    found_batches: list[Batch] = field(default_factory=list)
    unresolved: int = 0
    error: str = ""


def release_interrupted_jobs(ledger: Ledger, server: Server, *, drops_unclear_jobs: bool = False) -> InterruptedRelease:
    """Release the requests of a scope's interrupted jobs, unless a batch was made of them.

    The ledger records an upload before the batch is created. So a job without an upload has no batch, and for a job
    with an upload the server is asked.

    Args:
        ledger: ledger opened for the scope.
        server: the scope's server.
        drops_unclear_jobs: whether to release a job that may have a batch, if the server does not list its batches.
    """
    release = InterruptedRelease()
    jobs = [own for job in ledger.jobs.list_open() if not job.batch_id and (own := ledger.jobs.take_over(job))]
    uploaded = [job for job in jobs if job.state is JobState.UPLOADED and not job.batch_id]
    for job in jobs:
        if job.state in (JobState.PLANNED, JobState.SYNCHRONOUS):
            ledger.jobs.mark_dropped(job)
    if uploaded:
        try:
            anyio.run(_settle_uploaded, ledger, uploaded, server.access(), server.logger, release, drops_unclear_jobs)
        except OpenAIBatchError as error:
            release.error = str(error)
            release.unresolved = sum(ledger.jobs.get(job.id).state is JobState.UPLOADED for job in uploaded)
    return release


async def _settle_uploaded(
    ledger: Ledger,
    jobs: list[Job],
    access: ServerAccess,
    logger: logging.Logger,
    release: InterruptedRelease,
    drops_unclear_jobs: bool,
) -> None:
    async with access.open(SHORT_PATIENCE, logger) as api:
        for job in jobs:
            try:
                _, batch = await resolve_interrupted_job(api, ledger, job)
            except UnclearCreationError:
                if not drops_unclear_jobs:
                    raise
                ledger.jobs.mark_dropped(job)
                continue
            if batch:
                release.found_batches.append(batch)


def release_lost_jobs(ledger: Ledger, server: Server) -> int:
    """Release the requests of a scope's jobs whose batches the server does not know.

    Args:
        ledger: ledger opened for the scope.
        server: the scope's server.

    Returns:
        The number of released jobs.

    Raises:
        OpenAIBatchError: if the server cannot be asked.
    """
    jobs = [own for job in ledger.jobs.list_open() if job.batch_id and (own := ledger.jobs.take_over(job))]
    if not jobs:
        return 0
    return anyio.run(_release_lost, ledger, jobs, server.access(), server.logger)


async def _release_lost(ledger: Ledger, jobs: list[Job], access: ServerAccess, logger: logging.Logger) -> int:
    async with access.open(SHORT_PATIENCE, logger) as api:
        _, missing = await retrieve_batches(api, {job.batch_id for job in jobs if job.batch_id})
    for job in jobs:
        if job.batch_id in missing:
            ledger.jobs.mark_lost(job)
    return len(missing)
