"""Collection of results: downloads, records, deliveries, deletion of files."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from distilabel_openai_batch import RunError, failpoints
from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.failure_codes import MISSING_RESULT_CODE
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.size_limits import AnswerSizes, SizeLimit
from distilabel_openai_batch.engine import result_collector
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.result_collector import ResultCollector, _chunk_size, count_answers
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.states import JobState
from tests.unit.engine.conftest import FAST_SETTINGS
from tests.unit.engine.fake_batch_api import FakeBatchAPI, ignore, make_shard

ANSWERS = [Answer.of({"question": i}) for i in range(3)]
COMPLETED = Batch("batch_0", "completed", input_file_id="file-in", output_file_id="file-out", completed=3, total=3)


class Killed(BaseException):
    """Death of the process at a failpoint."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(result_collector._DOWNLOAD_PAUSES.__class__, "pause", lambda self, attempt: 0.0)


@pytest.fixture
def make_collector(ledger, scratch_dir):
    def make(api: FakeBatchAPI, observer: Observer | None = None, delete_files: bool = False) -> ResultCollector:
        settings = replace(FAST_SETTINGS, delete_files=delete_files)
        return ResultCollector(JobContext(api, ledger, settings, scratch_dir, observer or Observer(), AnswerSizes()))

    return make


def test_results_are_recorded_and_delivered(make_collector, leave_job, look_up, scratch_dir):
    api = FakeBatchAPI()
    job = leave_job(api, JobState.ENDED, make_shard())
    delivered = {}

    collected = anyio.run(make_collector(api).collect, job, COMPLETED, delivered.update)

    assert collected
    assert collected.state is JobState.COLLECTED
    assert list(delivered.values()) == look_up(make_shard()) == ANSWERS
    assert list(scratch_dir.iterdir()) == []


def test_the_last_outcomes_are_delivered_after_the_job_is_collected(ledger, make_collector, leave_job):
    """A caller that has all its outcomes may end the run, so the last outcomes come after the job's last record.

    The garbage collector pauses until then, since each end of a pause visits all new objects.
    """
    api = FakeBatchAPI(unanswered=1)
    job = leave_job(api, JobState.ENDED, make_shard(2_500))
    states, is_paused = [], []

    def deliver(outcomes) -> None:
        states.append((len(outcomes), ledger.jobs.get(job.id).state))
        is_paused.append(not gc.isenabled())

    batch = replace(COMPLETED, completed=2_499, total=2_500)
    anyio.run(make_collector(api).collect, job, batch, deliver)
    ended, collected = JobState.ENDED, JobState.COLLECTED
    assert states == [(0, ended), (1_000, ended), (1_000, ended), (500, collected)]
    assert is_paused == [True, True, True, False]


def test_a_job_killed_while_it_is_recorded_is_recorded_completely_by_the_next_run(
    ledger, make_runner, leave_job, look_up, monkeypatch
):
    """Results are recorded in several transactions: the first chunk is kept, and the next run records the others."""
    api, shard = FakeBatchAPI(), make_shard(4_500)
    job = leave_job(api, JobState.CREATED, shard)

    def reached(failpoint: Failpoint) -> None:
        if failpoint is Failpoint.RECORDING:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reached", reached)
        with pytest.raises(Killed):
            anyio.run(make_runner(api).resume, job, ignore)

    assert [isinstance(outcome, Answer) for outcome in look_up(shard)] == [True] * 1_000 + [False] * 3_500
    interrupted = ledger.jobs.get(job.id)
    assert interrupted.state is JobState.ENDED

    anyio.run(make_runner(api).resume, interrupted, ignore)

    assert look_up(shard) == [Answer.of({"question": i}) for i in range(4_500)]
    assert "create" not in api.calls


def test_files_with_too_few_answers_are_downloaded_three_times_and_not_deleted(make_collector, leave_job):
    """Another program may have replied in the server's place; after that the server counts differently from us."""
    api = FakeBatchAPI(unanswered=1, completed=3)
    job = leave_job(api, JobState.ENDED, make_shard())
    assert anyio.run(make_collector(api, delete_files=True).collect, job, COMPLETED, ignore)
    assert api.calls == ["download", "retrieve", "download", "retrieve", "download"]


