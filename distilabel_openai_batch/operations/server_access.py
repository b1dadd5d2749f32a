"""Access to a server from outside a run: open its API, poll jobs, watch jobs until they end."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio

from distilabel_openai_batch.api.adapters import azure_endpoint
from distilabel_openai_batch.api.addresses import is_loopback, public_address, server_key
from distilabel_openai_batch.api.azure_addresses import (
    AzureEndpoint,
    is_azure_address,
    is_azure_host,
    read_azure_endpoint,
)
from distilabel_openai_batch.api.azure_tokens import TokenProvider, environment_token_provider
from distilabel_openai_batch.api.batches import Batch, EndDetector
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.secrets import clean_key
from distilabel_openai_batch.api.transport import Patience, sdk_client
from distilabel_openai_batch.errors import AuthenticationError, MissingSettingError, OpenAIBatchError, RunError
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState

DEFAULT_BASE_URL = "https://api.openai.com/v1"
"""Server address that the SDK uses by default."""


def default_address() -> str:
    """Return the address of the server in the environment: `$OPENAI_BASE_URL`, else Azure's endpoint, else OpenAI's."""
    if address := os.getenv("OPENAI_BASE_URL", "").strip():
        return address
    own = _own_endpoint()
    return own.base_url if own else DEFAULT_BASE_URL


NO_HEADERS: Mapping[str, str] = {}
"""Headers of a command without `--header`."""

_TIMEOUT_SECONDS = 30.0
"""Timeout of one call: a user waits at the terminal, so it is far shorter than a run's."""

SHORT_PATIENCE = Patience(first=0.2, total=20.0, retries=2)
"""Retries of a command that the user waits for."""

LONG_PATIENCE = Patience(retries=3)
"""Retries of `watch` before its first successful call; after that call, `watch` waits until an outage ends."""

_IDLE_POLLS = 3
"""Number of polls without an open job and without a run before `watch` stops.

Between two Tasks, a pipeline has no open job and no run for a moment.
"""


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """Address and key of a server.

    Attributes:
        base_url: address of the server, without credentials.
        key_variable: environment variable that holds the key or the token; `azure-identity` for its credential.
        key: API key.
        azure_api_version: version of Azure's API; `None` for a server with OpenAI's API.
        full_address: address of the server with user, password and query; empty if there are none.
        headers: headers of every call.
        token_provider: returns a token of Microsoft Entra ID for each call, in place of the key; `None` for the key.
    """

    base_url: str
    key_variable: str
    key: str = field(repr=False)
    azure_api_version: str | None = None
    full_address: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token_provider: TokenProvider | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, base_url: str, headers: Mapping[str, str] = NO_HEADERS) -> ServerAccess:
        """Return the access to a server with the key in the environment.

        The ledger has no passwords and no queries: for the server in `$OPENAI_BASE_URL` they come from that variable.

        Args:
            base_url: address of the server.
            headers: headers of every call, besides the headers of `$OPENAI_CUSTOM_HEADERS`.

        Raises:
            AuthenticationError: if the environment has no key for the server.
            InvalidSettingError: if the key contains characters that no key has.
            MissingSettingError: if the server is Azure's, and neither environment nor address have an API version.
        """
        endpoint = find_azure_endpoint(base_url)
        base_url = endpoint.base_url if endpoint else base_url
        full_address, base_url = base_url, public_address(base_url)
        own_address = os.getenv("OPENAI_BASE_URL", "").strip()
        if full_address == base_url and public_address(own_address).rstrip("/") == base_url.rstrip("/"):
            full_address = own_address
        variable = "AZURE_OPENAI_API_KEY" if endpoint else "OPENAI_API_KEY"
        key = clean_key(os.getenv(variable, ""), f"The environment variable {variable}")
        tokens = environment_token_provider() if endpoint and not key else None
        if not (key or tokens):
            raise AuthenticationError(f"There is no key for {base_url}: set the environment variable {variable}.")
        version = None
        if endpoint and not endpoint.is_versioned:
            version = os.getenv("OPENAI_API_VERSION", "").strip() or endpoint.api_version
            if not version:
                raise MissingSettingError(
                    f"{base_url} is an Azure server: set the environment variable OPENAI_API_VERSION, such as"
                    " `2024-10-21`."
                )
        full_address = full_address if full_address != base_url else ""
        provider, source = tokens or (None, variable)
        return cls(base_url, source, key, version, full_address, headers, provider)

    @asynccontextmanager
    async def open(self, patience: Patience, logger: logging.Logger) -> AsyncIterator[BatchAPI]:
        """Yield the server's Batch API; its connections close at the end of the context.

        Args:
            patience: number and pauses of retries.
            logger: logger of retried calls.
        """
        async with sdk_client(
            self.full_address or self.base_url,
            self.key,
            timeout=_TIMEOUT_SECONDS,
            headers=self.headers,
            azure_api_version=self.azure_api_version,
            token_provider=self.token_provider,
        ) as client:
            yield BatchAPI(client, patience, logger)


