"""Adoption of batches that the ledger does not know."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from distilabel_openai_batch import RunError
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch, BatchError
from distilabel_openai_batch.api.failure_codes import MISSING_RESULT_CODE
from distilabel_openai_batch.api.files import OversizedFileError
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.size_limits import AnswerSizes, SizeLimit
from distilabel_openai_batch.engine.adoption import Adopter
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.result_collector import ResultCollector
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import JobState
from tests.unit.engine.conftest import FAST_SETTINGS
from tests.unit.engine.fake_batch_api import FakeBatchAPI, make_shard

SCOPE_KEY = ("scope", "digest")
IDS = [request.custom_id for request in make_shard().requests]
ANSWERS = [Answer.of({"question": i}) for i in range(3)]


class Recorder(Observer):
    """Observer of adopted batches."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_batch_adopted(self, batch: Batch, requests: int) -> None:
        self.events.append((batch.id, requests))

    def on_batch_not_adoptable(self, batch: Batch, reason: str) -> None:
        self.events.append((batch.id, 0))


class ListingAPI(FakeBatchAPI):
    """Batch API that lists batches, and keeps the input file that every batch has."""

    def __init__(self, *batches: Batch, unanswered: int = 0) -> None:
        super().__init__(unanswered=unanswered)
        self.listed = list(batches)
        self.has_input_file = True
        self.uploaded = [request.line() for request in make_shard().requests]

    async def list_last_month(self) -> list[Batch]:
        self.calls.append("list")
        return self.listed

    async def retrieve(self, batch_id: str) -> Batch:
        self.calls.append("retrieve")
        return next(batch for batch in self.listed if batch.id == batch_id)

    async def download(self, file_id: str, path: Path, limit: SizeLimit, *, is_new: bool = False) -> None:
        if file_id == "file-out":
            await super().download(file_id, path, limit, is_new=is_new)
        elif self.has_input_file:
            path.write_bytes(b"".join(self.uploaded))
        else:
            raise RunError("No such file.", status_code=404)


def make_batch(batch_id: str = "batch_0", status: str = "completed", completed: int = 3, **fields) -> Batch:
    """Return a batch of the scope with three requests."""
    output = "file-out" if completed else None
    metadata = {"scope": "digest", KEY_METADATA: batch_id.encode().hex().rjust(32, "0")}
    values = {"input_file_id": "file-in", "output_file_id": output, "completed": completed, "total": 3}
    return Batch(batch_id, status, **{**values, "metadata": metadata, **fields})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_adopter(ledger, scratch_dir, recorder):
    def make(api: ListingAPI, is_due: bool = True, delete_files: bool = False, **arguments) -> Adopter:
        settings = replace(FAST_SETTINGS, delete_files=delete_files)
        collector = ResultCollector(JobContext(api, ledger, settings, scratch_dir, recorder, AnswerSizes()))
        return Adopter(api, ledger, collector, SCOPE_KEY, scratch_dir, recorder, is_due, **arguments)

    return make


def test_the_answers_of_a_batch_that_ended_are_recorded(make_adopter, look_up, recorder, scratch_dir):
    assert anyio.run(make_adopter(ListingAPI(make_batch())).adopt, IDS)
    assert look_up(make_shard()) == ANSWERS
    assert recorder.events == [("batch_0", 3)]
    assert list(scratch_dir.iterdir()) == []


def test_a_batch_in_progress_becomes_a_job_that_is_waited_for(ledger, make_adopter, recorder):
    assert anyio.run(make_adopter(ListingAPI(make_batch(status="in_progress", completed=0))).adopt, IDS)
    [job] = ledger.jobs.list_open()
    assert (job.state, job.batch_id, job.requests) == (JobState.CREATED, "batch_0", 3)
    assert recorder.events == [("batch_0", 3)]


def test_batches_that_ended_come_first(ledger, make_adopter, look_up):
    """The batch in progress holds only the request that the expired batch did not answer."""
    api = ListingAPI(
        make_batch("batch_1", "in_progress", completed=0), make_batch("batch_0", "expired", 2), unanswered=1
    )
    assert anyio.run(make_adopter(api).adopt, IDS)
    assert look_up(make_shard()) == [*ANSWERS[:2], None]
    [job] = ledger.jobs.list_open()
    assert (job.batch_id, job.requests) == ("batch_1", 1)


