"""Polls of batches in progress: cancellation, records of progress, early answers, shared polls."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from distilabel_openai_batch import LedgerError
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.size_limits import AnswerSizes, SizeLimit
from distilabel_openai_batch.engine import job_watcher
from distilabel_openai_batch.engine.enqueue_limit import EnqueueLimit
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.job_runner import JobEnding
from distilabel_openai_batch.engine.job_watcher import JobWatcher
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.ledger import job_table
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import Job, JobState
from tests.support.batch_api import Clock
from tests.unit.engine.conftest import FAST_SETTINGS
from tests.unit.engine.fake_batch_api import CountingBatchAPI, FakeBatchAPI, ignore, make_shard

ANSWERS = [Answer.of({"question": i}) for i in range(3)]
HOURS = 3_600.0


@pytest.fixture
def make_watcher(ledger, scratch_dir):
    def make(api: FakeBatchAPI, observer: Observer | None = None) -> JobWatcher:
        return JobWatcher(JobContext(api, ledger, FAST_SETTINGS, scratch_dir, observer or Observer(), AnswerSizes()))

    return make


@pytest.fixture
def admission():
    with EnqueueLimit(FAST_SETTINGS.schedule, 50_000).admit_resumed() as admission:
        yield admission


def test_a_batch_that_never_ends_is_cancelled_and_collected(make_runner, leave_job, monkeypatch):
    """A batch is cancelled an hour after its window closed; the answers until then are delivered."""
    api = FakeBatchAPI("in_progress")
    job = leave_job(api, JobState.CREATED, make_shard())
    monkeypatch.setattr(job_watcher, "_OVERDUE_SECONDS", 0.05)

    delivered = {}
    anyio.run(make_runner(api).resume, replace(job, intended_at=time.time() - 30 * HOURS), delivered.update)

    assert api.calls.count("cancel") == 1
    assert list(delivered.values()) == ANSWERS


def test_the_window_begins_with_the_creation_of_the_batch(make_runner, leave_job):
    """A job that was planned long ago may have waited for its creation."""
    api = FakeBatchAPI("in_progress", "in_progress", "completed")
    make_batch = api.batch
    api.batch = lambda batch_id: replace(make_batch(batch_id), created_at=time.time())
    job = leave_job(api, JobState.CREATED, make_shard())

    delivered = {}
    anyio.run(make_runner(api).resume, replace(job, intended_at=time.time() - 30 * HOURS), delivered.update)

    assert "cancel" not in api.calls
    assert list(delivered.values()) == ANSWERS


def test_a_batch_that_cannot_be_cancelled_is_collected(make_runner, leave_job, monkeypatch):
    """Otherwise the run would wait forever."""
    api = FakeBatchAPI("in_progress")
    job = leave_job(api, JobState.CREATED, make_shard())
    monkeypatch.setattr(job_watcher, "_OVERDUE_SECONDS", 0.05)

    async def cancel(batch_id: str) -> None:
        api.calls.append("cancel")

    api.cancel = cancel
    end = anyio.run(make_runner(api, completion_window="0h").resume, job, ignore)
    assert end.ending is JobEnding.COLLECTED
    assert api.calls.count("cancel") == 1


def test_a_batch_that_shows_its_end_with_an_unknown_status_is_collected(make_runner, leave_job, ledger):
    """The ledger has the status that the batch shows otherwise; the batch is not cancelled."""
    api = FakeBatchAPI("validating", "sealed")
    make_batch = api.batch
    api.batch = lambda batch_id: replace(make_batch(batch_id), ended_as="completed")
    job = leave_job(api, JobState.CREATED, make_shard())

    delivered = {}
    end = anyio.run(make_runner(api).resume, job, delivered.update)
    assert end.ending is JobEnding.COLLECTED
    assert "cancel" not in api.calls
    assert list(delivered.values()) == ANSWERS
    [entry] = LedgerReader(ledger.path.parent).jobs()
    assert entry.status == "completed"


def test_a_run_that_does_not_wait_collects_a_batch_that_shows_its_end(make_runner, leave_job):
    api = FakeBatchAPI("sealed")
    make_batch = api.batch
    job = leave_job(api, JobState.CREATED, make_shard())
    runner = make_runner(api, wait=False)
    assert anyio.run(runner.resume, job, ignore).ending is JobEnding.IN_PROGRESS

    api.batch = lambda batch_id: replace(make_batch(batch_id), ended_as="completed")
    assert anyio.run(runner.resume, job, ignore).ending is JobEnding.COLLECTED


@pytest.mark.parametrize("settings", [{}, {"window_binds": False}, {"completion_window": "two weeks"}])
def test_a_batch_whose_status_nobody_knows_is_cancelled_and_collected(make_runner, leave_job, monkeypatch, settings):
    """The window ends on any server, even if the server does not cancel the batch."""
    api = FakeBatchAPI("sealed")
    job = leave_job(api, JobState.CREATED, make_shard())
    monkeypatch.setattr(job_watcher, "_OVERDUE_SECONDS", 0.05)

    async def cancel(batch_id: str) -> None:
        api.calls.append("cancel")

    api.cancel = cancel
    delivered = {}
    old_job = replace(job, intended_at=time.time() - 30 * HOURS)
    end = anyio.run(make_runner(api, **settings).resume, old_job, delivered.update)
    assert end.ending is JobEnding.COLLECTED
    assert api.calls.count("cancel") == 1
    assert list(delivered.values()) == ANSWERS


def test_a_batch_is_cancelled_at_the_deadline(make_runner, leave_job):
    """The observer is told how many requests are unanswered, and the answers so far are collected."""

    class Recorder(Observer):
        events: list[tuple[int, str]] = []  # noqa: RUF012

        def on_deadline_passed(self, requests: int, batch: Batch | None = None) -> None:
            assert batch
            self.events.append((requests, batch.id))

    api = FakeBatchAPI("in_progress")
    job = leave_job(api, JobState.CREATED, make_shard())
    end = anyio.run(make_runner(api, Recorder()).resume, job, ignore, time.monotonic() + 0.01)
    assert end.ending is JobEnding.COLLECTED
    assert api.calls.count("cancel") == 1
    assert Recorder.events == [(3, "batch_0")]


class SlowAPI(FakeBatchAPI):
    """Batch API whose batch answers its requests in equal times, and does not end when its window closes.

    Args:
        clock: the clock of the server.
        hours: the hours that the batch takes.
        requests: the number of requests.
    """

    def __init__(self, clock: Clock, hours: float, requests: int = 3) -> None:
        super().__init__("in_progress")
        self._clock = clock
        self._seconds = hours * HOURS
        self.requests = requests
        self.began_at = clock.time()

    def batch(self, batch_id: str) -> Batch:
        done = int(self.requests * (self._clock.time() - self.began_at) / self._seconds)
        if "cancel" not in self.calls and done >= self.requests:
            self.statuses = ["completed"]
        return replace(super().batch(batch_id), completed=min(done, self.requests), created_at=self.began_at)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Return the fake clock of the watcher."""
    clock = Clock()
    monkeypatch.setattr(job_watcher, "time", clock)
    fake = SimpleNamespace(sleep=clock.sleep, to_thread=anyio.to_thread, Lock=anyio.Lock)
    monkeypatch.setattr(job_watcher, "anyio", fake)
    return clock


