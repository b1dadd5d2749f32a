"""Tests of access to a server, of polling and of watching, with a stub of the Batch API."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from distilabel_openai_batch.api.azure_addresses import is_azure_address
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.errors import AuthenticationError, OpenAIBatchError, RunError
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState
from distilabel_openai_batch.operations.server_access import (
    ServerAccess,
    cancel_jobs,
    default_address,
    is_pollable,
    name_endpoint,
    poll_jobs,
    retrieve_batches,
    single_server,
    watch_jobs,
)
from tests.support.ledgers import LedgerWriter

AZURE = "https://mine.openai.azure.com/openai/"


class StubAPI:
    """Batch API that knows the given batches.

    Attributes:
        batches: batches by id.
        error: error that every call raises, if there is one.
    """

    def __init__(self, *batches: Batch) -> None:
        self.batches = {batch.id: batch for batch in batches}
        self.error: RunError | None = None

    async def cancel(self, batch_id: str) -> None:
        self.batches[batch_id] = replace(self.batches[batch_id], status="cancelling")

    async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
        if self.error:
            raise self.error
        for batch_id in sorted(batch_ids):
            if batch_id not in self.batches:
                error = RunError(f"no {batch_id}", status_code=404)
                error.batch_id = batch_id
                raise error
        return {batch_id: self.batches[batch_id] for batch_id in batch_ids}


@pytest.fixture
def jobs(tmp_path) -> list[JobEntry]:
    """Return two open jobs and a collected one."""
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("preferences", "generate", "http://one/v1/")
        for status in ("in_progress", "validating", "completed"):
            writer.job(scope, 0.0, status, requests=4)
    return LedgerReader(tmp_path).jobs()


def test_access_takes_the_key_of_the_servers_provider(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-one\n")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    assert ServerAccess.from_environment("http://one/v1/").key == "sk-one"
    access = ServerAccess.from_environment(AZURE)
    assert (access.key, access.azure_api_version) == ("azure-key", "2024-10-21")


@pytest.mark.parametrize(
    ("address", "is_azure"),
    [
        (AZURE, True),
        ("https://mine.openai.azure.com/openai", True),
        ("https://gateway.example.com/team/openai/", True),
        ("https://api.deepinfra.com/v1/openai", False),
        ("https://api.deepinfra.com/v1/openai/", False),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", False),
        ("https://mine.openai.azure.com/openai/v1/", False),
        ("https://api.openai.com/v1/", False),
    ],
)
def test_an_address_that_ends_in_openai_is_azures_unless_a_version_precedes(monkeypatch, address, is_azure):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    assert is_azure_address(address) is is_azure
    on_azure = is_azure or "azure.com" in address
    assert ServerAccess.from_environment(address).key_variable == (
        "AZURE_OPENAI_API_KEY" if on_azure else "OPENAI_API_KEY"
    )


@pytest.mark.parametrize("endpoint", ["http://gateway:1/openai/v1/", "http://gateway:1/openai/v1/chat/completions"])
def test_the_address_of_azures_variable_has_azures_key(monkeypatch, endpoint):
    """A gateway to Azure, and the sandbox, have hosts of their own."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", endpoint)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert ServerAccess.from_environment(default_address()).key == "azure-key"
    assert ServerAccess.from_environment("http://gateway:1/v1").key == "sk-one"


@pytest.mark.parametrize(
    ("address", "openai_key", "variable"),
    [
        ("http://127.0.0.1:8000/openai/v1/", "", "AZURE_OPENAI_API_KEY"),
        ("http://127.0.0.1:8000/openai/v1/", "sk-one", "OPENAI_API_KEY"),
        ("http://127.0.0.1:8000/v1/", "", None),
        ("https://api.groq.com/openai/v1/", "", None),
    ],
)
def test_azures_key_alone_serves_the_local_sandbox(monkeypatch, address, openai_key, variable):
    """Other providers have such addresses too: they never receive Azure's key."""
    monkeypatch.setenv("OPENAI_API_KEY", openai_key)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    if variable is None:
        with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
            ServerAccess.from_environment(address)
    else:
        assert ServerAccess.from_environment(address).key_variable == variable


TARGET_URI = "https://mine.openai.azure.com/openai/deployments/a/chat/completions?api-version=2024-12-01-preview"


