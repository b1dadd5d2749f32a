"""Dispatch of requests with a fake job runner and a real ledger."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from msgspec import structs

from distilabel_openai_batch import RequestsFailedError, RunError
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.failure_codes import NOT_SUBMITTED
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, OTHER_BATCH, OVERDUE, Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, Shard, cut_shards
from distilabel_openai_batch.api.sync_api import NoSuchEndpointError
from distilabel_openai_batch.engine import delivery, dispatcher
from distilabel_openai_batch.engine.deadlines import Deadline
from distilabel_openai_batch.engine.dispatcher import Dispatcher
from distilabel_openai_batch.engine.job_runner import JobEnd, JobEnding, ShardEnd
from distilabel_openai_batch.engine.lanes import DEFAULT_LANES, LaneChoice, LaneSettings, Route
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.scratch import BodyStore
from distilabel_openai_batch.engine.settings import DispatchSettings
from distilabel_openai_batch.engine.sync_runner import SyncEnd
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState, ScopeName
from distilabel_openai_batch.pricing.budget import NoBudget
from tests.unit.engine.fake_batch_api import ignore, make_shard

REQUESTS = make_shard(4).requests
IDS = [request.custom_id for request in REQUESTS]
REFUSAL = Failure("No such model.", 404, "model_not_found")
BAD = Failure("Bad.", 400)


def answer(custom_id: str) -> Answer:
    return Answer.of({"id": custom_id})


def answers(requests: Sequence[Request] = REQUESTS) -> dict[str, Outcome]:
    return {request.custom_id: answer(request.custom_id) for request in requests}


def with_another_id(request: Request) -> Request:
    return Request(f"{9:032x}-0", request.endpoint, request.model, request.body)


def collect(ledger: Ledger, job: Job, outcomes: dict[str, Outcome] | None = None) -> dict[str, Outcome]:
    """Record outcomes of a job, answers by default, and mark the job as collected."""
    request_ids = ledger.requests.request_ids(job)
    outcomes = {custom_id: answer(custom_id) for custom_id in request_ids} if outcomes is None else outcomes
    ledger.requests.record(request_ids, outcomes)
    if job.state is not JobState.CREATED:
        job = create(ledger, job)
    ledger.jobs.mark_collected(ledger.jobs.mark_ended(job, Batch("batch_1", "completed")), MISSING_RESULT)
    return outcomes


def create(ledger: Ledger, job: Job, batch_id: str = "batch_1") -> Job:
    """Take a planned job to the state of a job whose batch is in progress."""
    return ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-in"), Batch(batch_id, "in_progress"))


class FakeJobRunner:
    """Job runner that answers every request.

    Attributes:
        submitted: the `custom_id`s of each submitted shard.
        uploads_left: the further uploads of each submitted shard.
        resumed: ids of the resumed jobs.
        endings: other endings of the next submissions.
        outcomes: other outcomes than answers.
        gate: the event before which no job ends.
        before_plan: called before a job is planned.
    """

    def __init__(self, ledger: Ledger, running_jobs: RunningJobs) -> None:
        self.waits = True
        self.submitted: list[list[str]] = []
        self.resumed: list[int] = []
        self.uploads_left: list[int] = []
        self.endings: list[JobEnding] = []
        self.outcomes: dict[str, Outcome] = {}
        self.gate: anyio.Event | None = None
        self.before_plan: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._running_jobs = running_jobs

    async def submit(self, shard: Shard, deliver, deadline: float, uploads_left: int) -> ShardEnd:
        self.submitted.append([request.custom_id for request in shard.requests])
        self.uploads_left.append(uploads_left)
        if self.endings:
            return ShardEnd(self.endings.pop(0), shard)
        self.before_plan()
        job, claimed = self._ledger.jobs.plan(shard)
        mine, others = shard.split_by_ids(set(claimed))
        if not mine:
            self._ledger.jobs.mark_dropped(job)
            return ShardEnd(JobEnding.DROPPED, shard, others)
        with self._running_jobs.running(job.id):
            if self.gate:
                await self.gate.wait()
            if not self.waits:
                return ShardEnd(JobEnding.IN_PROGRESS, mine, others, "batch_1")
            deliver(collect(self._ledger, job, {**answers(mine.requests), **self.outcomes}))
        return ShardEnd(JobEnding.COLLECTED, mine, others)

    def split(self, shard: Shard) -> list[Shard]:
        return shard.split(2)

    async def resume(self, job: Job, deliver, deadline: float) -> JobEnd:
        self.resumed.append(job.id)
        if not self.waits:
            return JobEnd(JobEnding.IN_PROGRESS, job)
        deliver(collect(self._ledger, job, self.outcomes or None))
        return JobEnd(JobEnding.COLLECTED, self._ledger.jobs.get(job.id))


class FakeSyncRunner:
    """Synchronous runner that answers every request, or raises `error`.

    Attributes:
        unsent: number of the last requests that flex cannot answer.
        routes: the way of each shard.
        pause: waits before each shard is answered.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.submitted: list[list[str]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.error: Exception | None = None
        self.unsent = 0
        self.routes: list[Route] = []
        self.pause: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
        self._ledger = ledger

    async def submit(self, shard: Shard, deliver, route: Route, deadline: float = float("inf")) -> SyncEnd:
        self.routes.append(route)
        self.submitted.append([request.custom_id for request in shard.requests])
        await self.pause()
        if self.error:
            raise self.error
        deliver(
            {
                request.custom_id: self.outcomes.get(request.custom_id, answer(request.custom_id))
                for request in shard.requests[: len(shard.requests) - self.unsent]
            }
        )
        unsent = shard.requests[len(shard.requests) - self.unsent :]
        return SyncEnd(None, Shard.of(unsent) if unsent else None, "no capacity")


class FakeAdopter:
    """Adopter that calls `find` once."""

    def __init__(self) -> None:
        self.is_due = True
        self.find: Callable[[], None] | None = None

    async def adopt(self, needed: Sequence[str]) -> bool:
        find, self.find = self.find, None
        if find:
            find()
        return find is not None


class BudgetRecorder(NoBudget):
    """Budget that records its calls."""

    def __init__(self) -> None:
        self.reserved: list[tuple[int, bool]] = []
        self.expected: list[int] = []
        self.released: list[str] = []

    async def reserve(self, requests: Sequence[Request], is_sync: bool) -> None:
        if requests:
            self.reserved.append((len(requests), is_sync))

    async def expect(self, requests: Sequence[Request]) -> None:
        self.expected.append(len(requests))

    def release(self, requests) -> None:
        self.released += [request.custom_id for request in requests]


class Recorder(Observer):
    """Observer that records the events of the dispatch."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def on_reused(self, requests: int) -> None:
        self.events.append(("reused", requests))

    def on_empty_reused(self, requests: int) -> None:
        self.events.append(("empty", requests))

    def on_job_of_another_process(self, batch_id: str | None) -> None:
        self.events.append(("another process", batch_id))

    def on_sync_unavailable(self, reason: str) -> None:
        self.events.append(("no endpoint", reason))

    def on_preflight_skipped(self, reason: str) -> None:
        self.events.append(("preflight skipped", reason))

    def on_limit_spent(self, model: str, limit: int, tokens: int, reasoning: int) -> None:
        self.events.append(("limit spent", (limit, tokens, reasoning)))

    def on_deadline_passed(self, requests: int, batch: Batch | None = None) -> None:
        self.events.append(("deadline", requests))


class Parts:
    """A dispatcher and the objects around it."""

    def __init__(self, ledger: Ledger, bodies: BodyStore) -> None:
        self.bodies = bodies
        self.running_jobs = RunningJobs()
        self.job_runner = FakeJobRunner(ledger, self.running_jobs)
        self.sync_runner = FakeSyncRunner(ledger)
        self.adopter = FakeAdopter()
        self.budget = BudgetRecorder()
        self.observer = Recorder()
        self._ledger = ledger

    def dispatcher(
        self,
        max_requests: int = 1_000,
        has_flex: bool | Callable[[str], bool] = False,
        lanes: LaneSettings = DEFAULT_LANES,
        before_submission: Callable[[Sequence[Request], int], Awaitable[None]] | None = None,
        **settings,
    ) -> Dispatcher:
        if "sync_below" in settings:
            lanes = replace(lanes, sync_below=settings.pop("sync_below"))
        return Dispatcher(
            DispatchSettings(**settings),
            self._ledger,
            self.job_runner,  # type: ignore[arg-type]
            self.running_jobs,
            self.adopter,  # type: ignore[arg-type]
            self.sync_runner,  # type: ignore[arg-type]
            partial(cut_shards, max_requests=max_requests, max_bytes=1_000_000),
            self.observer,
            LearnedTraits(self._ledger.refused_parameters, self.bodies, self.observer),
            LaneChoice(lanes, lambda endpoint, model: has_flex(model) if callable(has_flex) else has_flex),
            self.budget,
            before_submission=before_submission,
        )

    async def answer(
        self, requests: Sequence[Request] = REQUESTS, is_late: bool = False, **settings
    ) -> tuple[dict[str, Outcome], list[str]]:
        """Answer requests; return the delivered outcomes, and the ids of the batches in progress."""
        delivered: dict[str, Outcome] = {}
        since = None if is_late else time.monotonic()
        in_progress = await self.dispatcher(**settings).answer(requests, delivered.update, since)
        return delivered, in_progress


@pytest.fixture
def parts(ledger, monkeypatch, bodies) -> Parts:
    monkeypatch.setattr(dispatcher, "_POLL_OF_ANOTHER_PROCESS_SECONDS", 0.01)
    return Parts(ledger, bodies)


@pytest.fixture
def other(tmp_path, ledger) -> Iterator[Ledger]:
    """Return the ledger as another process has it open, for the same scope."""
    other = Ledger(tmp_path / "ledger", ScopeName("pipeline", "task", "https://api.example.com/v1/"))
    yield other
    if other.owner:
        other.close()


async def test_unknown_requests_are_submitted(parts):
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS]
    assert parts.budget.reserved == [(4, False)]
    assert parts.observer.events == []


async def test_requests_are_cut_into_shards(parts):
    assert await parts.answer(max_requests=3) == (answers(), [])
    assert parts.job_runner.submitted == [IDS[:3], IDS[3:]]


async def test_requests_are_answered_from_the_ledger(parts):
    """Only the request that the earlier run did not submit is submitted."""
    await parts.answer(REQUESTS[:3])
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS[:3], IDS[3:]]
    assert parts.observer.events == [("reused", 3)]


@pytest.mark.parametrize("chunk", [64, 5_000])
async def test_requests_of_packs_are_sorted_like_other_requests(parts, ledger, monkeypatch, chunk):
    """Answers come from packs, failures from rows, and the rest is submitted in its order."""
    monkeypatch.setattr(dispatcher, "_LOOK_UP_CHUNK", chunk)
    requests = make_shard(400).requests
    ids = [request.custom_id for request in requests]
    job, _ = ledger.jobs.plan(Shard.of(requests[50:250]))
    collect(ledger, job, answers(requests[50:250]) | dict.fromkeys(ids[60:70], BAD))
    create(ledger, ledger.jobs.plan(Shard.of(requests[250:380]))[0], "batch_2")
    parts.job_runner.waits = False
    outcomes, in_progress = await parts.answer(requests)
    assert parts.job_runner.submitted == [[*ids[:50], *ids[60:70], *ids[380:]]]
    assert {"batch_2"} <= {*in_progress}
    assert outcomes == answers([*requests[50:60], *requests[70:250]])
    assert ("reused", 190) in parts.observer.events


async def test_garbage_collector_pauses_until_all_known_outcomes_are_delivered(parts, monkeypatch):
    """Each end of a pause would visit all new objects."""
    monkeypatch.setattr(dispatcher, "_LOOK_UP_CHUNK", 1)
    await parts.answer()
    paused = []

    def deliver(outcomes) -> None:
        if outcomes:
            paused.append(not gc.isenabled())

    await parts.dispatcher().answer(REQUESTS, deliver, time.monotonic())

    assert paused == [True] * len(REQUESTS)
    assert gc.isenabled()


async def test_a_failure_of_an_earlier_run_is_submitted_again(parts, ledger):
    """A failure of a job that this run waited for is delivered instead."""
    parts.job_runner.outcomes = {IDS[0]: BAD}
    assert (await parts.answer())[0][IDS[0]] == BAD
    parts.job_runner.outcomes = {}
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS, IDS[:1]]


async def test_refusal_in_adopted_results_is_learned_before_the_resubmission(parts, other, monkeypatch):
    """Another machine's ledger has no record of the refusal: a job with the same parameter would fail again."""
    refusal = Failure("Unsupported parameter: 'max_tokens' is not supported with this model.", 400)
    requests = [
        Request(custom_id, "/v1/chat/completions", "alias", b'{"model":"alias","max_tokens":8}') for custom_id in IDS
    ]
    outcomes = dict.fromkeys(IDS[:2], refusal)
    parts.adopter.find = lambda: collect(other, other.jobs.plan(Shard.of(requests[:2]))[0], outcomes)
    bodies: list[bytes] = []
    submit = parts.job_runner.submit

    async def note_bodies(shard: Shard, *arguments):
        bodies.extend(bytes(request.body) for request in shard.requests)
        return await submit(shard, *arguments)

    monkeypatch.setattr(parts.job_runner, "submit", note_bodies)

    assert await parts.answer(requests) == (answers(), [])

    assert bodies == [b'{"model":"alias","max_completion_tokens":8}'] * 4
    assert parts.job_runner.submitted == [IDS]


async def test_empty_answers_of_an_earlier_run_are_reported_apart(parts):
    spent = Failure("Spent.", 200, "length", tokens=(3, 8))
    parts.job_runner.outcomes = dict.fromkeys(IDS[:3], spent)
    await parts.answer()
    delivered, _ = await parts.answer(keeps_spent=True)
    assert [delivered[custom_id].code for custom_id in IDS[:3]] == ["length"] * 3
    assert parts.observer.events == [("reused", 1), ("empty", 3)]


async def test_adopted_answers_are_not_submitted(parts, other):
    """The server is searched if the ledger does not know a request, and the ledger is asked again."""
    parts.adopter.find = lambda: collect(other, other.jobs.plan(Shard.of(REQUESTS[:3]))[0])
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS[3:]]
    assert parts.observer.events == [("reused", 3)]


