"""Runs of one job from each state that the ledger may have it in."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio
import pytest

from distilabel_openai_batch import BatchFailedError, RunError, StorageFullError
from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.failure_codes import MISSING_RESULT_CODE
from distilabel_openai_batch.api.files import InputFileGoneError
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine import job_runner
from distilabel_openai_batch.engine.enqueue_limit import EnqueueLimit
from distilabel_openai_batch.engine.job_runner import JobEnd, JobEnding, JobRunner, ShardEnd
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.engine.stop_gate import StopGate
from distilabel_openai_batch.ledger.states import Job, JobState
from tests.unit.engine.fake_batch_api import FakeBatchAPI, ignore, make_shard

FILE_MISSING = BatchError("Cannot find file file-in.", "invalid_request", param="file_id")
SERVER_ERROR = BatchError("The server had an error.", "server_error")
OVER_LIMIT = BatchError("Enqueued token limit reached.", "token_limit_exceeded", None)
ANSWERS = [Answer.of({"question": i}) for i in range(3)]


@pytest.fixture(autouse=True)
def quick_recreations(monkeypatch):
    """Shorten the pauses before a batch is created again."""
    monkeypatch.setattr(job_runner, "_RECREATION_PAUSES", Patience(0.001, 0.002))
    monkeypatch.setattr(job_runner, "_FILE_REFUSAL_PAUSES", Patience(0.001, 0.002))


def run(runner: JobRunner, job: Job, deliver, shard: Shard | None = None, deadline: float = float("inf")) -> JobEnd:
    """Run a job to its end."""

    async def run_admitted() -> JobEnd:
        with EnqueueLimit(PollSchedule(0.001, 0.001), 50_000).admit_resumed() as admission:
            return await runner.run(job, deliver, admission, shard, deadline)

    return anyio.run(run_admitted)


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        (JobState.PLANNED, ["upload", "create", "retrieve", "download"]),
        (JobState.UPLOADED, ["create", "retrieve", "download"]),
        (JobState.CREATED, ["retrieve", "retrieve", "download"]),
        (JobState.ENDED, ["retrieve", "download"]),
    ],
)
def test_a_job_continues_from_its_state(ledger, make_runner, leave_job, look_up, state, calls):
    """The session has the requests: the runner takes each missing step, and no other."""
    api = FakeBatchAPI("completed") if state is JobState.ENDED else FakeBatchAPI("in_progress", "completed")
    job = leave_job(api, state, make_shard())

    delivered = {}
    end = run(make_runner(api), job, delivered.update, make_shard())

    assert api.calls == calls
    assert end.ending is JobEnding.COLLECTED
    assert list(delivered.values()) == look_up(make_shard()) == ANSWERS
    assert ledger.jobs.get(job.id).state is JobState.COLLECTED


@pytest.mark.parametrize(
    ("stops_at", "calls"), [("start", []), ("upload", ["upload"]), ("create", ["upload", "create"])]
)
def test_no_upload_and_no_creation_begins_after_a_stop(ledger, make_runner, leave_job, stops_at, calls):
    """The run stops during a call: the call that follows does not begin, although its task still runs."""
    api = FakeBatchAPI("in_progress")
    job = leave_job(api, JobState.PLANNED, make_shard())
    gate = StopGate(lambda: stops_at == "start" or stops_at in api.calls)

    async def run_until_blocked() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_admitted)
            while len(api.calls) < len(calls):
                await anyio.lowlevel.checkpoint()
            for _ in range(20):
                await anyio.wait_all_tasks_blocked()
            assert [call for call in api.calls if call in ("upload", "create")] == calls
            tasks.cancel_scope.cancel()

    async def run_admitted() -> None:
        with EnqueueLimit(PollSchedule(0.001, 0.001), 50_000).admit_resumed() as admission:
            await make_runner(api, gate=gate).run(job, ignore, admission, make_shard())

    anyio.run(run_until_blocked)


@pytest.mark.parametrize("state", [JobState.PLANNED, JobState.UPLOADED])
def test_the_batch_of_a_dead_process_is_found_and_collected(make_runner, leave_job, state):
    """A process may die after the server created the batch, and before the ledger recorded it."""
    api = FakeBatchAPI()
    job = leave_job(api, state, make_shard())
    api.batches[job.key] = "batch_0"

    delivered = {}
    anyio.run(make_runner(api).resume, job, delivered.update)

    assert api.calls == ["find", "download"]
    assert list(delivered.values()) == ANSWERS


@pytest.mark.parametrize("state", [JobState.PLANNED, JobState.UPLOADED])
def test_a_job_of_a_dead_process_without_a_batch_is_dropped(ledger, make_runner, leave_job, state):
    """Further jobs may hold its requests, and its input file is deleted from the server."""
    api = FakeBatchAPI()
    job = leave_job(api, state, make_shard())

    assert anyio.run(make_runner(api).resume, job, ignore).ending is JobEnding.DROPPED

    assert api.calls == ["find", "delete the uploads"]
    assert ledger.requests.look_up([request.custom_id for request in make_shard().requests]) == {}
    assert len(ledger.jobs.plan(make_shard())[1]) == 3


def test_a_synchronous_job_of_a_dead_process_is_dropped(ledger, make_runner):
    job, _ = ledger.jobs.plan(make_shard(), JobState.SYNCHRONOUS)
    api = FakeBatchAPI()
    assert anyio.run(make_runner(api).resume, job, ignore).ending is JobEnding.DROPPED
    assert api.calls == []
    assert ledger.jobs.get(job.id).state is JobState.DROPPED


def test_a_request_without_a_result_fails(make_runner, leave_job, look_up):
    """The other requests keep their own answers."""
    api = FakeBatchAPI(unanswered=1)
    job = leave_job(api, JobState.PLANNED, make_shard())

    run(make_runner(api), job, ignore, make_shard())

    *answers, missing = look_up(make_shard())
    assert answers == ANSWERS[:2]
    assert isinstance(missing, Failure)
    assert missing.code == MISSING_RESULT_CODE


def test_a_run_that_does_not_wait_leaves_the_batch_in_progress(make_runner, leave_job):
    """A later run collects the answers once the batch has ended."""
    api = FakeBatchAPI("in_progress")
    job = leave_job(api, JobState.PLANNED, make_shard())
    runner = make_runner(api, wait=False)

    end = run(runner, job, ignore, make_shard())
    assert end.ending is JobEnding.IN_PROGRESS
    assert end.job.state is JobState.CREATED

    api.statuses = ["completed"]
    assert anyio.run(runner.resume, end.job, ignore).ending is JobEnding.COLLECTED


def test_a_batch_over_the_token_limit_is_created_again_three_times_and_is_then_too_large(
    ledger, make_runner, leave_job
):
    """No other job is in progress whose end would free capacity."""
    api = FakeBatchAPI("failed", errors=(OVER_LIMIT,))
    job = leave_job(api, JobState.PLANNED, make_shard())

    end = run(make_runner(api), job, ignore, make_shard())

    assert end.ending is JobEnding.TOO_LARGE
    assert api.calls.count("upload") == 1
    assert api.calls.count("create") == 4
    assert len(set(api.batches)) == 4
    assert ledger.jobs.get(job.id).state is JobState.DROPPED


def test_a_creation_that_the_server_refuses_at_the_token_limit_is_repeated(ledger, make_runner, leave_job):
    """Some servers refuse the creation instead of letting the batch fail."""
    api = FakeBatchAPI()
    created = api.create
    refusals = [RunError("Too many tokens.", status_code=429, code="token_limit_exceeded")] * 2

    async def create(*arguments) -> Batch:
        if refusals:
            raise refusals.pop()
        return await created(*arguments)

    api.create = create
    job = leave_job(api, JobState.PLANNED, make_shard())
    assert run(make_runner(api), job, ignore, make_shard()).ending is JobEnding.COLLECTED
    assert refusals == []


def test_a_deadline_ends_the_wait_for_capacity(ledger, make_runner, leave_job):
    """The job is dropped, so that its requests can be submitted synchronously."""
    api = FakeBatchAPI("failed", errors=(OVER_LIMIT,))
    job = leave_job(api, JobState.PLANNED, make_shard())
    assert run(make_runner(api), job, ignore, make_shard(), deadline=0.0).ending is JobEnding.OVERDUE
    assert ledger.jobs.get(job.id).state is JobState.DROPPED


@pytest.mark.parametrize(
    ("errors", "requests", "message"),
    [
        ((OVER_LIMIT,), 1, "Enqueued token limit reached"),
        ((BatchError("No such model.", "model_not_found", 1),), 3, "No such model. \\(line 1 of the input file\\)"),
        (tuple(BatchError(f"Line {i} is bad.", "invalid", i) for i in range(1, 6)), 3, "and 2 more"),
        ((), 3, "the server gave no reason"),
    ],
)
def test_a_refused_batch_raises_the_server_errors_and_drops_the_job(
    ledger, make_runner, leave_job, errors, requests, message
):
    api = FakeBatchAPI("failed", errors=errors)
    job = leave_job(api, JobState.PLANNED, make_shard(requests))

    with pytest.raises(BatchFailedError, match=message):
        run(make_runner(api), job, ignore, make_shard(requests))

    assert ledger.jobs.get(job.id).state is JobState.DROPPED
    assert ledger.requests.look_up([request.custom_id for request in make_shard(requests).requests]) == {}


@pytest.mark.parametrize(
    ("error", "is_azure", "is_advised"),
    [
        (BatchError("No.", "model_not_found"), True, True),
        (BatchError("The deployment does not exist.", "invalid_request"), True, True),
        (BatchError("No.", "model_not_found"), False, False),
        (BatchError("Two models.", "model_mismatch"), True, False),
        (BatchError("No.", "url_mismatch"), True, False),
    ],
)
def test_azures_refusal_of_a_model_is_advised_to_name_a_batch_deployment(
    make_runner, leave_job, error, is_azure, is_advised
):
    api = FakeBatchAPI("failed", errors=(error,))
    api.is_azure = is_azure
    job = leave_job(api, JobState.PLANNED, make_shard(1))

    with pytest.raises(BatchFailedError) as caught:
        run(make_runner(api), job, ignore, make_shard(1))

    assert ("a deployment of the type Global Batch" in str(caught.value)) is is_advised


def test_a_batch_whose_input_file_is_not_visible_yet_is_created_again(make_runner, leave_job):
    """Right after an upload a server may say that there is no such file."""
    api = FakeBatchAPI("failed", "completed", errors=(BatchError("Cannot find file file-in."),))
    job = leave_job(api, JobState.PLANNED, make_shard())
    assert run(make_runner(api), job, ignore, make_shard()).ending is JobEnding.COLLECTED
    assert api.calls.count("upload") == 1
    assert api.calls.count("create") == 2


def test_a_batch_whose_input_file_exists_is_created_again_a_bounded_number_of_times(
    ledger, make_runner, leave_job, monkeypatch
):
    """The server may validate for minutes before it says that there is no such file."""
    monkeypatch.setattr(job_runner, "FILE_VISIBLE_SECONDS", 0.0)
    api = FakeBatchAPI("failed", errors=(FILE_MISSING,))
    job = leave_job(api, JobState.PLANNED, make_shard())

    with pytest.raises(BatchFailedError, match="Cannot find file"):
        run(make_runner(api), job, ignore, make_shard())

    assert api.calls.count("upload") == 1
    assert api.calls.count("create") == 13
    assert api.calls.count("look for the file") == 13
    assert ledger.jobs.get(job.id).state is JobState.DROPPED


def test_a_job_whose_input_file_is_gone_is_dropped_for_another_upload(ledger, make_runner, monkeypatch):
    """The last upload of a shard ends in the server's error."""
    monkeypatch.setattr(job_runner, "FILE_VISIBLE_SECONDS", 0.0)
    api = FakeBatchAPI("failed", errors=(FILE_MISSING,))
    api.has_files = False

    end = anyio.run(make_runner(api).submit, make_shard(), ignore)
    assert (end.ending, end.shard) == (JobEnding.FILE_GONE, make_shard())
    assert ledger.jobs.get(1).state is JobState.DROPPED
    assert api.calls.count("create") == 1

    with pytest.raises(BatchFailedError, match="Cannot find file"):
        anyio.run(make_runner(api).submit, make_shard(), ignore, float("inf"), 0)
    assert ledger.jobs.get(2).state is JobState.DROPPED


