"""Rows and jobs of submissions: in the ledger, on the server, or missing."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import pytest

from distilabel_openai_batch import RunError
from distilabel_openai_batch.api.batches import ROWS_METADATA, RUN_METADATA, Batch
from distilabel_openai_batch.api.size_limits import SizeLimit
from distilabel_openai_batch.engine.submission import Submission
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from tests.unit.engine.fake_batch_api import make_shard

URL = "https://api.example.com/v1/"
LINES = [b'{"instruction":"a"}', b'{"instruction":"b"}']


class FakeServer:
    """Server of files and batches; it is the adopter too."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = list(batches)
        self.contents: dict[str, bytes] = {}
        self.refuses_uploads = False

    @property
    def files(self) -> FakeServer:
        """Return this object, which has the methods of `FilesAPI` too."""
        return self

    async def upload(self, path: Path, name: str) -> str:
        if self.refuses_uploads:
            raise RunError("No space.")
        file_id = f"file-{len(self.contents)}"
        self.contents[file_id] = path.read_bytes()
        return file_id

    async def download(self, file_id: str, path: Path, limit: SizeLimit) -> None:
        path.write_bytes(self.contents[file_id])

    async def list_batches(self) -> list[Batch]:
        return self.batches

    async def list_last_month(self) -> list[Batch]:
        return self.batches

    async def retrieve(self, batch_id: str) -> Batch:
        return next(batch for batch in self.batches if batch.id == batch_id)


@pytest.fixture
def open_ledger(tmp_path):
    """Return a function that opens the ledger of a machine for a submission."""
    ledgers = []

    def open_for(name: str = "weekly", machine: str = "here", base_url: str = URL) -> Ledger:
        ledgers.append(Ledger(tmp_path / machine, ScopeName(name, "", base_url)))
        return ledgers[-1]

    yield open_for
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def make_submission(open_ledger, scratch_dir):
    def make(
        server: FakeServer, name: str = "weekly", ledger: Ledger | None = None, metadata: dict[str, str] | None = None
    ) -> Submission:
        return Submission(
            server,  # type: ignore[arg-type]
            ledger or open_ledger(name),
            server,  # type: ignore[arg-type]
            scratch_dir,
            {} if metadata is None else metadata,
            logging.getLogger("submission"),
            name,
        )

    return make


def make_batch(batch_id: str, file_id: str = "file-0", created_at: float = 0.0, name: str = "weekly") -> Batch:
    metadata = {ROWS_METADATA: file_id, RUN_METADATA: name}
    return Batch(batch_id, "in_progress", metadata=metadata, created_at=created_at)


def test_rows_are_kept_in_the_ledger_and_on_the_server(make_submission, scratch_dir):
    """Each batch of the session names the file of the rows."""
    server, metadata = FakeServer(), {}
    submission = make_submission(server, metadata=metadata)

    anyio.run(submission.keep_rows, LINES)

    assert anyio.run(submission.rows) == LINES
    assert server.contents == {"file-0": b"".join(line + b"\n" for line in LINES)}
    assert metadata == {ROWS_METADATA: "file-0"}
    assert list(scratch_dir.iterdir()) == []


def test_the_same_rows_are_uploaded_once(make_submission):
    server, metadata = FakeServer(), {}
    anyio.run(make_submission(server).keep_rows, LINES)
    anyio.run(make_submission(server, metadata=metadata).keep_rows, LINES)
    assert list(server.contents) == ["file-0"]
    assert metadata == {ROWS_METADATA: "file-0"}


@pytest.mark.parametrize(("replace", "rows"), [(True, LINES[:1]), (False, LINES)])
def test_other_rows_replace_the_rows_if_the_caller_says_so(make_submission, replace, rows):
    server = FakeServer()
    anyio.run(make_submission(server).keep_rows, LINES)
    submission = make_submission(server)
    anyio.run(submission.keep_rows, LINES[:1], replace)
    assert anyio.run(submission.rows) == rows