async def test_a_job_of_another_process_is_waited_for(parts, other):
    job, _ = other.jobs.plan(Shard.of(REQUESTS))
    created = create(other, job)

    async def collect_after_two_polls() -> None:
        while len(parts.observer.events) < 2:
            await anyio.sleep(0.01)
        collect(other, created)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(collect_after_two_polls)
        assert await parts.answer() == (answers(), [])
    assert set(parts.observer.events) == {("another process", "batch_1")}
    assert parts.job_runner.submitted == parts.job_runner.resumed == parts.budget.expected == []


async def test_a_job_of_another_process_is_returned_by_a_run_that_does_not_wait(parts, other):
    create(other, other.jobs.plan(Shard.of(REQUESTS))[0])
    parts.job_runner.waits = False
    assert await parts.answer() == ({}, ["batch_1"])


@pytest.mark.parametrize("waits", [True, False])
async def test_the_job_of_a_dead_process_is_taken_over(parts, other, waits):
    """The budget of this run expects the price of the job."""
    job = create(other, other.jobs.plan(Shard.of(REQUESTS))[0])
    other.close()
    other.owner = ""
    parts.job_runner.waits = waits
    assert await parts.answer() == ((answers(), []) if waits else ({}, ["batch_1"]))
    assert parts.job_runner.resumed == [job.id]
    assert parts.budget.expected == [4]
    assert parts.job_runner.submitted == []