@pytest.fixture
def watch_slowly(clock, ledger, scratch_dir, leave_job, admission):
    """Return a function that watches the batch of a server by one watcher, and returns the last status."""
    settings = replace(FAST_SETTINGS, schedule=PollSchedule(60.0, 600.0))
    watcher = JobWatcher(JobContext(FakeBatchAPI(), ledger, settings, scratch_dir, Observer(), AnswerSizes()))

    async def watch(api: SlowAPI, job: Job | None = None, deadline: float = float("inf")) -> str:
        job = job or leave_job(api, JobState.CREATED, make_shard(api.requests))
        watcher._api = api
        job = replace(job, intended_at=api.began_at)
        return (await watcher.watch(job, api.batch("batch_0"), ignore, deadline, admission)).status

    return watch


@pytest.mark.parametrize(("hours", "status"), [(30, "completed"), (70, "completed"), (200, "cancelled")])
async def test_a_batch_that_progresses_is_not_cancelled_when_its_window_closes(clock, watch_slowly, hours, status):
    """Without progress for a window and an hour, the batch is cancelled."""
    assert await watch_slowly(SlowAPI(clock, hours)) == status


async def test_progress_that_an_earlier_run_recorded_counts(clock, ledger, watch_slowly, monkeypatch):
    """The second run begins ten hours after the last progress, and cancels the batch fifteen hours later."""
    api = SlowAPI(clock, 300)
    job, _ = ledger.jobs.plan(make_shard())
    clock.now += 100 * HOURS
    monkeypatch.setattr(job_table, "time", clock)
    ledger.jobs.record_progress(job, Batch("batch_0", "in_progress", completed=1))
    clock.now += 10 * HOURS
    assert await watch_slowly(api, job) == "cancelled"
    assert 125.0 <= clock.now / HOURS < 126.5


