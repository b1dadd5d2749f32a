"""One job from each state that the ledger may have it in, on a server that remembers what was asked of it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from distilabel_openai_batch import BatchFailedError, LedgerError, RunError, failpoints
from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.failure_codes import MISSING
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.job_runner import Ending, Jobs
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import JobState, ScopeName

CHAT = "/v1/chat/completions"
TOO_MANY_TOKENS = BatchError("Enqueued token limit reached.", "token_limit_exceeded", None)


class Server:
    """A server of one batch: it answers what it was given, and shows the statuses that it is told to.

    Args:
        statuses: one for each look, the last one for all further ones.
        errors: what is wrong with the batch.
        unanswered: requests whose results there are none of.
    """

    def __init__(self, *statuses: str, errors: tuple[BatchError, ...] = (), unanswered: int = 0) -> None:
        self.statuses = list(statuses) or ["completed"]
        self.errors = errors
        self.unanswered = unanswered
        self.calls: list[str] = []
        self.uploaded: list[bytes] = []
        self.batches: dict[str, str] = {}

    @property
    def files(self) -> Server:
        """Return this object, which has the methods of `FilesAPI` too."""
        return self

    def batch(self, batch_id: str) -> Batch:
        """The batch as it is shown now."""
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        refused = status == "failed"
        return Batch(
            batch_id,
            status,
            endpoint=CHAT,
            input_file_id="file-in",
            output_file_id=None if refused else "file-out",
            errors=self.errors if refused else (),
        )

    async def upload(self, path: Path) -> str:
        self.calls.append("upload")
        self.uploaded = path.read_bytes().splitlines(keepends=True)
        return "file-in"

    async def create(self, input_file_id, endpoint, completion_window, key, metadata) -> Batch:
        self.calls.append("create")
        self.batches[key] = f"batch_{len(self.batches)}"
        return self.batch(self.batches[key])

    async def find(self, key, input_file_id, since) -> Batch | None:
        self.calls.append("find")
        return self.batch(self.batches[key]) if key in self.batches else None

    async def retrieve(self, batch_id: str) -> Batch:
        self.calls.append("retrieve")
        return self.batch(batch_id)

    async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
        self.calls.append("retrieve")
        return {batch_id: self.batch(batch_id) for batch_id in batch_ids}

    async def cancel(self, batch_id: str) -> None:
        self.calls.append("cancel")
        self.statuses = ["cancelling", "cancelled"]

    async def download_more(self, file_id, path):
        pass

    async def download(self, file_id: str, path: Path, *, is_new: bool) -> None:
        self.calls.append("download")
        lines = self.uploaded[: len(self.uploaded) - self.unanswered]
        path.write_bytes(b"".join(line.replace(b'"body":', b'"response":{"status_code":200,"body":', 1)[:-2] + b"}}\n"
                                  for line in lines))  # fmt: skip

    async def delete(self, file_id: str) -> None:
        self.calls.append(f"delete {file_id}")

    async def delete_by_name(self, name: str, keep: str | None = None) -> None:
        self.calls.append("delete the uploads")


def ignore(outcomes):
    """Does nothing with what is handed over."""


def shard(requests: int = 3) -> Shard:
    return Shard([Request(f"{i:032x}-0", CHAT, "gpt-4o-mini", b'{"question":%d}' % i) for i in range(requests)], 99)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger", ScopeName("pipeline", "task", "https://api.example.com/v1/"))
    yield ledger
    ledger.close()


@pytest.fixture
def make_jobs(ledger, tmp_path):
    def make(server: Server, **settings) -> Jobs:
        chosen = replace(JobSettings("24h", PollSchedule(0.001, 0.001), {}), **settings)
        return Jobs(
            server, ledger, chosen, tmp_path, Progress(logging.getLogger("jobs")), Room(chosen.schedule, 50_000)
        )

    return make


def at(ledger, server: Server, state: JobState, questions: Shard):
    """A job that was left in a state, on a server that has what it had by then."""
    job, _ = ledger.jobs.plan(questions)
    server.uploaded = [request.line() for request in questions.requests]
    if state is not JobState.PLANNED:
        job = ledger.jobs.mark_uploaded(job, "file-in")
    if state in (JobState.CREATED, JobState.ENDED):
        server.batches[job.key] = "batch_0"
        job = ledger.jobs.mark_created(job, Batch("batch_0", "validating"))
    if state is JobState.ENDED:
        job = ledger.jobs.mark_ended(job, Batch("batch_0", "completed"))
    return job


def outcomes(ledger, questions: Shard):
    """What the ledger says became of requests."""
    known = ledger.requests.look_up([request.custom_id for request in questions.requests])
    return [known[request.custom_id].outcome if request.custom_id in known else None for request in questions.requests]


ANSWERS = [Answer.of({"question": i}) for i in range(3)]
LEFT_IN = {
    "planned": (JobState.PLANNED, ["upload", "create", "retrieve", "download"]),
    "uploaded": (JobState.UPLOADED, ["create", "retrieve", "download"]),
    "created": (JobState.CREATED, ["retrieve", "retrieve", "download"]),
    "ended": (JobState.ENDED, ["retrieve", "download"]),
}


@pytest.mark.parametrize("case", LEFT_IN)
def test_a_job_is_taken_on_from_where_it_is(ledger, make_jobs, case):
    """Its own process has its requests at hand: each step that is not done is, and no other."""
    state, calls = LEFT_IN[case]
    server = Server("completed") if state is JobState.ENDED else Server("in_progress", "completed")
    job = at(ledger, server, state, shard())

    taken = {}
    ended = anyio.run(make_jobs(server).run, job, taken.update, shard())

    assert server.calls == calls
    assert ended.ending is Ending.COLLECTED
    assert list(taken.values()) == outcomes(ledger, shard()) == ANSWERS
    assert ledger.jobs.get(job.id).state is JobState.COLLECTED


@pytest.mark.parametrize("state", [JobState.PLANNED, JobState.UPLOADED])
def test_the_job_of_a_dead_process_is_looked_for(ledger, make_jobs, state):
    """The server may have made its batch, and the process have died before it knew: then it is carried on."""
    server = Server()
    job = at(ledger, server, state, shard())
    server.batches[job.key] = "batch_0"

    taken = {}
    anyio.run(make_jobs(server).run, job, taken.update)

    assert server.calls == ["find", "download"]
    assert list(taken.values()) == ANSWERS


@pytest.mark.parametrize("state", [JobState.PLANNED, JobState.UPLOADED])
def test_a_job_that_came_to_nothing_frees_its_requests(ledger, make_jobs, state):
    """And leaves no file behind."""
    server = Server()
    job = at(ledger, server, state, shard())

    assert anyio.run(make_jobs(server).run, job, ignore).ending is Ending.DROPPED

    assert server.calls == ["find", "delete the uploads"]
    assert ledger.requests.look_up([request.custom_id for request in shard().requests]) == {}
    assert len(ledger.jobs.plan(shard())[1]) == 3


def test_a_request_without_a_result_has_failed(ledger, make_jobs):
    """Not the one beside it."""
    server = Server(unanswered=1)
    job = at(ledger, server, JobState.PLANNED, shard())

    anyio.run(make_jobs(server).run, job, ignore, shard())

    *answers, missing = outcomes(ledger, shard())
    assert answers == ANSWERS[:2]
    assert isinstance(missing, Failure)
    assert missing.code == MISSING


def test_a_job_that_is_not_waited_for_is_left(ledger, make_jobs):
    """Under way it stays, and once it has ended the next run takes what it answered."""
    server = Server("in_progress")
    job = at(ledger, server, JobState.PLANNED, shard())
    jobs = make_jobs(server, wait=False)

    ended = anyio.run(jobs.run, job, ignore, shard())
    assert ended.ending is Ending.UNDER_WAY
    assert ended.job.state is JobState.CREATED

    server.statuses = ["completed"]
    assert anyio.run(jobs.run, ended.job, ignore).ending is Ending.COLLECTED


def test_a_job_that_never_ends_is_cancelled_when_its_window_is_long_over(ledger, make_jobs, monkeypatch):
    """And what it answered until then is taken."""
    server = Server("in_progress")
    job = at(ledger, server, JobState.CREATED, shard())
    long_ago = replace(job, intended_at=time.time() - 30 * 3_600)
    monkeypatch.setattr("distilabel_openai_batch.engine.job_runner._OVERDUE_SECONDS", 0.05)

    taken = {}
    anyio.run(make_jobs(server).run, long_ago, taken.update)

    assert server.calls.count("cancel") == 1
    assert list(taken.values()) == ANSWERS


def test_a_job_that_waited_for_its_creation_is_not_overdue(ledger, make_jobs):
    """Its window began when the server created its batch, however long ago it was planned."""
    server = Server("in_progress", "in_progress", "completed")
    made = server.batch
    server.batch = lambda batch_id: replace(made(batch_id), created_at=time.time())
    job = at(ledger, server, JobState.CREATED, shard())
    planned_long_ago = replace(job, intended_at=time.time() - 30 * 3_600)

    taken = {}
    anyio.run(make_jobs(server).run, planned_long_ago, taken.update)

    assert "cancel" not in server.calls
    assert list(taken.values()) == ANSWERS


def test_a_job_that_cannot_even_be_cancelled_is_collected(ledger, make_jobs, monkeypatch):
    """Waiting longer would be waiting for ever."""
    server = Server("in_progress")
    job = at(ledger, server, JobState.CREATED, shard())
    monkeypatch.setattr("distilabel_openai_batch.engine.job_runner._OVERDUE_SECONDS", 0.05)

    async def cancel(batch_id: str) -> None:
        server.calls.append("cancel")

    server.cancel = cancel
    assert anyio.run(make_jobs(server, completion_window="0h").run, job, ignore).ending is Ending.COLLECTED
    assert server.calls.count("cancel") == 1


def test_a_batch_above_the_token_limit_is_tried_again_and_then_halved(ledger, make_jobs):
    """Nothing else is in flight whose end it could wait for."""
    server = Server("failed", errors=(TOO_MANY_TOKENS,))
    job = at(ledger, server, JobState.PLANNED, shard())

    ended = anyio.run(make_jobs(server).run, job, ignore, shard())

    assert ended.ending is Ending.TOO_LARGE
    assert server.calls.count("upload") == 1
    assert server.calls.count("create") == 4
    assert len(set(server.batches)) == 4
    assert ledger.jobs.get(job.id).state is JobState.DROPPED


@pytest.mark.parametrize(
    ("errors", "requests", "said"),
    [
        ((TOO_MANY_TOKENS,), 1, "Enqueued token limit reached"),
        ((BatchError("No such model.", "model_not_found", 1),), 3, "No such model. \\(line 1 of the input file\\)"),
        (tuple(BatchError(f"Line {i} is bad.", "invalid", i) for i in range(1, 6)), 3, "and 2 more"),
        ((), 3, "the server gave no reason"),
    ],
)
def test_a_batch_that_is_refused_is_an_error_of_the_run(ledger, make_jobs, errors, requests, said):
    """In the server's own words, and its requests are free."""
    server = Server("failed", errors=errors)
    job = at(ledger, server, JobState.PLANNED, shard(requests))

    with pytest.raises(BatchFailedError, match=said):
        anyio.run(make_jobs(server).run, job, ignore, shard(requests))

    assert ledger.jobs.get(job.id).state is JobState.DROPPED
    assert ledger.requests.look_up([request.custom_id for request in shard(requests).requests]) == {}