@pytest.mark.parametrize("age", [-3_600.0, 0.0, 600.0], ids=["planned by a fast clock", "new", "old"])
async def test_the_deadline_of_a_job_counts_from_its_intent(parts, other, age, monkeypatch):
    """A job whose intent lies in the future, since the wall clock was set back, counts as new."""
    create(other, other.jobs.plan(Shard.of(REQUESTS))[0])
    other.close()
    other.owner = ""
    deadlines: list[float] = []
    resume = parts.job_runner.resume

    async def note_deadline(job: Job, deliver, deadline: float) -> JobEnd:
        deadlines.append(deadline)
        return await resume(job, deliver, deadline)

    parts.job_runner.resume = note_deadline
    now, started = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now + age)
    await parts.answer(deadline=Deadline(1_000.0))
    assert abs(deadlines[0] - (started + 1_000.0 - max(0.0, age))) < 60.0


async def test_a_failure_in_a_job_that_was_waited_for_is_delivered(parts, other):
    """The buffer decides whether to submit the request again."""
    create(other, other.jobs.plan(Shard.of(REQUESTS))[0])
    other.close()
    other.owner = ""
    parts.job_runner.outcomes = {IDS[0]: BAD, **answers(REQUESTS[1:])}
    assert await parts.answer() == ({**answers(), IDS[0]: BAD}, [])
    assert parts.job_runner.submitted == []