@pytest.mark.parametrize("uploads_left", [0, 1])
def test_a_creation_whose_input_file_is_gone_drops_the_job(ledger, make_runner, uploads_left):
    api = FakeBatchAPI()

    async def create(*arguments) -> Batch:
        error = InputFileGoneError("No such File object: file-in", status_code=400)
        error.did_nothing = True
        raise error

    api.create = create
    submit = partial(make_runner(api).submit, make_shard(), ignore, uploads_left=uploads_left)
    if uploads_left:
        assert anyio.run(submit).ending is JobEnding.FILE_GONE
    else:
        with pytest.raises(InputFileGoneError):
            anyio.run(submit)
    assert ledger.jobs.get(1).state is JobState.DROPPED


@pytest.mark.parametrize("errors", [(), (SERVER_ERROR,)])
def test_a_batch_that_failed_without_a_fault_of_its_file_is_created_again(make_runner, leave_job, errors):
    """Each of the three retries has its own key; the observer gets each reason."""

    class Recorder(Observer):
        batches: list[str] = []  # noqa: RUF012

        def on_batch_retried(self, batch: Batch, pause: float) -> None:
            self.batches.append(batch.id)

    Recorder.batches.clear()
    api = FakeBatchAPI("failed", "failed", "failed", "completed", errors=errors)
    job = leave_job(api, JobState.PLANNED, make_shard())
    delivered = {}
    end = run(make_runner(api, Recorder()), job, delivered.update, make_shard())
    assert end.ending is JobEnding.COLLECTED
    assert list(delivered.values()) == ANSWERS
    assert api.calls.count("upload") == 1
    assert api.calls.count("create") == len(api.batches) == 4
    assert Recorder.batches == ["batch_0", "batch_1", "batch_2"]


