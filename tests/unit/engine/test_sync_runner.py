"""Requests to the synchronous endpoints: records, deliveries, errors."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cached_property

import anyio
import orjson
import pytest

from distilabel_openai_batch import RunError, failpoints
from distilabel_openai_batch.api.outcomes import OVERDUE, Answer, Failure, Outcome, read_answer
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.sync_api import NoSuchEndpointError, Reply, ThrottledError
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine import sync_sender
from distilabel_openai_batch.engine.lanes import DEFAULT_LANES, FlexSupport, Route
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.stop_gate import StopGate
from distilabel_openai_batch.engine.sync_runner import SyncEnd, SyncRunner
from distilabel_openai_batch.engine.sync_sender import SyncSender
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import JobState
from tests.unit.engine.fake_batch_api import ignore, make_shard

FLEX = Route(is_synchronous=True, tries_flex=True)
NO_CAPACITY = ThrottledError(Failure("Resource unavailable", 429), 0, lacks_capacity=True)
AT_FULL_PRICE = Route(is_synchronous=True, falls_back=True, by_lane=False)


class FakeSyncAPI:
    """Synchronous endpoint that answers with the body of the request.

    Args:
        outcomes: other outcomes, or errors to raise, by the question's number.
    """

    patience = Patience(first=0.001, longest=0.002)

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

    async def send(self, endpoint: str, body: bytes, tier: str | None = None) -> Reply:
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
        return Reply(outcome)


class Recorder(Observer):
    """Observer of synchronous outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        assert model == "gpt-4o-mini"
        self.outcomes.append(outcome)


def make_runner(
    api: FakeSyncAPI, ledger: Ledger, running_jobs: RunningJobs | None = None, observer: Observer | None = None
) -> SyncRunner:
    """Return a runner that sends requests to a fake endpoint without the flex tier."""
    observer = observer or Observer()
    flex = FlexSupport(DEFAULT_LANES, "", ledger.refused_parameters, observer)
    sender = SyncSender(api, flex, 100, observer)  # type: ignore[arg-type]
    return SyncRunner(sender, ledger, running_jobs or RunningJobs(), observer)


def submit(runner: SyncRunner, shard: Shard, deliver=ignore, route: Route = AT_FULL_PRICE) -> SyncEnd:
    return anyio.run(runner.submit, shard, deliver, route)


@pytest.fixture
def jobs(ledger):
    """Return a function that returns the state of the ledger's first job."""
    return lambda: ledger.jobs.get(1).state


def test_each_outcome_is_recorded_delivered_and_observed(ledger, look_up, jobs):
    outcomes = [Answer.of({"question": 0}), Failure("Bad.", 400), Answer.of({"question": 2})]
    recorder, deliveries = Recorder(), []

    runner = make_runner(FakeSyncAPI({1: outcomes[1]}), ledger, observer=recorder)
    assert submit(runner, make_shard(), deliveries.append) == SyncEnd()

    assert sum(map(len, deliveries)) == len(outcomes)
    assert outcomes[1] in deliveries[-1].values()
    delivered = {custom_id: outcome for delivery in deliveries for custom_id, outcome in delivery.items()}
    assert [delivered[request.custom_id] for request in make_shard().requests] == outcomes
    assert look_up(make_shard()) == outcomes
    assert sorted(map(str, recorder.outcomes)) == sorted(map(str, outcomes))
    assert jobs() is JobState.COLLECTED


@pytest.mark.parametrize("requests", [1, 3])
def test_the_last_outcome_is_delivered_when_the_job_is_collected(ledger, jobs, requests):
    """A caller ends with its last outcome: `jobs` must not show an interrupted job afterwards."""
    states = []
    submit(make_runner(FakeSyncAPI(), ledger), make_shard(requests), lambda _: states.append(jobs()))
    assert states == [JobState.SYNCHRONOUS] * (requests - 1) + [JobState.COLLECTED]


def test_failures_are_delivered_when_the_job_is_collected(ledger, jobs):
    """A caller may submit a failed request again, which a job in progress would hold."""
    states = []
    runner = make_runner(FakeSyncAPI({0: Failure("Bad.", 400)}), ledger)
    submit(runner, make_shard(1), lambda _: states.append(jobs()))
    assert states == [JobState.COLLECTED]


def test_the_first_sixteen_requests_are_in_flight_at_once(ledger):
    api = FakeSyncAPI()
    submit(make_runner(api, ledger), make_shard(16))
    assert (len(api.requested), api.most_at_once) == (16, 16)
    submit(make_runner(api, ledger), make_shard(80))
    assert len(api.requested) == 80
    assert 16 < api.most_at_once <= 100


@pytest.mark.parametrize("error", [RunError("The key was withdrawn.", status_code=401), NoSuchEndpointError()])
def test_an_error_ends_the_job_after_the_requests_in_flight(ledger, look_up, jobs, error):
    """Requests in flight may be billed, so their outcomes are recorded; the others are not submitted."""
    api = FakeSyncAPI({0: error})
    with pytest.raises(type(error)):
        submit(make_runner(api, ledger), make_shard(40))
    assert sorted(api.requested) == list(range(16))
    assert look_up(make_shard(17))[1:] == [*(Answer.of({"question": i}) for i in range(1, 16)), None]
    assert jobs() is JobState.DROPPED


