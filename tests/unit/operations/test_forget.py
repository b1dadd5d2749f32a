"""Tests of releasing jobs that no run works on."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, closing

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.creation import unclear_creation
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.operations import forget
from distilabel_openai_batch.operations.server_access import ServerAccess

URL = "http://one/v1/"
SERVER = forget.Server(URL, {}, logging.getLogger(__name__))


@pytest.fixture
def ledger(tmp_path):
    """Open a ledger with a planned and an uploaded job of a run that has ended."""
    scope = ScopeName("pipeline", "task", URL)
    with closing(Ledger(tmp_path, scope)) as earlier_run:
        for number in range(2):
            request = Request(f"{number:032x}-0", "/v1/chat/completions", "m", b"{}")
            job, _ = earlier_run.jobs.plan(Shard.of([request]))
        earlier_run.jobs.mark_uploaded(job, "file-1")
    with closing(Ledger(tmp_path, scope)) as ledger:
        yield ledger


def test_without_a_key_only_jobs_without_an_upload_are_dropped(ledger, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    release = forget.release_interrupted_jobs(ledger, SERVER)
    assert (release.unresolved, release.found_batches) == (1, [])
    assert "set the environment variable OPENAI_API_KEY" in release.error
    assert [job.state for job in ledger.jobs.list_open()] == [JobState.UPLOADED]


def test_a_job_is_released_on_the_user_s_word_if_the_server_lists_no_batches(ledger, monkeypatch):
    """Without `--lost` the job stays, because its batch may exist."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")

    async def settle_unclear(api, ledger, job):
        raise unclear_creation("A run ended.")

    monkeypatch.setattr(forget, "resolve_interrupted_job", settle_unclear)
    release = forget.release_interrupted_jobs(ledger, SERVER)
    assert (release.unresolved, [job.state for job in ledger.jobs.list_open()]) == (1, [JobState.UPLOADED])
    assert "--lost" in release.error
    assert forget.release_interrupted_jobs(ledger, SERVER, drops_unclear_jobs=True).unresolved == 0
    assert not ledger.jobs.list_open()


def test_lost_jobs_are_only_looked_for_among_jobs_with_a_batch(ledger):
    assert forget.release_lost_jobs(ledger, SERVER) == 0


def test_a_job_whose_batch_the_server_does_not_know_is_released(ledger, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")

    @asynccontextmanager
    async def open_stub(self, patience, logger):
        yield None

    async def retrieve_none(api, batch_ids):
        return {}, batch_ids

    monkeypatch.setattr(ServerAccess, "open", open_stub)
    monkeypatch.setattr(forget, "retrieve_batches", retrieve_none)
    [uploaded] = [job for job in ledger.jobs.list_open() if job.state is JobState.UPLOADED]
    ledger.jobs.mark_created(ledger.jobs.take_over(uploaded), Batch("batch_1", "validating"))
    assert forget.release_lost_jobs(ledger, SERVER) == 1
    assert [job.state for job in ledger.jobs.list_open()] == [JobState.PLANNED]