async def test_progress_between_two_runs_counts(clock, watch_slowly):
    """The time of the progress is unknown → the window begins with the second run."""
    api = SlowAPI(clock, 72)
    clock.now += 40 * HOURS
    assert await watch_slowly(api) == "completed"


async def test_each_cancelled_batch_doubles_the_window_of_later_batches(clock, watch_slowly):
    """A batch of one request shows no progress: the second batch gets twice the window, and ends."""
    assert await watch_slowly(SlowAPI(clock, 40, requests=1)) == "cancelled"
    assert 25.0 < clock.now / HOURS < 27.0
    assert await watch_slowly(SlowAPI(clock, 40, requests=1)) == "completed"


@pytest.mark.parametrize("change", [-HOURS, 10 * HOURS], ids=["back", "forward"])
async def test_a_change_of_the_wall_clock_moves_no_deadline(clock, watch_slowly, monkeypatch, change):
    api = SlowAPI(clock, 20)
    monkeypatch.setattr(clock, "time", lambda: 1_700_000_000.0 + clock.now + (change if clock.now else 0.0))
    assert await watch_slowly(api, deadline=3 * HOURS) == "cancelled"
    assert 3.0 <= clock.now / HOURS < 3.5


def test_progress_is_recorded_at_each_status_and_at_each_fiftieth_of_the_requests(ledger, make_runner, leave_job):
    """A day has some 1,400 polls, which the ledger does not keep."""
    api = CountingBatchAPI("validating", "validating", *["in_progress"] * 900, "completed")
    job = leave_job(api, JobState.CREATED, make_shard(1_000))

    anyio.run(make_runner(api).resume, job, ignore)

    [timeline] = LedgerReader(ledger.path.parent).timelines()
    completed = [poll[1] for poll in timeline.polls]
    assert timeline.in_progress_at == 5.0
    assert completed == sorted(completed)
    assert 40 <= len(completed) <= 52


async def test_interrupted_run_records_the_last_counts(ledger, make_watcher, leave_job, admission):
    """`jobs` shows the state that the run saw last, though less than a fiftieth of the requests was new."""

    class SlowAPI(FakeBatchAPI):
        polls = 0

        async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
            self.polls += 1
            completed = 7 if self.polls > 1 else 0
            return {batch_id: Batch(batch_id, "in_progress", completed=completed) for batch_id in batch_ids}

    api = SlowAPI()
    job = leave_job(api, JobState.CREATED, make_shard(1_000))
    watcher = make_watcher(api)
    async with anyio.create_task_group() as task_group:
        batch = Batch("batch_0", "validating")
        task_group.start_soon(watcher.watch, job, batch, ignore, float("inf"), admission)
        while api.polls < 3:
            await anyio.sleep(0.01)
        task_group.cancel_scope.cancel()

    [entry] = LedgerReader(ledger.path.parent).jobs()
    assert (entry.status, entry.answered) == ("in_progress", 7)