def test_requests_without_a_result_fail(make_adopter, look_up):
    """The input file has their `custom_id`s."""
    anyio.run(make_adopter(ListingAPI(make_batch(completed=2), unanswered=1)).adopt, IDS)
    *_, missing = look_up(make_shard())
    assert isinstance(missing, Failure)
    assert missing.code == MISSING_RESULT_CODE


def test_requests_of_a_failed_batch_fail_with_its_errors(make_adopter, look_up, recorder):
    batch = make_batch(status="failed", completed=0, errors=(BatchError("Bad line."),))
    anyio.run(make_adopter(ListingAPI(batch)).adopt, IDS)
    assert {outcome.message for outcome in look_up(make_shard())} == {"Batch batch_0 failed: Bad line."}
    assert recorder.events == []


@pytest.mark.parametrize("status", ["in_progress", "expired"])
def test_a_batch_without_its_input_file(ledger, make_adopter, recorder, status):
    """A batch in progress cannot be adopted, which is reported; a batch that ended has no results to record."""
    api = ListingAPI(make_batch(status=status, completed=0))
    api.has_input_file = False
    anyio.run(make_adopter(api).adopt, IDS)
    assert recorder.events == ([("batch_0", 0)] if status == "in_progress" else [])
    assert ledger.jobs.list_open() == []


@pytest.mark.parametrize("status", ["in_progress", "completed"])
@pytest.mark.parametrize(("needed", "reported"), [([], []), (IDS[1:], [("batch_0", 2)])], ids=["none", "two"])
def test_only_the_requests_of_the_run_are_reported(make_adopter, recorder, status, needed, reported):
    """The run has another prompt, or rows of its own beside those of the batch."""
    batch = make_batch(status=status, completed=3 if status == "completed" else 0)
    anyio.run(make_adopter(ListingAPI(batch)).adopt, needed)
    assert recorder.events == reported


def test_an_oversized_file_costs_its_batch_and_is_reported_once(ledger, make_adopter, look_up, recorder):
    """The results of the other batch are adopted, and a later run finds nothing to adopt."""

    class OversizedAPI(ListingAPI):
        async def download(self, file_id: str, path: Path, limit: SizeLimit, *, is_new: bool = False) -> None:
            if file_id == "file-large":
                raise OversizedFileError("The file exceeds 1 byte.")
            await super().download(file_id, path, limit, is_new=is_new)

    api = OversizedAPI(make_batch("batch_1", output_file_id="file-large"), make_batch("batch_2"))
    for _ in range(2):
        assert anyio.run(make_adopter(api).adopt, IDS)
    assert recorder.events == [("batch_1", 0), ("batch_2", 3)]
    assert look_up(make_shard()) == ANSWERS
    [job] = [job for job in LedgerReader(ledger.path.parent).jobs() if job.batch_id == "batch_1"]
    assert (job.state, job.requests, job.error) == (
        JobState.DROPPED,
        3,
        "A file of the batch exceeds the limits on its size.",
    )


def test_the_server_is_searched_once(make_adopter):
    """Tasks that ask at the same time wait for the same search."""
    api = ListingAPI(make_batch())
    adopter, results = make_adopter(api), []

    async def adopt() -> None:
        results.append(await adopter.adopt(IDS))

    async def adopt_thrice() -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(adopt)
            task_group.start_soon(adopt)
        await adopt()

    anyio.run(adopt_thrice)
    assert results == [True, True, False]
    assert api.calls.count("list") == 1
    assert not adopter.is_due


def test_a_search_that_failed_is_repeated(make_adopter):
    api = ListingAPI(make_batch())
    adopter, list_last_month = make_adopter(api), api.list_last_month

    async def refuse() -> list[Batch]:
        raise RunError("No.", status_code=401)

    api.list_last_month = refuse
    with pytest.raises(RunError):
        anyio.run(adopter.adopt, IDS)
    assert adopter.is_due
    api.list_last_month = list_last_month
    assert anyio.run(adopter.adopt, IDS)


