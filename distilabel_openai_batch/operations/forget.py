"""Lets go of the jobs that nobody works on: those whose run is gone, and of which no batch is known."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import anyio

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.engine.job_runner import settle
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState
from distilabel_openai_batch.operations.server import AT_ONCE, Access, found


@dataclass(slots=True)
class Settled:
    """What became of interrupted jobs.

    Attributes:
        found: the batches that the server has of some; these are under way.
        unknown: how many stay as they are.
        why_unknown: what kept the server from being asked of these.
    """

    found: list[Batch] = field(default_factory=list)
    unknown: int = 0
    why_unknown: str = ""


def settle_interrupted(ledger: Ledger, base_url: str, logger: logging.Logger) -> Settled:
    """Frees the requests of a scope's interrupted jobs, unless they may have been bought.

    That a batch is about to be created is on the disk before the server hears of it. So a job that had not got as far
    has none, and of the others the server knows.

    Args:
        ledger: opened for the scope.
        base_url: the server's address.
        logger: is told of calls that have to be repeated.
    """
    settled = Settled()
    mine = [own for job in ledger.open_jobs() if not job.batch_id and (own := ledger.take_over(job))]
    begun = [job for job in mine if job.state is JobState.UPLOADED and not job.batch_id]
    for job in mine:
        if job.state in (JobState.PLANNED, JobState.SYNCHRONOUS):
            ledger.dropped(job)
    if begun:
        try:
            anyio.run(_ask, ledger, begun, Access.to(base_url), logger, settled)
        except OpenAIBatchError as error:
            settled.why_unknown = str(error)
            settled.unknown = sum(ledger.job(job.id).state is JobState.UPLOADED for job in begun)
    return settled


def settle_lost(ledger: Ledger, base_url: str, logger: logging.Logger) -> int:
    """Frees the requests of a scope's jobs whose batches the server does not know.

    Args:
        ledger: opened for the scope.
        base_url: the server's address.
        logger: is told of calls that have to be repeated.

    Returns:
        How many jobs were let go.

    Raises:
        OpenAIBatchError: the server could not be asked.
    """
    mine = [own for job in ledger.open_jobs() if job.batch_id and (own := ledger.take_over(job))]
    return anyio.run(_let_go_of_lost, ledger, mine, Access.to(base_url), logger) if mine else 0


async def _let_go_of_lost(ledger: Ledger, jobs: list[Job], access: Access, logger: logging.Logger) -> int:
    async with access.open(AT_ONCE, logger) as api:
        _, lost = await found(api, {job.batch_id for job in jobs if job.batch_id})
    for job in jobs:
        if job.batch_id in lost:
            ledger.lost(job)
    return len(lost)


async def _ask(ledger: Ledger, jobs: list[Job], access: Access, logger: logging.Logger, settled: Settled) -> None:
    async with access.open(AT_ONCE, logger) as api:
        for job in jobs:
            _, batch = await settle(api, ledger, job)
            if batch:
                settled.found.append(batch)