def test_a_run_does_not_depend_on_the_record_of_progress(ledger, make_runner, leave_job, look_up, monkeypatch):
    def fail(job, batch):
        raise LedgerError("The ledger cannot be used: database is locked.")

    monkeypatch.setattr(ledger.jobs, "record_progress", fail)
    api = FakeBatchAPI("validating", "in_progress", "completed")
    job = leave_job(api, JobState.CREATED, make_shard())

    anyio.run(make_runner(api).resume, job, ignore)

    assert look_up(make_shard()) == ANSWERS


async def test_answers_of_a_growing_output_file_are_delivered_once_except_the_last(
    make_watcher, leave_job, look_up, scratch_dir, admission
):
    """Complete lines are read; the last answer is kept back, so that a caller waits for the end of the batch."""
    api = FakeBatchAPI(*["in_progress"] * 4, "completed")
    job = leave_job(api, JobState.CREATED, make_shard())
    content = b"".join(api.output_lines())
    sizes = iter([10, len(content) // 2, len(content)])

    async def download_more(file_id: str, path: Path, limit: SizeLimit) -> None:
        path.write_bytes(content[: next(sizes)])

    api.download_more = download_more
    deliveries = []
    watcher = make_watcher(api)
    batch = await watcher.watch(job, api.batch("batch_0"), deliveries.append, float("inf"), admission)

    assert batch.status == "completed"
    assert [list(outcomes.values()) for outcomes in deliveries] == [[], ANSWERS[:1], ANSWERS[1:2]]
    assert look_up(make_shard()) == [*ANSWERS[:2], None]
    assert list(scratch_dir.iterdir()) == []


async def test_tasks_that_wait_for_different_batches_share_a_poll(ledger, make_watcher, leave_job):
    class SharedAPI(FakeBatchAPI):
        polls: list[set[str]] = []  # noqa: RUF012

        async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
            self.polls.append(batch_ids)
            status = "in_progress" if len(self.polls) < 3 else "completed"
            return {batch_id: Batch(batch_id, status) for batch_id in batch_ids}

    api = SharedAPI()
    watcher = make_watcher(api)
    limit = EnqueueLimit(FAST_SETTINGS.schedule, 50_000)
    job = leave_job(api, JobState.CREATED, make_shard())

    async def watch(batch_id: str) -> None:
        with limit.admit_resumed() as admission:
            await watcher.watch(job, Batch(batch_id, "in_progress"), ignore, float("inf"), admission)

    async with anyio.create_task_group() as task_group:
        for batch_id in ("batch_1", "batch_0"):
            task_group.start_soon(watch, batch_id)
        await anyio.wait_all_tasks_blocked()
        assert watcher.batches_in_progress == ("batch_0", "batch_1")
    assert api.polls == [{"batch_0", "batch_1"}] * 3
    assert watcher.batches_in_progress == ()


async def test_the_first_status_after_the_validation_ends_the_trial(make_watcher, leave_job):
    """The accepted batch allows two more jobs: its own trial ends, and one more trial is allowed from then on."""
    limit = EnqueueLimit(FAST_SETTINGS.schedule, 50_000)
    admitted = 0

    async def enter() -> None:
        nonlocal admitted
        async with limit.admit():
            admitted += 1
            await anyio.sleep_forever()

    async with limit.admit() as admission, anyio.create_task_group() as task_group:
        assert admission
        for _ in range(20):
            task_group.start_soon(enter)
        await anyio.wait_all_tasks_blocked()
        assert admitted == 7
        api = FakeBatchAPI("validating", "in_progress", "in_progress", "completed")
        job = leave_job(api, JobState.CREATED, make_shard())
        await make_watcher(api).watch(job, api.batch("batch_0"), ignore, float("inf"), admission)
        await anyio.wait_all_tasks_blocked()
        assert admitted == 9
        task_group.cancel_scope.cancel()