async def test_requests_of_two_flushes_that_overlap_are_submitted_once(parts):
    """A caller that was cancelled releases its `custom_id`s, and the next caller submits them in another flush."""
    parts.job_runner.gate = anyio.Event()
    dispatcher, delivered = parts.dispatcher(), [{}, {}]

    async with anyio.create_task_group() as task_group:
        for outcomes in delivered:
            task_group.start_soon(dispatcher.answer, REQUESTS, outcomes.update, time.monotonic())
        await anyio.sleep(0.05)
        parts.job_runner.gate.set()
    assert delivered == [answers(), answers()]
    assert parts.job_runner.submitted == [IDS]
    assert parts.job_runner.resumed == []


async def test_the_budget_of_requests_that_another_process_submits_is_released(parts, other):
    """Another process may plan a job between the look-up and the plan."""

    def plan_elsewhere() -> None:
        parts.job_runner.before_plan = lambda: None
        collect(other, other.jobs.plan(Shard.of(REQUESTS[:2]))[0])

    parts.job_runner.before_plan = plan_elsewhere
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS]
    assert parts.budget.released == IDS[:2]


async def test_few_requests_are_submitted_synchronously(parts):
    assert await parts.answer(sync_below=5) == (answers(), [])
    assert (parts.sync_runner.submitted, parts.job_runner.submitted) == ([IDS], [])
    assert parts.budget.reserved == [(4, True)]


