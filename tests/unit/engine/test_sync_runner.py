"""Requests to the synchronous endpoints: records, deliveries, errors."""

from __future__ import annotations

from functools import cached_property

import anyio
import orjson
import pytest

from distilabel_openai_batch import RunError
from distilabel_openai_batch.api.client import NoSuchEndpointError
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.sync_runner import SyncRunner
from distilabel_openai_batch.ledger.states import JobState
from tests.unit.engine.fake_batch_api import ignore, make_shard


class SyncAPI:
    """Synchronous endpoint that answers with the body of the request.

    Args:
        outcomes: other outcomes, or errors to raise, by the question's number.
    """

    def __init__(self, outcomes: dict[int, Outcome | Exception] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.requested: list[int] = []
        self.most_at_once = 0
        self._at_once = 0

    @cached_property
    def _has_failed(self) -> anyio.Event:
        # anyio 4.4 creates events in an event loop only, so not in `__init__`.
        event = anyio.Event()
        if not any(isinstance(outcome, Exception) for outcome in self.outcomes.values()):
            event.set()
        return event

    async def request(self, endpoint: str, body: bytes) -> Outcome:
        """Answer when every other task waits; if a request fails, answer the others after the failure."""
        question = orjson.loads(body)["question"]
        self.requested.append(question)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        outcome = self.outcomes.get(question, Answer.of({"question": question}))
        if isinstance(outcome, Exception):
            await anyio.wait_all_tasks_blocked()
            self._has_failed.set()
            raise outcome
        await self._has_failed.wait()
        await anyio.wait_all_tasks_blocked()
        self._at_once -= 1
        return outcome


class Recorder(Observer):
    """Observer of synchronous outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        assert model == "gpt-4o-mini"
        self.outcomes.append(outcome)


@pytest.fixture
def jobs(ledger):
    """Return a function that returns the state of the ledger's first job."""
    return lambda: ledger.jobs.get(1).state


def test_each_outcome_is_recorded_delivered_and_observed(ledger, look_up, jobs):
    outcomes = [Answer.of({"question": 0}), Failure("Bad.", 400), Answer.of({"question": 2})]
    recorder, deliveries = Recorder(), []

    runner = SyncRunner(SyncAPI({1: outcomes[1]}), ledger, RunningJobs(), recorder)
    assert anyio.run(runner.submit, make_shard(), deliveries.append) is None

    assert [len(delivery) for delivery in deliveries] == [1, 2]
    delivered = {custom_id: outcome for delivery in deliveries for custom_id, outcome in delivery.items()}
    assert [delivered[request.custom_id] for request in make_shard().requests] == outcomes
    assert look_up(make_shard()) == outcomes
    assert sorted(map(str, recorder.outcomes)) == sorted(map(str, outcomes))
    assert jobs() is JobState.COLLECTED


@pytest.mark.parametrize("requests", [1, 3])
def test_the_last_outcome_is_delivered_when_the_job_is_collected(ledger, jobs, requests):
    """A caller ends with its last outcome: `jobs` must not show an interrupted job afterwards."""
    states = []
    runner = SyncRunner(SyncAPI(), ledger, RunningJobs(), Observer())
    anyio.run(runner.submit, make_shard(requests), lambda _: states.append(jobs()))
    assert states == [JobState.SYNCHRONOUS] * (requests - 1) + [JobState.COLLECTED]


def test_failures_are_delivered_when_the_job_is_collected(ledger, jobs):
    """A caller may submit a failed request again, which a job in progress would hold."""
    states = []
    runner = SyncRunner(SyncAPI({0: Failure("Bad.", 400)}), ledger, RunningJobs(), Observer())
    anyio.run(runner.submit, make_shard(1), lambda _: states.append(jobs()))
    assert states == [JobState.COLLECTED]


def test_sixteen_requests_are_in_flight_at_once(ledger):
    api = SyncAPI()
    anyio.run(SyncRunner(api, ledger, RunningJobs(), Observer()).submit, make_shard(40), ignore)
    assert len(api.requested) == 40
    assert api.most_at_once == 16


@pytest.mark.parametrize("error", [RunError("The key was withdrawn.", status_code=401), NoSuchEndpointError()])
def test_an_error_ends_the_job_after_the_requests_in_flight(ledger, look_up, jobs, error):
    """Requests in flight may be billed, so their outcomes are recorded; the others are not submitted."""
    api = SyncAPI({0: error})
    with pytest.raises(type(error)):
        anyio.run(SyncRunner(api, ledger, RunningJobs(), Observer()).submit, make_shard(40), ignore)
    assert sorted(api.requested) == list(range(16))
    assert look_up(make_shard(17))[1:] == [*(Answer.of({"question": i}) for i in range(1, 16)), None]
    assert jobs() is JobState.DROPPED


def test_requests_of_another_process_are_returned(ledger):
    api, shard = SyncAPI(), make_shard()
    first, *_ = shard.requests
    ledger.jobs.plan(Shard.of([first]))
    runner = SyncRunner(api, ledger, RunningJobs(), Observer())

    others = anyio.run(runner.submit, shard, ignore)
    assert others
    assert others.requests == [first]
    assert sorted(api.requested) == [1, 2]

    others = anyio.run(runner.submit, Shard.of([first]), ignore)
    assert others
    assert others.requests == [first]
    assert len(api.requested) == 2
    assert ledger.jobs.get(3).state is JobState.DROPPED


def test_the_job_is_running_while_its_requests_are_in_flight(ledger):
    """Other tasks of the session wait for the job instead of taking it over."""
    running, seen = RunningJobs(), []
    anyio.run(
        SyncRunner(SyncAPI(), ledger, running, Observer()).submit, make_shard(1), lambda _: seen.append(1 in running)
    )
    assert seen == [True]
    assert 1 not in running