def test_outcomes_that_arrive_together_are_recorded_together(ledger, look_up, monkeypatch):
    """A record is a disk access: the answers that arrive during a record share the next one."""
    records, record = [], ledger.requests.record
    arrived, all_arrived = [], threading.Event()

    def reached(failpoint):
        arrived.append(failpoint)
        if len(arrived) == 16:
            all_arrived.set()

    def count(request_ids, outcomes):
        records.append(len(outcomes))
        assert all_arrived.wait(60)
        record(request_ids, outcomes)

    monkeypatch.setattr(failpoints, "reached", reached)
    monkeypatch.setattr(ledger.requests, "record", count)
    submit(make_runner(FakeSyncAPI(), ledger), make_shard(16))
    assert records == [1, 15]
    assert None not in look_up(make_shard(16))


def test_requests_of_another_process_are_returned(ledger):
    api, shard = FakeSyncAPI(), make_shard()
    first, *_ = shard.requests
    ledger.jobs.plan(Shard.of([first]))
    runner = make_runner(api, ledger)

    others = submit(runner, shard).others
    assert others
    assert others.requests == [first]
    assert sorted(api.requested) == [1, 2]

    others = submit(runner, Shard.of([first])).others
    assert others
    assert others.requests == [first]
    assert len(api.requested) == 2
    assert ledger.jobs.get(3).state is JobState.DROPPED


def test_the_job_is_running_while_its_requests_are_in_flight(ledger):
    """Other tasks of the session wait for the job instead of taking it over."""
    running, seen = RunningJobs(), []
    submit(make_runner(FakeSyncAPI(), ledger, running), make_shard(1), lambda _: seen.append(1 in running))
    assert seen == [True]
    assert 1 not in running


class FlexAPI(FakeSyncAPI):
    """Endpoint whose flex tier answers a number of requests, and then has no capacity."""

    def __init__(self, capacity: int, refusal: Exception | Failure = NO_CAPACITY) -> None:
        super().__init__()
        self.capacity = capacity
        self.refusal = refusal

    async def send(self, endpoint: str, body: bytes, tier: str | None = None) -> Reply:
        await anyio.wait_all_tasks_blocked()
        if tier and len(self.requested) >= self.capacity:
            if isinstance(self.refusal, Failure):
                return Reply(self.refusal)
            raise self.refusal
        self.requested.append(orjson.loads(body)["question"])
        return Reply(read_answer({"question": self.requested[-1], "service_tier": tier}))


@pytest.mark.parametrize("refusal", [NO_CAPACITY, Failure("Unsupported service_tier: flex", 400)], ids=["429", "400"])
def test_requests_without_flex_are_returned(ledger, look_up, jobs, monkeypatch, refusal):
    """A batch may hold the requests of the dropped job; the answers so far are recorded and delivered."""
    monkeypatch.setattr(sync_sender, "FLEX_WAIT_SECONDS", 0.0)
    shard, delivered = make_shard(40, "gpt-5-mini"), {}
    end = submit(make_runner(FlexAPI(7, refusal), ledger), shard, delivered.update, FLEX)
    assert end.unsent
    assert len(end.unsent.requests) == 33
    assert delivered.keys() == {request.custom_id for request in shard.requests} - {
        request.custom_id for request in end.unsent.requests
    }
    assert sum(outcome is not None for outcome in look_up(shard)) == 7
    assert jobs() is JobState.DROPPED


def test_a_lane_ends_at_the_deadline(ledger, jobs):
    """Requests that were not sent are overdue; requests of other causes begin at the deadline."""
    shard, delivered = make_shard(3, "gpt-5-mini"), {}
    runner = make_runner(FlexAPI(9), ledger)
    anyio.run(runner.submit, shard, delivered.update, FLEX, float("-inf"))
    assert delivered == {request.custom_id: OVERDUE for request in shard.requests}
    assert jobs() is JobState.DROPPED
    anyio.run(runner.submit, shard, delivered.update, replace(FLEX, falls_back=True, by_lane=False), float("-inf"))
    assert all(isinstance(outcome, Answer) for outcome in delivered.values())


async def test_no_synchronous_request_begins_after_a_stop(ledger):
    api = FakeSyncAPI()
    sender = SyncSender(api, FlexSupport(DEFAULT_LANES, "", ledger.refused_parameters, Observer()), 1, Observer())
    gate = StopGate(lambda: bool(api.requested))
    runner = SyncRunner(sender, ledger, RunningJobs(), Observer(), gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.submit, make_shard(), ignore, AT_FULL_PRICE)
        while not api.requested:
            await anyio.lowlevel.checkpoint()
        for _ in range(20):
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(api.requested) == 1
