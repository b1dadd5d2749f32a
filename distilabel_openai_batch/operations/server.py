"""How jobs are doing at the server, asked by somebody else than the pipeline that made them."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.transport import Patience, sdk_client
from distilabel_openai_batch.errors import AuthenticationError, OpenAIBatchError, RunError
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import LOST, JobState

DEFAULT_BASE_URL = "https://api.openai.com/v1"
"""The SDK's own."""

# A server that is silent for longer does not answer somebody who sits before the terminal.
_TIMEOUT_SECONDS = 30.0

AT_ONCE = Patience(first=0.2, total=20.0, retries=2)
"""For somebody who waits for the prompt."""

FOR_LONG = Patience(retries=3)
"""For somebody who watches: once the server was reached, an outage is waited out."""


@dataclass(frozen=True, slots=True)
class Access:
    """What leads to a server.

    Attributes:
        base_url: its address.
        key_variable: the environment variable that the key is in.
        key: the key.
        azure_api_version: the version of Azure's API; `None` for a server that speaks OpenAI's.
    """

    base_url: str
    key_variable: str
    key: str = field(repr=False)
    azure_api_version: str | None = None

    @classmethod
    def to(cls, base_url: str) -> Access:
        """What the environment says of a server.

        Raises:
            AuthenticationError: it has no key for it.
        """
        azure = base_url.rstrip("/").endswith("/openai")
        variable = "AZURE_OPENAI_API_KEY" if azure else "OPENAI_API_KEY"
        version = os.getenv("OPENAI_API_VERSION") if azure else None
        if not (key := os.getenv(variable, "").strip()):
            raise AuthenticationError(f"There is no key for {base_url}: set the environment variable {variable}.")
        if azure and not version:
            raise OpenAIBatchError(
                f"{base_url} is Azure's: set the environment variable OPENAI_API_VERSION, as `2024-10-21`."
            )
        return cls(base_url, variable, key, version)

    @asynccontextmanager
    async def open(self, patience: Patience, logger: logging.Logger) -> AsyncIterator[BatchAPI]:
        """The server's Batch API, for as long as the context lasts."""
        async with sdk_client(
            self.base_url, self.key, timeout=_TIMEOUT_SECONDS, azure_api_version=self.azure_api_version
        ) as client:
            yield BatchAPI(client, patience, logger)


def server_of(jobs: Iterable[JobEntry]) -> str | None:
    """The one server that some jobs are at, since one key is not for several.

    Args:
        jobs: those that are meant.

    Returns:
        Its address as the ledger has it; `None` where there are no jobs.

    Raises:
        OpenAIBatchError: there are several.
    """
    servers = sorted({job.scope.base_url for job in jobs})
    if len(servers) > 1:
        raise OpenAIBatchError(
            f"There are jobs at {len(servers)} servers, and one key is not for all of them. Choose with --base-url:"
            f" {', '.join(servers)}"
        )
    return servers[0] if servers else None


def can_be_looked_at(job: JobEntry) -> bool:
    """Whether the server knows more of a job than the ledger."""
    return job.state is JobState.CREATED and job.batch_id is not None


async def looked_at(api: BatchAPI, jobs: list[JobEntry]) -> list[JobEntry]:
    """Jobs as they are at the server now.

    Args:
        api: the server.
        jobs: any; those that the server knows no more of are returned as they are, and one that it has lost as `LOST`.

    Raises:
        RunError: the server refuses, or could not be reached.
    """
    batches, lost = await found(api, {job.batch_id for job in jobs if can_be_looked_at(job) and job.batch_id})
    seen = []
    for job in jobs:
        if job.batch_id in lost:
            job = replace(job, status=LOST)
        elif batch := batches.get(job.batch_id or ""):
            job = replace(
                job,
                status=batch.status,
                answered=max(job.answered, batch.completed),
                failed=max(job.failed, batch.failed),
                error=job.error or (batch.reasons if batch.errors else None),
            )
        seen.append(job)
    return seen


async def found(api: BatchAPI, batch_ids: set[str]) -> tuple[dict[str, Batch], set[str]]:
    """The batches that the server knows, and the ids of those that it does not."""
    try:
        return await api.retrieve_many(batch_ids), set()
    except RunError as error:
        if error.status_code != 404 or not error.batch_id:
            raise
        batches, lost = await found(api, batch_ids - {error.batch_id})
        return batches, lost | {error.batch_id}


# Looks that find nothing under way, and no run, before whoever watched a run stops: between two Tasks of a pipeline
# there is a moment without either.
_QUIET_LOOKS = 3


async def watch_jobs(
    api: BatchAPI,
    jobs: Callable[[], list[JobEntry]],
    show: Callable[[list[JobEntry]], None],
    interval: float,
    is_in_use: Callable[[], bool],
) -> list[JobEntry]:
    """Looks at jobs until all have ended at the server, and no run is there to make more.

    Args:
        api: the server.
        jobs: the jobs there that are open in the ledger now.
        show: is given all jobs so far after each look.
        interval: seconds between two looks.
        is_in_use: whether a run has the ledger open, and may make more of them.

    Returns:
        All jobs, as they ended.

    Raises:
        RunError: the server refuses, or could not be reached.
    """
    known: dict[str, JobEntry] = {}
    quiet_looks = _QUIET_LOOKS
    while True:
        may_become_more = is_in_use()
        known |= {job.batch_id: job for job in jobs() if job.batch_id and job.batch_id not in known}
        # The pipeline may collect a job between two looks: it is looked at all the same.
        under_way = [job for job in known.values() if not job.has_ended]
        for job in await looked_at(api, under_way):
            assert job.batch_id
            known[job.batch_id] = job
        show(list(known.values()))
        if may_become_more:
            quiet_looks = 0
        elif all(job.has_ended for job in known.values()):
            quiet_looks += 1
            if quiet_looks > _QUIET_LOOKS:
                return list(known.values())
        await anyio.sleep(interval)