@pytest.mark.parametrize(
    ("errors", "creations"),
    [((SERVER_ERROR,), 4), ((), 4), ((SERVER_ERROR, BatchError("Bad line.", "invalid_json_line", 1)), 1)],
)
def test_a_batch_that_fails_again_and_again_ends_the_run(make_runner, leave_job, errors, creations):
    """A fault of the file ends the run at once."""
    api = FakeBatchAPI("failed", errors=errors)
    job = leave_job(api, JobState.PLANNED, make_shard())
    with pytest.raises(BatchFailedError):
        run(make_runner(api), job, ignore, make_shard())
    assert api.calls.count("create") == creations


@pytest.mark.parametrize("delete_files", [False, True])
@pytest.mark.parametrize("has_requests", [False, True])
def test_the_input_file_of_a_dropped_batch_is_deleted_with_delete_files(
    make_runner, leave_job, delete_files, has_requests
):
    """No further batch is created from the file."""
    api = FakeBatchAPI("failed", errors=(SERVER_ERROR,))
    job = leave_job(api, JobState.CREATED, make_shard())
    shard = make_shard() if has_requests else None
    end = run(make_runner(api, delete_files=delete_files), job, ignore, shard, deadline=0.0)
    assert end.ending is (JobEnding.OVERDUE if has_requests else JobEnding.DROPPED)
    assert ("delete file-in" in api.calls) is delete_files