async def test_enough_requests_go_into_a_batch(parts):
    assert await parts.answer(sync_below=4) == (answers(), [])
    assert (parts.sync_runner.submitted, parts.job_runner.submitted) == ([], [IDS])


async def test_without_a_synchronous_endpoint_requests_go_into_a_batch(parts):
    """The budget reserves the price of a batch instead."""
    parts.sync_runner.error = NoSuchEndpointError("404")
    assert await parts.answer(sync_below=5) == (answers(), [])
    assert parts.job_runner.submitted == [IDS]
    assert parts.budget.reserved == [(4, True), (4, False)]
    assert parts.observer.events == [("no endpoint", "404")]


FLEX = LaneSettings("flex")


async def test_a_lane_submits_all_requests_with_flex(parts):
    """The budget reserves the price of a batch: no request falls back."""
    assert await parts.answer(lanes=FLEX, has_flex=True) == (answers(), [])
    assert (parts.sync_runner.submitted, parts.job_runner.submitted) == ([IDS], [])
    assert parts.sync_runner.routes == [Route(is_synchronous=True, tries_flex=True)]
    assert parts.budget.reserved == [(4, False)]


async def test_a_fallback_reserves_the_full_price(parts):
    await parts.answer(lanes=replace(FLEX, flex_fallback=True), has_flex=True)
    assert parts.budget.reserved == [(4, True)]


async def test_requests_that_flex_cannot_answer_go_into_a_batch(parts):
    parts.sync_runner.unsent = 3
    assert await parts.answer(lanes=FLEX, has_flex=True) == (answers(), [])
    assert parts.job_runner.submitted == [IDS[1:]]
    assert parts.budget.reserved == [(4, False), (3, False)]
    assert parts.observer.events == [("no endpoint", "no capacity")]


async def test_a_flex_failure_after_the_deadline_is_overdue(parts, monkeypatch):
    """The request is submitted again, at full price."""
    parts.sync_runner.outcomes = {IDS[0]: Failure("No capacity.", 429), IDS[1]: BAD}
    monkeypatch.setattr(delivery, "time", SimpleNamespace(monotonic=lambda: float("inf")))
    delivered, _ = await parts.answer(lanes=FLEX, has_flex=True, deadline=Deadline(600.0))
    assert [delivered[custom_id] for custom_id in IDS[:2]] == [OVERDUE, BAD]


@pytest.mark.parametrize("unsent", [0, 1])
async def test_a_preflight_tries_flex(parts, unsent):
    """A trial that flex cannot answer is skipped."""
    parts.sync_runner.unsent = unsent
    assert await parts.answer(preflight=True, has_flex=True) == (answers(), [])
    assert parts.sync_runner.routes[0].tries_flex
    assert parts.job_runner.submitted == [IDS[1 - unsent :]]
    assert parts.observer.events == [("preflight skipped", "no capacity")] * unsent


async def test_models_of_one_flush_have_their_own_lanes(parts):
    """Only requests of a model without flex go into a batch."""
    other = structs.replace(REQUESTS[0], custom_id=f"{9:032x}-0", model="gpt-4o")
    await parts.answer([*REQUESTS, other], lanes=FLEX, has_flex=lambda model: model == "gpt-4o", preflight=True)
    assert parts.sync_runner.submitted == [[IDS[0]], [other.custom_id]]
    assert parts.job_runner.submitted == [IDS[1:]]