def test_the_server_is_not_searched_if_adoption_is_not_due(make_adopter):
    api = ListingAPI(make_batch())
    assert not anyio.run(make_adopter(api, is_due=False).adopt, IDS)
    assert api.calls == []


def test_known_batches_and_batches_of_other_scopes_are_left_alone(make_adopter, look_up, recorder):
    other = replace(make_batch("batch_1"), metadata={"scope": "another", KEY_METADATA: "f" * 32})
    api = ListingAPI(make_batch(), other, Batch("batch_2", "completed", metadata={"scope": "digest"}))
    anyio.run(make_adopter(api).adopt, IDS)
    anyio.run(make_adopter(api).adopt, IDS)
    assert recorder.events == [("batch_0", 3)]


HOSTILE_TEXTS = [
    "{precious}",
    "../precious",
    "../../precious",
    "..",
    "/",
    "",
    "key",
    "0" * 31,
    "0" * 33,
    "A" * 32,
    "0" * 32 + "\n",
    "0" * 31 + "/",
    "\u0660" * 32,
    "\x1b[2J",
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=ascii)
@pytest.mark.parametrize("status", ["completed", "in_progress"])
def test_a_batch_with_another_key_than_ours_is_not_adopted(make_adopter, recorder, scratch_dir, tmp_path, text, status):
    """A member of the project may write any metadata: no file outside of the scratch directory is touched."""
    precious = tmp_path / "precious"
    precious.write_text("my data")
    key = text.format(precious=precious)
    batch = make_batch(status=status, metadata={"scope": "digest", KEY_METADATA: key})

    anyio.run(make_adopter(ListingAPI(batch)).adopt, IDS)

    assert recorder.events == []
    assert precious.read_text() == "my data"
    assert list(scratch_dir.iterdir()) == []


@pytest.mark.parametrize("text", ["../precious", "..", "batches/1"])
@pytest.mark.parametrize("status", ["completed", "in_progress"])
def test_no_text_of_a_server_becomes_a_path(ledger, make_adopter, scratch_dir, tmp_path, monkeypatch, text, status):
    """Ids of batches and files, and keys of earlier ledgers, name no file on this machine."""
    paths: list[Path] = []
    batch = make_batch(text, status, input_file_id="file-in" + text, metadata={KEY_METADATA: text})
    api = ListingAPI(batch)
    download = api.download

    async def note_path(file_id: str, path: Path, limit: SizeLimit, **options) -> None:
        paths.append(path)
        await download(file_id, path, limit, **options)

    monkeypatch.setattr(api, "download", note_path)
    anyio.run(make_adopter(api, selected_batches=[text], lists_others=False).adopt, IDS)

    assert paths
    assert {path.parent for path in paths} == {scratch_dir}
    assert all(re.fullmatch("[0-9a-f]{32}", path.name) for path in paths)


@pytest.mark.parametrize(("lists_others", "batches"), [(True, ["batch_1", "batch_0"]), (False, ["batch_1"])])
def test_selected_batches_are_retrieved_and_the_others_listed(make_adopter, lists_others, batches):
    """A selected batch may be too old for the list, or without metadata."""
    api = ListingAPI(make_batch(), Batch("batch_1", "completed"))
    adopter = make_adopter(api, selected_batches=["batch_1"], lists_others=lists_others)
    assert [batch.id for batch in anyio.run(adopter.list_batches)] == batches
    assert ("list" in api.calls) is lists_others


def test_files_are_deleted_if_their_answers_are_complete(make_adopter, monkeypatch):
    monkeypatch.setattr("distilabel_openai_batch.engine.result_collector._MAX_DOWNLOADS", 1)
    complete, incomplete = ListingAPI(make_batch()), ListingAPI(make_batch("batch_1"), unanswered=1)
    for api in (complete, incomplete):
        anyio.run(make_adopter(api, delete_files=True).adopt, IDS)
    assert complete.calls[-2:] == ["delete file-in", "delete file-out"]
    assert not any(call.startswith("delete") for call in incomplete.calls)