def find_azure_endpoint(address: str) -> AzureEndpoint | None:
    """Return the endpoint of Azure that an address means, in any form that `AzureOpenAIBatchLLM` reads.

    Besides the hosts of Azure, the address may be that of `$AZURE_OPENAI_ENDPOINT`, which may be a gateway or the
    sandbox, a target URI, or an address that ends in `/openai`. An address of this machine that ends in `/openai/v1` is
    the sandbox's, if Azure's key is the only key in the environment; other servers, such as Groq, have such addresses.

    Returns:
        The endpoint, with the version of `$AZURE_OPENAI_ENDPOINT` if the address names none; `None` for any other
        server.
    """
    try:
        endpoint, own = read_azure_endpoint(address), _own_endpoint()
    except ValueError:
        return None
    is_own = own is not None and server_key(public_address(own.base_url)) in (
        server_key(public_address(address)),
        server_key(public_address(endpoint.base_url)),
    )
    if (
        is_azure_host(address)
        or endpoint.deployment
        or (endpoint.is_versioned and (is_own or _is_local_azure(address)))
    ):
        found = endpoint
    elif is_azure_address(public_address(address)):
        found = AzureEndpoint(address)
    elif is_own:
        found = endpoint
    else:
        return None
    return replace(found, api_version=found.api_version or own.api_version) if own and is_own else found


def _is_local_azure(address: str) -> bool:
    """Return whether an address is on this machine, and the environment has Azure's key alone."""
    has_only_azures_key = bool(os.getenv("AZURE_OPENAI_API_KEY")) and not os.getenv("OPENAI_API_KEY")
    return has_only_azures_key and is_loopback(address)


def name_endpoint(job: JobEntry) -> str:
    """Return the path of the endpoint that a job's requests name at the server; the ledger has OpenAI's path."""
    endpoint = find_azure_endpoint(job.scope.base_url)
    return azure_endpoint(job.endpoint) if endpoint and endpoint.is_versioned else job.endpoint


def _own_endpoint() -> AzureEndpoint | None:
    """Return the endpoint in `$AZURE_OPENAI_ENDPOINT`; `None` if the variable is empty."""
    address = os.getenv("AZURE_OPENAI_ENDPOINT", "").strip()
    return read_azure_endpoint(address) if address else None


def single_server(jobs: Iterable[JobEntry]) -> str | None:
    """Return the address of the one server of all jobs, as the ledger has it; `None` if there are no jobs.

    Raises:
        OpenAIBatchError: if the jobs are at several servers, because one key is not valid for all of them.
    """
    servers = sorted({server_key(job.scope.base_url): job.scope.base_url for job in jobs}.values())
    if len(servers) > 1:
        raise OpenAIBatchError(
            f"There are jobs at {len(servers)} servers, and a key is valid for one server. Choose with --base-url:"
            f" {', '.join(servers)}"
        )
    return servers[0] if servers else None