def test_the_refused_job_of_a_dead_process_is_dropped(ledger, make_jobs):
    """Whoever asks again says what is to be in it."""
    server = Server("failed", errors=(TOO_MANY_TOKENS,))
    job = at(ledger, server, JobState.CREATED, shard())
    assert anyio.run(make_jobs(server).run, job, ignore).ending is Ending.DROPPED


def test_the_files_of_a_job_are_deleted_once_they_are_recorded(ledger, make_jobs):
    """If that is wished; the server has them for thirty days otherwise."""
    server = Server()
    job = at(ledger, server, JobState.PLANNED, shard())
    anyio.run(make_jobs(server, delete_files=True).run, job, ignore, shard())
    assert server.calls[-2:] == ["delete file-in", "delete file-out"]


def test_killed_half_way_through_the_record(ledger, make_jobs, monkeypatch):
    """More results than go into one transaction: the first are recorded, the next run records the others."""
    server, questions = Server(), shard(4_500)
    job = at(ledger, server, JobState.PLANNED, questions)

    class Killed(BaseException):
        pass

    def reached(failpoint: Failpoint) -> None:
        if failpoint is Failpoint.RECORDING:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(failpoints, "reached", reached)
        with pytest.raises(Killed):
            anyio.run(make_jobs(server).run, job, ignore, questions)

    known = outcomes(ledger, questions)
    assert [isinstance(outcome, Answer) for outcome in known] == [True] * 1_000 + [False] * 3_500
    left = ledger.jobs.get(job.id)
    assert left.state is JobState.ENDED

    anyio.run(make_jobs(server).run, left, ignore)

    assert outcomes(ledger, questions) == [Answer.of({"question": i}) for i in range(4_500)]
    assert server.calls.count("create") == 1