def test_rows_that_cannot_be_uploaded_are_kept_in_the_ledger(make_submission, caplog):
    """A warning says so, and the next run tries the upload again."""
    server, metadata = FakeServer(), {}
    server.refuses_uploads = True
    submission = make_submission(server, metadata=metadata)
    with caplog.at_level(logging.WARNING):
        anyio.run(submission.keep_rows, LINES)
    assert "The rows could not be uploaded: No space." in caplog.text
    assert anyio.run(submission.rows) == LINES
    assert metadata == {}

    server.refuses_uploads = False
    anyio.run(submission.keep_rows, LINES)
    assert metadata == {ROWS_METADATA: "file-0"}


@pytest.mark.parametrize("replace", [True, False])
def test_another_machine_gets_the_rows_from_the_server(make_submission, open_ledger, replace):
    """The newest batch names them; the ledger has them from then on."""
    server = FakeServer(make_batch("batch_1", created_at=2.0), make_batch("batch_0", "file-old", created_at=1.0))
    anyio.run(make_submission(server).keep_rows, LINES)
    ledger = open_ledger(machine="there")

    assert anyio.run(make_submission(server, ledger=ledger).rows) == LINES

    assert ledger.submissions.load_rows() == (LINES, "file-0")


def test_rows_of_another_machine_are_not_replaced_unless_the_caller_says_so(make_submission, open_ledger):
    server = FakeServer(make_batch("batch_0"))
    anyio.run(make_submission(server).keep_rows, LINES)
    submission = make_submission(server, ledger=open_ledger(machine="there"))
    anyio.run(submission.keep_rows, LINES[:1], False)
    assert anyio.run(submission.rows) == LINES


def test_an_unknown_name_is_an_error_with_similar_names(make_submission, open_ledger):
    """The names are those of the ledger and of the batches on the server."""
    server = FakeServer(make_batch("batch_0", name="weekday"))
    open_ledger("weekly").submissions.keep_rows(LINES, None)
    server.list_batches = FakeServer().list_batches
    with pytest.raises(RunError, match="The rows of the run 'weakly' are neither in the ledger nor on") as caught:
        anyio.run(make_submission(server, "weakly").rows)
    assert str(caught.value).endswith("Nearest names of other runs: 'weekly', 'weekday'.")


def test_a_name_of_another_server_is_an_error_with_its_address(make_submission, open_ledger):
    open_ledger(base_url="https://other.example.com/v1/").submissions.keep_rows(LINES, None)
    with pytest.raises(RunError, match=r"was submitted to https://other.example.com/v1/\. Is `base_url` set to this"):
        anyio.run(make_submission(FakeServer()).rows)


def test_without_any_run_the_error_asks_for_the_key(make_submission):
    with pytest.raises(RunError, match="Does the API key belong to the project that submitted the run"):
        anyio.run(make_submission(FakeServer()).rows)


def test_jobs_are_listed(make_submission, open_ledger):
    ledger = open_ledger()
    job, _ = ledger.jobs.plan(make_shard())
    ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-in"), Batch("batch_0", "validating"))
    [listed] = anyio.run(make_submission(FakeServer(), ledger=ledger).jobs)
    assert (listed.batch_id, listed.requests, listed.status) == ("batch_0", 3, "validating")


def test_a_batch_has_the_name_of_its_run(make_submission, open_ledger):
    """The ledger knows the batches of this machine, and the metadata of a batch name the run of any other."""
    ledger = open_ledger("weekly")
    job, _ = ledger.jobs.plan(make_shard())
    ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-in"), Batch("batch_0", "validating"))
    server = FakeServer(make_batch("batch_1", name="daily"), Batch("batch_2", "completed"))
    submission = make_submission(server, "")
    assert anyio.run(submission.name_of, "batch_0") == "weekly"
    assert anyio.run(submission.name_of, "batch_1") == "daily"
    with pytest.raises(RunError, match="Neither the ledger nor batch batch_2 has the name of a run"):
        anyio.run(submission.name_of, "batch_2")
