"""Fixtures of the engine's tests: a ledger, and jobs in any state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Outcome
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.enqueue_limit import EnqueueLimit
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.job_runner import JobRunner
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.scratch import BodyStore
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.engine.stop_gate import OPEN_GATE, StopGate
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState, ScopeName
from tests.unit.engine.fake_batch_api import FakeBatchAPI

FAST_SETTINGS = JobSettings("24h", PollSchedule(0.001, 0.001), {})


SESSION_SETTINGS = SessionSettings(
    base_url="https://api.example.com/v1/",
    api_key="",
    headers=None,
    timeout=1.0,
    patience=Patience(),
    max_requests=10,
    max_bytes=1_000,
    max_attempts=1,
    max_jobs=1,
    jobs=JobSettings("24h", PollSchedule(), {}),
    ledger_dir=Path(),
    reuse_answers=True,
)


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger", ScopeName("pipeline", "task", "https://api.example.com/v1/"))
    yield ledger
    ledger.close()


@pytest.fixture
def bodies(tmp_path) -> Iterator[BodyStore]:
    with closing(BodyStore(tmp_path / "bodies")) as bodies:
        yield bodies


@pytest.fixture
def scratch_dir(tmp_path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def make_runner(ledger, scratch_dir) -> Callable[..., JobRunner]:
    """Return a function that creates the job runner of a server; keywords change the settings of jobs."""

    def make(api: FakeBatchAPI, observer: Observer | None = None, gate: StopGate = OPEN_GATE, **settings) -> JobRunner:
        chosen = replace(FAST_SETTINGS, **settings)
        limit = EnqueueLimit(chosen.schedule, 50_000)
        return JobRunner(
            JobContext(api, ledger, chosen, scratch_dir, observer or Observer(), AnswerSizes(), gate),
            limit,
            RunningJobs(),
        )

    return make


@pytest.fixture
def leave_job(ledger) -> Callable[[FakeBatchAPI, JobState, Shard], Job]:
    """Return a function that plans a job for a shard and takes it to a state, on a server that has its files."""

    def leave(api: FakeBatchAPI, state: JobState, shard: Shard) -> Job:
        job, _ = ledger.jobs.plan(shard)
        api.uploaded = [request.line() for request in shard.requests]
        if state is not JobState.PLANNED:
            job = ledger.jobs.mark_uploaded(job, "file-in")
        if state in (JobState.CREATED, JobState.ENDED):
            api.batches[job.key] = "batch_0"
            job = ledger.jobs.mark_created(job, Batch("batch_0", "validating"))
        if state is JobState.ENDED:
            job = ledger.jobs.mark_ended(job, Batch("batch_0", "completed"))
        return job

    return leave


@pytest.fixture
def look_up(ledger) -> Callable[[Shard], list[Outcome | None]]:
    """Return a function that returns the ledger's outcome of each request of a shard."""

    def find(shard: Shard) -> list[Outcome | None]:
        known = ledger.requests.look_up([request.custom_id for request in shard.requests])
        return [known[request.custom_id].outcome if request.custom_id in known else None for request in shard.requests]

    return find