@pytest.mark.parametrize("state", [JobState.COLLECTED, JobState.DROPPED])
def test_a_job_at_its_end_is_not_run(ledger, make_jobs, state):
    """That would be our own mistake."""
    job, _ = ledger.jobs.plan(shard())
    with pytest.raises(ValueError, match="cannot be run"):
        anyio.run(make_jobs(Server()).run, replace(job, state=state), ignore)


def test_an_error_leaves_the_job_where_it_was(ledger, make_jobs):
    """The next run carries on from there, and no file is left on the disk."""
    server = Server()
    job = at(ledger, server, JobState.PLANNED, shard())

    async def create(*arguments) -> Batch:
        raise RunError("The key was withdrawn.", status_code=401)

    server.create = create
    with pytest.raises(RunError):
        anyio.run(make_jobs(server).run, job, ignore, shard())

    assert ledger.jobs.get(job.id).state is JobState.UPLOADED
    assert [path.name for path in ledger.path.parent.parent.iterdir()] == ["ledger"]


class Counting(Server):
    """A server of one batch that is done with one request more at each look."""

    @property
    def files(self) -> Server:
        """Return this object, which has the methods of `FilesAPI` too."""
        return self

    def batch(self, batch_id: str) -> Batch:
        batch = super().batch(batch_id)
        done = 0 if batch.status == "validating" else 1_000 - len(self.statuses)
        return replace(batch, completed=done, total=1_000, in_progress_at=5.0 if done else None)


def test_a_job_that_is_watched_leaves_its_course(ledger, make_jobs):
    """Each change of its status, and each fiftieth that it gains: not each of a day's looks."""
    server = Counting("validating", "validating", *["in_progress"] * 900, "completed")
    questions = shard(1_000)
    job = at(ledger, server, JobState.CREATED, questions)

    anyio.run(make_jobs(server).run, job, ignore, questions)

    [timeline] = LedgerReader(ledger.path.parent).timelines()
    completed = [look[1] for look in timeline.polls]
    assert timeline.in_progress_at == 5.0
    assert completed == sorted(completed)
    assert 40 <= len(completed) <= 52


def test_a_course_that_cannot_be_written_down_ends_no_run(ledger, make_jobs, monkeypatch):
    """It is only for those who want to see it."""

    def fails(job, batch):
        raise LedgerError("The ledger cannot be used: database is locked.")

    monkeypatch.setattr(ledger.jobs, "record_progress", fails)
    server = Server("validating", "in_progress", "completed")
    job = at(ledger, server, JobState.CREATED, shard())

    anyio.run(make_jobs(server).run, job, ignore, shard())

    assert outcomes(ledger, shard()) == ANSWERS