async def test_overdue_requests_are_submitted_synchronously(parts):
    assert await parts.answer(is_late=True) == (answers(), [])
    assert (parts.sync_runner.submitted, parts.job_runner.submitted) == ([IDS], [])


async def test_a_shard_whose_deadline_passes_before_its_batch_is_accepted_is_overdue(parts):
    """The buffer passes these requests on again, as overdue ones."""
    parts.job_runner.endings = [JobEnding.OVERDUE]
    assert await parts.answer() == (dict.fromkeys(IDS, OVERDUE), [])
    assert parts.observer.events == [("deadline", 4)]


async def test_transient_failures_after_the_deadline_are_overdue(parts):
    """No other job is waited for; permanent failures stay as they are."""
    parts.job_runner.outcomes = {IDS[0]: Failure("Cancelled.", code="batch_cancelled"), IDS[1]: BAD}
    parts.job_runner.gate = anyio.Event()

    async def end_after_the_deadline() -> None:
        while not parts.job_runner.submitted:
            await anyio.sleep(0.01)
        await anyio.sleep(0.5)
        parts.job_runner.gate.set()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(end_after_the_deadline)
        delivered, _ = await parts.answer(deadline=Deadline(0.5))
    assert delivered == {**answers(), IDS[0]: OVERDUE, IDS[1]: BAD}
    assert parts.sync_runner.submitted == []


async def test_a_shard_that_is_too_large_is_submitted_in_parts(parts):
    parts.job_runner.endings = [JobEnding.TOO_LARGE]
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS, IDS[:2], IDS[2:]]


async def test_a_shard_whose_input_file_is_gone_is_submitted_again(parts):
    """Each submission leaves one further upload less."""
    parts.job_runner.endings = [JobEnding.FILE_GONE] * 2
    assert await parts.answer() == (answers(), [])
    assert parts.job_runner.submitted == [IDS] * 3
    assert parts.job_runner.uploads_left == [2, 1, 0]


async def test_batches_that_are_not_waited_for_are_returned(parts):
    parts.job_runner.waits = False
    assert await parts.answer() == ({}, ["batch_1"])


async def test_the_preflight_submits_one_request_of_each_model(parts):
    """A model is tried once; the other requests go into a batch."""
    other_model = Request("1" * 32 + "-0", REQUESTS[0].endpoint, "gpt-4o", b"{}")
    dispatcher, delivered = parts.dispatcher(preflight=True), {}
    await dispatcher.answer([*REQUESTS, other_model], delivered.update, time.monotonic())
    assert delivered == answers([*REQUESTS, other_model])
    assert sorted(parts.sync_runner.submitted) == [IDS[:1], [other_model.custom_id]]
    assert parts.job_runner.submitted == [IDS[1:]]

    await dispatcher.answer([with_another_id(REQUESTS[0])], delivered.update, time.monotonic())
    assert len(parts.sync_runner.submitted) == 2


@pytest.mark.parametrize("step", ["check", "preflight"])
async def test_a_flush_waits_for_the_checks_and_the_preflight_of_the_flush_before(parts, step):
    """Jobs are created in the order of their requests."""

    looked_up = anyio.Semaphore(0)

    async def adopt(needed: Sequence[str]) -> bool:
        looked_up.release()
        return False

    async def pause() -> None:
        # Both flushes have looked their requests up.
        await looked_up.acquire()
        await looked_up.acquire()
        await anyio.wait_all_tasks_blocked()
        assert not parts.job_runner.submitted

    async def check(requests: Sequence[Request], known: int) -> None:
        if requests == REQUESTS[:2]:
            await pause()

    parts.adopter.adopt = adopt
    if step == "preflight":
        parts.sync_runner.pause = pause
    dispatcher = parts.dispatcher(preflight=step == "preflight", before_submission=check if step == "check" else None)
    async with anyio.create_task_group() as flushes:
        for requests in (REQUESTS[:2], REQUESTS[2:]):
            flushes.start_soon(dispatcher.answer, requests, ignore, time.monotonic())

    tried = set(chain.from_iterable(parts.sync_runner.submitted))
    assert parts.job_runner.submitted == [[name for name in part if name not in tried] for part in (IDS[:2], IDS[2:])]