def is_pollable(job: JobEntry) -> bool:
    """Return whether the server may know a later status of a job than the ledger."""
    return job.state is JobState.CREATED and job.batch_id is not None


async def poll_jobs(
    api: BatchAPI, jobs: list[JobEntry], detectors: MutableMapping[str, EndDetector] | None = None
) -> list[JobEntry]:
    """Return jobs with the status, counts and errors that the server reports now.

    Args:
        api: Batch API of the jobs' server.
        jobs: jobs in any state. Jobs that cannot be polled are returned unchanged; a job whose batch the server does
            not know gets the status `NOT_FOUND`.
        detectors: detectors of the end of batches with unknown statuses, by batch id, over successive calls; `None`
            to take each status as the server reports the status.

    Raises:
        RunError: if the server refuses the call or cannot be reached.
    """
    batches, missing = await retrieve_batches(api, {job.batch_id for job in jobs if is_pollable(job) and job.batch_id})
    polled = []
    for job in jobs:
        if job.batch_id in missing:
            job = replace(job, status=NOT_FOUND)
        elif batch := batches.get(job.batch_id or ""):
            if detectors is not None:
                batch = detectors.setdefault(batch.id, EndDetector()).judge(batch)
            job = replace(
                job,
                status=batch.status,
                answered=max(job.answered, batch.completed),
                failed=max(job.failed, batch.failed),
                error=job.error or (batch.reasons if batch.errors else None),
                finished_at=batch.finished_at or job.finished_at,
            )
        polled.append(job)
    return polled


async def cancel_jobs(api: BatchAPI, jobs: list[JobEntry]) -> list[JobEntry]:
    """Cancel the batches of jobs and return the jobs with the status that the server reports afterwards.

    Raises:
        RunError: if the server refuses a call or cannot be reached.
    """
    for job in jobs:
        assert job.batch_id
        await api.cancel(job.batch_id)
    return await poll_jobs(api, jobs)


async def retrieve_batches(api: BatchAPI, batch_ids: set[str]) -> tuple[dict[str, Batch], set[str]]:
    """Return the batches by id, and the ids that the server does not know.

    Raises:
        RunError: if the server refuses the call or cannot be reached.
    """
    try:
        return await api.retrieve_many(batch_ids), set()
    except RunError as error:
        if error.status_code != 404 or not error.batch_id:
            raise
        batches, missing = await retrieve_batches(api, batch_ids - {error.batch_id})
        return batches, missing | {error.batch_id}


async def watch_jobs(
    api: BatchAPI,
    open_jobs: Callable[[], list[JobEntry]],
    show: Callable[[list[JobEntry]], None],
    interval: float,
    is_in_use: Callable[[], bool],
) -> list[JobEntry]:
    """Poll jobs until all have ended at the server and no run can add more.

    Args:
        api: Batch API of the jobs' server.
        open_jobs: returns the server's jobs that are open in the ledger now.
        show: displays all jobs watched so far; called after each poll.
        interval: seconds between two polls.
        is_in_use: returns whether a run has the ledger open and may add jobs.

    Returns:
        All watched jobs with their last status.

    Raises:
        RunError: if the server refuses the call or cannot be reached.
    """
    watched: dict[str, JobEntry] = {}
    detectors: dict[str, EndDetector] = {}
    # No run has been seen yet → stop as soon as all jobs have ended.
    idle_polls = _IDLE_POLLS
    while True:
        may_add_jobs = is_in_use()
        watched |= {job.batch_id: job for job in open_jobs() if job.batch_id and job.batch_id not in watched}
        # A run may collect a job between two polls → poll the watched jobs, not only the jobs open in the ledger.
        for job in await poll_jobs(api, [job for job in watched.values() if not job.has_ended], detectors):
            assert job.batch_id
            watched[job.batch_id] = job
        show(list(watched.values()))
        if may_add_jobs:
            idle_polls = 0
        elif all(job.has_ended for job in watched.values()):
            idle_polls += 1
            if idle_polls > _IDLE_POLLS:
                return list(watched.values())
        await anyio.sleep(interval)