@pytest.mark.parametrize(
    ("address", "endpoint", "version", "base_url", "used"),
    [
        (TARGET_URI, "", "", AZURE, "2024-12-01-preview"),
        (TARGET_URI, "", "2024-10-21", AZURE, "2024-10-21"),
        (AZURE, TARGET_URI, "", AZURE, "2024-12-01-preview"),
        ("https://mine.openai.azure.com", "", "2024-10-21", AZURE, "2024-10-21"),
        ("https://mine.openai.azure.com/openai/v1/responses", "", "", f"{AZURE}v1/", None),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/", "2024-10-21", "http://127.0.0.1:8000/openai", "2024-10-21"),
        ("http://127.0.0.1:8000/openai", "http://127.0.0.1:8000", "1", "http://127.0.0.1:8000/openai", "1"),
        (
            "http://127.0.0.1:8000/openai/v1",
            "http://127.0.0.1:8000/openai/v1",
            "",
            "http://127.0.0.1:8000/openai/v1",
            None,
        ),
        (None, TARGET_URI, "", AZURE, "2024-12-01-preview"),
    ],
)
def test_each_form_of_azures_address_has_its_key_and_version(monkeypatch, address, endpoint, version, base_url, used):
    """The version of a target URI counts, in the address and in the variable."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", endpoint)
    monkeypatch.setenv("OPENAI_API_VERSION", version)
    access = ServerAccess.from_environment(address or default_address())
    assert (access.base_url.rstrip("/"), access.azure_api_version) == (base_url.rstrip("/"), used)
    assert access.key == "azure-key"


@pytest.mark.parametrize(
    ("base_url", "endpoint", "named"),
    [
        (f"{AZURE}v1/", "/v1/chat/completions", "/chat/completions"),
        (f"{AZURE}v1/", "/v1/responses", "/v1/responses"),
        (AZURE, "/chat/completions", "/chat/completions"),
        ("https://api.groq.com/openai/v1/", "/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_endpoint_of_a_job_has_the_servers_name(jobs, base_url, endpoint, named):
    job = replace(jobs[0], endpoint=endpoint, scope=replace(jobs[0].scope, base_url=base_url))
    assert name_endpoint(job) == named


def test_access_requires_a_key_and_azures_api_version(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    with pytest.raises(AuthenticationError, match="set the environment variable OPENAI_API_KEY"):
        ServerAccess.from_environment("http://one/v1/")
    with pytest.raises(OpenAIBatchError, match="set the environment variable OPENAI_API_VERSION"):
        ServerAccess.from_environment(AZURE)


def test_single_server_rejects_jobs_at_several_servers(jobs):
    assert single_server([]) is None
    assert single_server(jobs) == "http://one/v1/"
    other = replace(jobs[0], scope=replace(jobs[0].scope, base_url="http://two/v1/"))
    with pytest.raises(OpenAIBatchError, match="Choose with --base-url: http://one/v1/, http://two/v1/"):
        single_server([*jobs, other])


def test_only_a_created_job_is_pollable(jobs):
    assert [is_pollable(job) for job in jobs] == [True, True, False]
    assert not is_pollable(replace(jobs[0], state=JobState.PLANNED, batch_id=None))


async def test_poll_jobs_updates_open_jobs_and_marks_lost_ones(jobs):
    api = StubAPI(Batch(jobs[0].batch_id, "finalizing", completed=3, failed=1, total=4))
    first, second, third = await poll_jobs(api, jobs)
    assert (first.status, first.answered, first.failed) == ("finalizing", 3, 1)
    assert second.status == NOT_FOUND
    assert third == jobs[2]


async def test_cancel_jobs_returns_the_status_after_the_cancellation(jobs):
    api = StubAPI(Batch(jobs[0].batch_id, "in_progress"))
    assert [job.status for job in await cancel_jobs(api, jobs[:1])] == ["cancelling"]


async def test_retrieve_batches_separates_missing_batches_and_raises_other_errors():
    api = StubAPI(Batch("a", "completed"))
    assert await retrieve_batches(api, {"a", "b", "c"}) == (api.batches, {"b", "c"})
    api.error = RunError("down", status_code=503)
    with pytest.raises(RunError, match="down"):
        await retrieve_batches(api, {"a"})


async def test_watch_jobs_ends_for_a_status_that_nobody_knows(jobs):
    """The batch shows its end by its time; the status is final after five equal polls."""
    [job, *_] = jobs
    api = StubAPI(Batch(job.batch_id, "sealed", completed=4, total=4, ended_as="completed"))
    shown: list[str] = []
    watched = await watch_jobs(api, lambda: [job], lambda polled: shown.append(polled[0].status), 0.0, lambda: False)
    assert shown == ["sealed"] * 4 + ["completed"]
    assert [job.status for job in watched] == ["completed"]


async def test_watch_jobs_includes_added_jobs_and_waits_for_the_run(jobs):
    """Polling goes on while a run has the ledger open, and three polls longer; a collected job stays in the result."""
    first, second = jobs[:2]
    api = StubAPI(*(Batch(job.batch_id, "completed", completed=4, total=4) for job in (first, second)))
    open_jobs = [[first], [second], *[[]] * 9]
    runs = iter([True, True, *[False] * 9])
    polls: list[int] = []
    watched = await watch_jobs(
        api, lambda: open_jobs[len(polls)], lambda shown: polls.append(len(shown)), 0.0, lambda: next(runs)
    )
    assert polls == [1, 2, 2, 2, 2, 2]
    assert [job.status for job in watched] == ["completed", "completed"]