async def test_a_preflight_of_empty_answers_names_its_bill_and_the_tokens_of_each_generation(parts):
    body = b'{"max_tokens": 200, "n": 2}'
    requests = [Request(f"{number:032x}-0", REQUESTS[0].endpoint, "gpt-4o", body) for number in range(4)]
    spent = Failure("Spent.", 200, "length", tokens=(3, 400))
    parts.sync_runner.outcomes = {request.custom_id: spent for request in requests}
    with pytest.raises(RequestsFailedError, match="Only the preflight's requests were billed") as caught:
        await parts.answer(requests, preflight=True)
    assert "Nothing was submitted" not in str(caught.value)
    assert parts.observer.events == [("limit spent", (200, 200, 200))] * 3


async def test_a_preflight_that_is_refused_three_times_ends_the_run(parts):
    """No request goes into a batch."""
    parts.sync_runner.outcomes = dict.fromkeys(IDS, REFUSAL)
    with pytest.raises(
        RequestsFailedError, match=r"first 3 of 4 requests.*No such model.*Nothing was submitted"
    ) as caught:
        await parts.answer(preflight=True)
    assert (caught.value.status_code, caught.value.code) == (404, "model_not_found")
    assert parts.sync_runner.submitted == [[custom_id] for custom_id in IDS[:3]]
    assert parts.job_runner.submitted == []


async def test_different_refusals_do_not_end_the_run(parts):
    """The refused requests fail, and the rest goes into a batch."""
    refusals = {IDS[0]: REFUSAL, IDS[1]: BAD, IDS[2]: REFUSAL}
    parts.sync_runner.outcomes = refusals
    assert await parts.answer(preflight=True) == ({**answers(), **refusals}, [])
    assert parts.job_runner.submitted == [IDS[3:]]


async def test_the_preflight_is_skipped_without_a_synchronous_endpoint(parts):
    parts.sync_runner.error = NoSuchEndpointError("404")
    assert await parts.answer(preflight=True) == (answers(), [])
    assert parts.observer.events == [("preflight skipped", "404")]
    assert parts.job_runner.submitted == [IDS]


async def test_a_run_that_submits_nothing_explains_each_missing_answer(parts, ledger):
    """The reasons: a failure in the ledger, a dropped job, or no job at all."""
    first, *_ = REQUESTS
    collect(ledger, ledger.jobs.plan(Shard.of([first]))[0], {first.custom_id: BAD})
    dropped, _ = ledger.jobs.plan(Shard.of(REQUESTS[1:2]))
    ledger.jobs.mark_dropped(dropped, "The server refused.")

    delivered, in_progress = await parts.answer(submits=False)

    assert list(delivered) == IDS
    failed, of_dropped, *unknown = delivered.values()
    assert failed == BAD
    assert isinstance(of_dropped, Failure)
    assert "The server refused." in of_dropped.message
    assert ledger.requests.look_up(IDS[1:2])[IDS[1]].outcome == of_dropped
    assert [failure.code for failure in unknown] == [NOT_SUBMITTED] * 2
    assert in_progress == parts.job_runner.submitted == parts.sync_runner.submitted == []


async def test_requests_outside_the_selected_batches_fail(parts, other):
    """The server is searched for a selected batch that the ledger does not know."""
    collect(other, create(other, other.jobs.plan(Shard.of(REQUESTS[:1]))[0], "batch_2"))
    parts.adopter.find = lambda: collect(other, create(other, other.jobs.plan(Shard.of(REQUESTS[1:3]))[0], "batch_3"))
    delivered, _ = await parts.answer(only_batches=frozenset({"batch_3"}), submits=False)
    assert delivered == {IDS[0]: OTHER_BATCH, IDS[3]: OTHER_BATCH, **answers(REQUESTS[1:3])}


async def test_the_first_error_cancels_the_other_shards_and_is_raised_alone(parts):
    ended = []

    async def submit(shard: Shard, deliver, deadline: float, uploads_left: int) -> ShardEnd:
        if shard.requests[0].custom_id == IDS[1]:
            raise RunError("The key was withdrawn.")
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(shard.requests[0].custom_id)

    parts.job_runner.submit = submit
    with pytest.raises(RunError, match="withdrawn"):
        await parts.dispatcher(max_requests=1).answer(REQUESTS, ignore, time.monotonic())
    assert sorted(ended) == [IDS[0], *IDS[2:]]