@pytest.mark.parametrize("status_code", [404, 410])
def test_the_results_of_a_deleted_file_are_missing(make_collector, leave_job, look_up, status_code):
    """The run goes on; the observer gets the file."""

    class Recorder(Observer):
        files: list[str] = []  # noqa: RUF012

        def on_result_file_missing(self, file_id: str) -> None:
            self.files.append(file_id)

    Recorder.files.clear()
    api = FakeBatchAPI()
    job = leave_job(api, JobState.ENDED, make_shard())

    async def download(*arguments, **options) -> None:
        raise RunError("The file is gone.", status_code=status_code)

    api.download = download
    assert anyio.run(make_collector(api, Recorder()).collect, job, COMPLETED, ignore)
    assert [outcome.code for outcome in look_up(make_shard())] == [MISSING_RESULT_CODE] * 3
    assert Recorder.files == ["file-out"]


def test_a_download_with_too_few_answers_is_not_recorded(make_collector, leave_job, look_up):
    """The second download is complete."""
    api = FakeBatchAPI(unanswered=1, completed=3)
    job = leave_job(api, JobState.ENDED, make_shard())
    download = api.download

    async def download_the_rest(*arguments, **options) -> None:
        await download(*arguments, **options)
        api.unanswered = 0

    api.download = download_the_rest
    delivered = {}
    anyio.run(make_collector(api).collect, job, COMPLETED, delivered.update)
    assert api.calls == ["download", "retrieve", "download"]
    assert list(delivered.values()) == look_up(make_shard()) == ANSWERS


def test_files_are_deleted_after_their_results_are_recorded(make_collector, leave_job):
    """Without the setting the server keeps them for thirty days."""
    api = FakeBatchAPI()
    job = leave_job(api, JobState.ENDED, make_shard())
    anyio.run(make_collector(api, delete_files=True).collect, job, COMPLETED, ignore)
    assert api.calls == ["download", "delete file-in", "delete file-out"]


def test_a_missing_result_file_is_reported_and_its_requests_fail(make_collector, leave_job, look_up):
    class Recorder(Observer):
        missing: list[str] = []  # noqa: RUF012

        def on_result_file_missing(self, file_id: str) -> None:
            self.missing.append(file_id)

    async def download(file_id: str, path: Path, limit: SizeLimit, *, is_new: bool) -> None:
        raise RunError("No such file.", status_code=404)

    api = FakeBatchAPI()
    api.download = download
    job = leave_job(api, JobState.ENDED, make_shard())
    assert anyio.run(make_collector(api, Recorder()).collect, job, COMPLETED, ignore)
    assert Recorder.missing == ["file-out"]
    assert all(isinstance(outcome, Failure) for outcome in look_up(make_shard()))


def test_a_failed_batch_without_results_is_refused(make_collector, leave_job):
    api = FakeBatchAPI()
    job = leave_job(api, JobState.ENDED, make_shard())
    batch = Batch("batch_0", "failed", errors=(BatchError("Bad."),))
    assert anyio.run(make_collector(api).collect, job, batch, ignore) is None


def test_a_failed_batch_with_answers_is_collected(make_collector, leave_job, look_up):
    """A server may fail half-way; its answers are billed."""
    api = FakeBatchAPI(unanswered=1, completed=3)
    job = leave_job(api, JobState.ENDED, make_shard())
    batch = replace(COMPLETED, status="failed", completed=2, errors=(BatchError("Oops."),))
    assert anyio.run(make_collector(api).collect, job, batch, ignore)
    assert look_up(make_shard())[:2] == ANSWERS[:2]


def test_results_of_an_unknown_batch_are_returned_without_a_record(make_collector, leave_job):
    """Lines whose `custom_id` another program made are left out."""
    api = FakeBatchAPI()
    api.uploaded = [request.line() for request in make_shard().requests]
    api.uploaded.append(api.uploaded[0].replace(b"0" * 32 + b"-0", b"task-1"))

    results = anyio.run(make_collector(api).download_unknown, COMPLETED)

    custom_ids = [request.custom_id for request in make_shard().requests]
    assert results == list(zip(custom_ids, ANSWERS, strict=True))
    assert count_answers([*results, results[0], ("a", Failure("Bad."))]) == 3


@pytest.mark.parametrize(
    ("line_bytes", "requests", "size"), [(600, 5_000, 1_000), (2**20, 10, 64), (2**27, 3, 1), (0, 0, 1_000)]
)
def test_few_large_outcomes_are_recorded_at_once(tmp_path, line_bytes, requests, size):
    """The outcomes of two transactions are in memory."""
    path = tmp_path / "output"
    with path.open("wb") as file:
        file.truncate(line_bytes * requests)

    assert _chunk_size([path], requests) == size