class FullAPI(FakeBatchAPI):
    """Batch API whose file storage is full for the first uploads."""

    refusals = 1

    async def upload(self, path, name):
        if self.refusals:
            self.refusals -= 1
            self.calls.append("refuse")
            error = StorageFullError("The storage is full.", status_code=400)
            error.did_nothing = True
            raise error
        return await super().upload(path, name)


def test_a_refused_upload_is_repeated_when_another_job_ends(make_runner, leave_job, scratch_dir):
    """No input file lies on the local disk meanwhile."""
    api = FullAPI()
    first, second = Shard(make_shard(4).requests[:3], 99), Shard(make_shard(4).requests[3:], 99)
    job = leave_job(api, JobState.UPLOADED, first)
    runner = make_runner(api, delete_files=True)
    ends: list[object] = []

    async def run_both() -> None:
        with EnqueueLimit(PollSchedule(0.001, 0.001), 50_000).admit_resumed() as admission:
            async with anyio.create_task_group() as task_group:
                runner._storage.hold(-1)
                task_group.start_soon(submit)
                while "refuse" not in api.calls:
                    await anyio.sleep(0.001)
                await anyio.wait_all_tasks_blocked()
                assert list(scratch_dir.iterdir()) == []
                ends.append(await runner.run(job, ignore, admission, first))
                runner._storage.release(-1)

    async def submit() -> None:
        ends.append(await runner.submit(second, ignore))

    anyio.run(run_both)
    assert [end.ending for end in ends] == [JobEnding.COLLECTED, JobEnding.COLLECTED]


def test_a_full_storage_without_jobs_drops_the_job(ledger, make_runner):
    """Further runs may submit its requests."""
    with pytest.raises(StorageFullError):
        anyio.run(make_runner(FullAPI(), delete_files=True).submit, make_shard(), ignore)
    assert ledger.jobs.get(1).state is JobState.DROPPED


def test_the_deadline_ends_the_wait_for_file_storage(ledger, make_runner):
    runner = make_runner(FullAPI(), delete_files=True)
    runner._storage.hold(-1)

    async def run_planned() -> JobEnd:
        job, _ = ledger.jobs.plan(make_shard())
        with EnqueueLimit(PollSchedule(0.001, 0.001), 50_000).admit_resumed() as admission:
            return await runner.run(job, ignore, admission, make_shard(), deadline=0.0)

    assert anyio.run(run_planned).ending is JobEnding.OVERDUE
    assert ledger.jobs.get(1).state is JobState.DROPPED


def test_the_deadline_ends_the_pause_after_a_failed_batch(make_runner, leave_job):
    api = FakeBatchAPI("failed", errors=(SERVER_ERROR,))
    job = leave_job(api, JobState.PLANNED, make_shard())
    assert run(make_runner(api), job, ignore, make_shard(), deadline=0.0).ending is JobEnding.OVERDUE


def test_the_refused_job_of_a_dead_process_is_dropped(make_runner, leave_job):
    """The run that takes the job over lacks its requests, and submits them again in a job of its own."""
    api = FakeBatchAPI("failed", errors=(OVER_LIMIT,))
    job = leave_job(api, JobState.CREATED, make_shard())
    assert anyio.run(make_runner(api).resume, job, ignore).ending is JobEnding.DROPPED


@pytest.mark.parametrize("state", [JobState.COLLECTED, JobState.DROPPED])
def test_a_job_in_a_final_state_cannot_be_run(ledger, make_runner, state):
    job, _ = ledger.jobs.plan(make_shard())
    with pytest.raises(ValueError, match="cannot be run"):
        anyio.run(make_runner(FakeBatchAPI()).resume, replace(job, state=state), ignore)


def test_an_error_leaves_the_job_in_its_state_and_no_file_on_the_disk(ledger, make_runner, leave_job, scratch_dir):
    """The next run continues from the state: a 401 may arrive after the server created the batch."""
    api = FakeBatchAPI()
    job = leave_job(api, JobState.PLANNED, make_shard())

    async def create(*arguments) -> Batch:
        raise RunError("The key was withdrawn.", status_code=401)

    api.create = create
    with pytest.raises(RunError):
        run(make_runner(api), job, ignore, make_shard())

    assert ledger.jobs.get(job.id).state is JobState.UPLOADED
    assert list(scratch_dir.iterdir()) == []


def test_a_submitted_shard_is_planned_and_collected(make_runner, look_up):
    api, delivered = FakeBatchAPI("validating", "completed"), {}
    end = anyio.run(make_runner(api).submit, make_shard(), delivered.update)
    assert (end.ending, end.shard.requests, end.others, end.batch_id) == (JobEnding.COLLECTED, [], None, None)
    assert list(delivered.values()) == look_up(make_shard()) == ANSWERS


def test_a_submitted_shard_that_is_not_waited_for_returns_its_batch(make_runner):
    runner = make_runner(FakeBatchAPI("validating"), wait=False)
    end = anyio.run(runner.submit, make_shard(), ignore)
    assert (end.ending, end.batch_id) == (JobEnding.IN_PROGRESS, "batch_0")


def test_requests_in_a_job_of_another_process_are_not_submitted(ledger, make_runner):
    """The submission returns these requests; a shard of nothing else leaves a dropped job, and no call."""
    api, shard = FakeBatchAPI(), make_shard()
    first, *_ = shard.requests
    ledger.jobs.plan(Shard.of([first]))

    end = anyio.run(make_runner(api).submit, shard, ignore)
    assert len(api.uploaded) == 2
    assert end.others
    assert end.others.requests == [first]

    api.calls.clear()
    end = anyio.run(make_runner(api).submit, Shard.of([first]), ignore)
    assert end.ending is JobEnding.DROPPED
    assert end.others
    assert end.others.requests == [first]
    assert api.calls == []


def test_a_shard_whose_deadline_has_passed_is_not_submitted(ledger, make_runner):
    api = FakeBatchAPI()
    end = anyio.run(make_runner(api).submit, make_shard(), ignore, 0.0)
    assert end.ending is JobEnding.OVERDUE
    assert api.calls == []
    assert ledger.jobs.list_open() == []


def test_a_shard_above_the_learned_size_is_split_before_it_is_planned(make_runner):
    api = FakeBatchAPI("failed", errors=(OVER_LIMIT,))
    runner = make_runner(api)

    async def submit_twice() -> ShardEnd:
        assert (await runner.submit(make_shard(8), ignore)).ending is JobEnding.TOO_LARGE
        api.calls.clear()
        return await runner.submit(make_shard(8), ignore)

    end = anyio.run(submit_twice)
    assert end.ending is JobEnding.TOO_LARGE
    assert api.calls == []
    assert [len(part.requests) for part in runner.split(end.shard)] == [4, 4]
