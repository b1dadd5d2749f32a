"""Faults of the server, through the public classes and a real socket.

After each fault every row has its own answer or `None`, the sandbox's books and the ledger agree, and no request was
billed twice, except requests whose result the server lost.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
from pathlib import Path

import pytest
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.models.llms import OpenAILLM

from distilabel_openai_batch import (
    AuthenticationError,
    BatchFailedError,
    LedgerError,
    OpenAIBatchLLM,
    QuotaError,
    RunError,
    StorageFullError,
    failpoints,
)
from distilabel_openai_batch.engine import job_runner, job_watcher
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure, ResultFault
from tests.support.environment import API_KEY, load_as_new_process
from tests.support.ledgers import list_requests

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
CALLS = ["files.create", "batches.create", "batches.retrieve", "files.content"]
pytestmark = pytest.mark.usefixtures("quick_retries", "small_packs")


@pytest.fixture(autouse=True)
def check_books_and_ledger(request, sandbox):
    """Assert after each test that the ledger has an answer to each billed request, and no open job."""
    yield
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    if not request.node.get_closest_marker("stops"):
        assert list_requests(directory, "answered") == set(sandbox.books().billed)
        assert not [job for job in LedgerReader(directory).jobs() if job.is_open]


def generate(questions=QUESTIONS, **fields):
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    llm.load()
    return llm.generate(questions)


def generate_in_next_run(questions=QUESTIONS, **fields):
    """Return the outputs of an LLM in a later process."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions)


def sync_answers(questions=QUESTIONS):
    """Return the outputs of the synchronous endpoint for the same questions."""
    llm = OpenAILLM(model="gpt-4o-mini")
    llm.load()
    return llm.generate(questions)


def assert_billed_once(sandbox):
    assert set(sandbox.books().billed.values()) <= {1}


def test_a_run_that_does_not_wait_raises_the_refusal_of_its_batch(sandbox):
    """Otherwise each run would submit the next batch, without a word; the run after the error submits again."""
    refusal = {"code": "model_not_found", "message": "The deployment is no batch deployment."}
    sandbox.add_fault(BatchFault(kind="fail", value=refusal))
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
        generate(wait=False)
    with pytest.raises(BatchFailedError, match="The deployment is no batch deployment"):
        generate_in_next_run(wait=False)
    assert len(sandbox.books().batches) == 1
    assert all(generate_in_next_run())
    assert_billed_once(sandbox)


TRANSIENT_CALL_FAULTS = {
    "answers 500": {"kind": "status", "status": 500},
    "answers 502 with an HTML page": {"kind": "status", "status": 502, "body": "<html>Bad gateway</html>"},
    "answers 408": {"kind": "status", "status": 408},
    "answers 429 with Retry-After": {"kind": "status", "status": 429, "headers": {"Retry-After": "0.05"}},
    "is cut before its effect": {"kind": "cut_before"},
    "is cut after its effect": {"kind": "cut_after"},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", TRANSIENT_CALL_FAULTS)
def test_a_call_that_fails_for_a_while_is_repeated(sandbox, call, fault):
    """The fault lasts longer than the SDK's own retries; every row is answered and billed once."""
    sandbox.add_fault(Fault(call=call, times=9, **TRANSIENT_CALL_FAULTS[fault]))

    assert generate(max_retries=20) == sync_answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_a_new_batch_that_the_server_does_not_know_for_a_while_is_polled_again(sandbox):
    """Replicas of a server learn of the batch one after the other."""
    sandbox.configure(in_progress_seconds=0.1)
    sandbox.add_fault(Fault(call="batches.retrieve", kind="status", status=404, times=2))
    sandbox.add_fault(Fault(call="batches.retrieve", kind="status", status=404, times=2, skip=3))

    assert generate() == sync_answers()
    assert len(sandbox.books().batches) == 1


def test_a_download_that_breaks_off_is_resumed(sandbox):
    """The file is complete after any number of interruptions."""
    sandbox.add_fault(Fault(call="files.content", kind="truncate", times=4))

    assert generate() == sync_answers()
    assert_billed_once(sandbox)


BAD_REPLIES = {
    "a 404": {"status": 404},
    "a page of a gateway": {"status": 200, "body": "<html>Please log in.</html>"},
}


@pytest.mark.parametrize("case", BAD_REPLIES)
@pytest.mark.parametrize("delete_files", [False, True])
def test_a_bad_reply_to_a_download_is_not_taken_for_the_file(sandbox, case, delete_files):
    """The file is downloaded again before the server's copy is deleted, and no request is submitted again."""
    sandbox.add_fault(Fault(call="files.content", kind="status", **BAD_REPLIES[case]))

    assert generate(delete_files=delete_files) == sync_answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)
    assert bool(sandbox.books().files) is not delete_files


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_bad_reply_to_the_download_of_a_half_failed_batch_is_not_taken_for_the_file(sandbox, case):
    """Without its answers such a batch looks like a refused batch."""
    sandbox.add_fault(BatchFault(kind="fail", value={"code": "server_error", "message": "Oops", "done": 5}))
    sandbox.add_fault(Fault(call="files.content", kind="status", **BAD_REPLIES[case]))

    assert generate() == sync_answers()
    assert_billed_once(sandbox)


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_bad_reply_to_a_download_does_not_lose_the_answers_of_an_adopted_batch(sandbox, case, tmp_path):
    """The second run has another ledger, so only the server has the answers."""
    generate(ledger_dir=str(tmp_path))
    sandbox.add_fault(Fault(call="files.content", kind="status", **BAD_REPLIES[case]))

    assert generate_in_next_run(delete_files=True) == sync_answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_files_with_fewer_answers_than_the_server_counts_are_not_deleted(sandbox):
    """The files are downloaded three times; then the requests without a result are submitted again."""
    sandbox.add_fault(ResultFault(kind="lose", times=2))

    assert generate(delete_files=True) == sync_answers()
    first, second = sandbox.books().batches
    kept = {file["id"] for file in sandbox.books().files}
    assert first["output_file_id"] in kept
    assert second["output_file_id"] not in kept
    assert sum(call.name == "files.content" for call in sandbox.calls()) == 4


RESULT_FAULTS = {
    "lost": [ResultFault(kind="lose", times=2)],
    "doubled": [ResultFault(kind="double", times=-1)],
    "cut in the middle": [ResultFault(kind="malform", times=2)],
    "beside unknown lines": [ResultFault(kind="unknown", times=-1)],
    "between blank lines": [ResultFault(kind="blank", times=-1)],
    "with a body of text": [ResultFault(kind="string_body", times=-1)],
    "without a response": [ResultFault(kind="null_response", times=2)],
    "without a body": [ResultFault(kind="null_body", times=2)],
    "with status 0": [ResultFault(kind="status_zero", times=2)],
    "with a server's error": [ResultFault(kind="server_error", times=2)],
    "in the other file": [ResultFault(kind="to_error_file", times=3)],
}


@pytest.mark.parametrize("case", RESULT_FAULTS)
def test_unusual_result_lines_cost_no_row(sandbox, case):
    """Requests without a result are submitted again, and each row has its own answer."""
    for fault in RESULT_FAULTS[case]:
        sandbox.add_fault(fault)

    assert generate() == sync_answers()


BATCH_FAULTS = {
    "an unknown status": [BatchFault(kind="status", value="SCHEDULING", looks=2)],
    "a status in capitals": [BatchFault(kind="upper_case")],
    "no counts": [BatchFault(kind="null_counts")],
    "empty file ids": [BatchFault(kind="empty_file_ids")],
    "empty files": [BatchFault(kind="empty_files")],
    "only the fields that every server has": [BatchFault(kind="bare")],
    "expired half-way": [BatchFault(kind="expire")],
    "cancelled half-way": [BatchFault(kind="cancel")],
    "completed without files": [BatchFault(kind="no_files")],
    "completed with files that are gone": [BatchFault(kind="lost_files")],
    "cancelling, without end": [BatchFault(kind="status", value="cancelling", looks=5)],
    "failed half-way, with results": [
        BatchFault(kind="fail", value={"code": "server_error", "message": "Oops", "done": 5})
    ],
}


@pytest.mark.parametrize("case", BATCH_FAULTS)
def test_unusual_batches_cost_no_row(sandbox, case):
    """The answers of a batch are used, and only the other requests are submitted again."""
    for fault in BATCH_FAULTS[case]:
        sandbox.add_fault(fault)

    assert generate() == sync_answers()
    if "files that are gone" not in case and "without files" not in case:
        assert_billed_once(sandbox)


def test_rows_are_none_if_all_requests_fail_in_different_ways(sandbox):
    """The batch has no output file."""
    sandbox.configure(
        failures=[
            RequestFailure(contains="number 1", message="One"),
            RequestFailure(contains="", message="Another", status=422),
        ]
    )

    assert {output["generations"][0] for output in generate()} == {None}
    assert sandbox.books().batches[0]["output_file_id"] is None


def test_a_batch_over_the_token_limit_is_created_again_when_another_has_ended(sandbox):
    sandbox.configure(enqueued_token_limit=60, in_progress_seconds=0.3)

    assert generate(max_requests_per_job=5) == sync_answers()
    assert_billed_once(sandbox)


def test_a_shard_over_the_token_limit_is_halved_until_it_fits(sandbox):
    """No other job is in progress."""
    sandbox.configure(enqueued_token_limit=40)

    assert generate() == sync_answers()
    assert_billed_once(sandbox)


def test_a_token_limit_is_filled_with_smaller_jobs(sandbox):
    """A large job would leave a part of the quota empty, so later shards are cut smaller before they are submitted."""
    questions = [[{"role": "user", "content": f"Say number {i}."}] for i in range(120)]
    sandbox.configure(enqueued_token_limit=500, in_progress_seconds=0.2)

    outputs = generate(questions, max_requests_per_job=30)

    assert None not in [output["generations"][0] for output in outputs]
    assert_billed_once(sandbox)
    completed = [batch for batch in sandbox.books().batches if batch["status"] == "completed"]
    assert {batch["request_counts"]["total"] for batch in completed} - {30}


@pytest.mark.stops
def test_a_single_request_over_the_token_limit_is_an_error(sandbox):
    """The error states the limit."""
    sandbox.configure(enqueued_token_limit=1)

    with pytest.raises(BatchFailedError, match="Limit: 1 enqueued tokens"):
        generate(QUESTIONS[:2])


def test_an_upload_that_is_not_visible_yet_is_waited_for(sandbox):
    """For a moment after the upload the server says that there is no such file."""
    sandbox.configure(upload_visible_after_seconds=0.3)

    assert generate() == sync_answers()
    assert_billed_once(sandbox)


FILE_MISSING = {
    "code": "invalid_request",
    "message": "Cannot find file file-0, or organization org-0 does not have access to it.",
    "param": "file_id",
}


def test_a_batch_whose_input_file_is_said_to_be_missing_is_created_again(sandbox, monkeypatch):
    """The file exists; the server says otherwise after minutes of validation."""
    monkeypatch.setattr(job_runner, "FILE_VISIBLE_SECONDS", 0.0)
    sandbox.add_fault(BatchFault(kind="fail", value=FILE_MISSING, times=5))

    assert generate() == sync_answers()
    assert [batch["status"] for batch in sandbox.books().batches] == ["failed"] * 5 + ["completed"]
    assert len(sandbox.books().files) == 2
    assert_billed_once(sandbox)


def test_an_input_file_that_is_gone_is_uploaded_again(sandbox, monkeypatch):
    monkeypatch.setattr(job_runner, "FILE_VISIBLE_SECONDS", 0.0)
    sandbox.add_fault(BatchFault(kind="fail", value=FILE_MISSING, times=2))
    sandbox.add_fault(Fault(call="files.retrieve", kind="status", status=404, times=2))

    assert generate() == sync_answers()
    inputs = [batch["input_file_id"] for batch in sandbox.books().batches]
    assert len(inputs) == len(set(inputs)) == 3
    assert_billed_once(sandbox)


SERVER_FAILURES = {
    "with server_error": [BatchFault(kind="fail", value={"code": "server_error", "message": "Try again."})],
    "with internal_error": [BatchFault(kind="fail", value={"code": "internal_error", "message": "Try again."})],
    "without a reason": [BatchFault(kind="fail"), BatchFault(kind="no_errors")],
}


@pytest.mark.parametrize("case", SERVER_FAILURES)
def test_a_batch_that_failed_once_is_created_again_while_others_are_in_flight(sandbox, case, caplog):
    for fault in SERVER_FAILURES[case]:
        sandbox.add_fault(fault)

    assert generate(max_requests_per_job=4) == sync_answers()
    assert sorted(batch["status"] for batch in sandbox.books().batches) == ["completed"] * 3 + ["failed"]
    assert "Another batch is created from its input file" in caplog.text
    assert_billed_once(sandbox)


@pytest.mark.stops
def test_a_batch_that_fails_again_and_again_is_an_error(sandbox):
    sandbox.add_fault(BatchFault(kind="fail", value={"code": "server_error", "message": "Try again."}, times=-1))

    with pytest.raises(BatchFailedError, match="server_error: Try again"):
        generate()
    assert len(sandbox.books().batches) == 4


@pytest.mark.stops
def test_a_batch_that_the_server_does_not_know_is_an_error_that_names_the_batch(sandbox):
    """The error asks whether the key belongs to another project."""
    sandbox.add_fault(Fault(call="batches.retrieve", kind="status", status=404, times=-1))

    with pytest.raises(RunError, match=r"does not know batch batch_.*key belong to another project"):
        generate()


@pytest.mark.stops
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_at_any_call_is_raised_at_once(sandbox, call, status):
    """The error has the server's message, without the key; the next run continues."""
    body = {"error": {"message": f"Not with {API_KEY}.", "code": "refused"}}
    sandbox.add_fault(Fault(call=call, kind="status", status=status, body=body))

    with pytest.raises(RunError, match="Not with") as raised:
        generate()

    assert raised.value.status_code == status
    assert API_KEY not in str(raised.value)

    sandbox.clear_faults()
    assert generate_in_next_run() == sync_answers()
    assert_billed_once(sandbox)


def test_a_lost_reply_to_the_creation_is_logged(sandbox, caplog):
    """The batch is found, and no second one is created."""
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))

    with caplog.at_level(logging.WARNING):
        assert generate() == sync_answers()

    assert len(sandbox.books().batches) == 1
    assert "creation was lost; found batch" in caplog.text


def test_a_batch_that_never_ends_is_cancelled_and_its_answers_are_used(sandbox, monkeypatch):
    """A batch is cancelled an hour after its window closed; the other requests are submitted again."""
    monkeypatch.setattr(job_watcher, "_OVERDUE_SECONDS", 0.2)
    sandbox.configure(window_seconds=1.0)
    sandbox.add_fault(BatchFault(kind="never_finish"))
    sandbox.add_fault(Fault(call="batches.cancel", kind="status", status=500))

    assert generate() == sync_answers()
    assert [batch["status"] for batch in sandbox.books().batches] == ["cancelled", "completed"]
    assert_billed_once(sandbox)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_an_exhausted_quota_ends_the_run(sandbox, code):
    """The next run continues with the answers so far."""
    sandbox.configure(failures=[RequestFailure(contains="number 7", status=429, code=code, message="Pay first.")])
    with pytest.raises(QuotaError, match="Pay first"):
        generate()

    sandbox.configure(failures=[])
    assert generate_in_next_run() == sync_answers()
    assert_billed_once(sandbox)


def test_a_full_disk_during_a_download_ends_the_run(sandbox, monkeypatch):
    """The error has the reason, and the next run downloads the file again."""

    def reached(failpoint):
        if failpoint is Failpoint.DOWNLOADING:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reached", reached)
        with pytest.raises(RunError, match="No space left on device"):
            generate()

    assert generate_in_next_run() == sync_answers()
    assert len(sandbox.books().batches) == 1


async def test_a_cancelled_caller_does_not_cancel_the_others(sandbox):
    """The next caller with the same question gets the answer that was billed."""
    sandbox.configure(in_progress_seconds=0.5)
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02)
    llm.load()
    callers = [asyncio.ensure_future(llm.agenerate(question)) for question in QUESTIONS]
    while not sandbox.books().batches:
        await asyncio.sleep(0.02)
    callers[3].cancel()
    outputs = await asyncio.gather(*callers, return_exceptions=True)
    again = await llm.agenerate(QUESTIONS[3])

    expected = await asyncio.to_thread(sync_answers)
    assert isinstance(outputs[3], asyncio.CancelledError)
    assert [*outputs[:3], again, *outputs[4:]] == expected
    assert len(sandbox.books().batches) == 1


def test_the_same_question_twice_is_two_requests_and_a_later_run_reuses_both(sandbox):
    twice = [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]]
    generate(twice)
    generate_in_next_run(twice)
    assert sorted(sandbox.books().billed.values()) == [1, 1, 1]

    generate(twice)
    assert len(sandbox.books().billed) == 3


def test_two_calls_of_an_llm_are_two_samples_and_another_llm_reuses_both(sandbox):
    """An LLM object outside a pipeline is one run."""
    for _ in range(3):
        llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02)
        llm.load()
        llm.generate(QUESTIONS)
        llm.generate(QUESTIONS)
    assert len(sandbox.books().billed) == 2 * len(QUESTIONS)


def test_operational_fields_do_not_change_the_requests(sandbox):
    """Poll intervals, limits, time-outs and retries are no part of a request, so answers are reused."""
    generate()
    changed = {"max_poll_interval": 3.0, "max_requests_per_job": 5, "max_jobs": 1, "max_attempts": 1, "timeout": 7}
    assert generate_in_next_run(max_retries=1, max_bytes_per_job=10_000, **changed) == sync_answers()
    assert len(sandbox.books().batches) == 1


def test_without_reuse_delivered_answers_are_not_reused(sandbox):
    """Answers that were billed and not delivered are used all the same."""
    generate(reuse_answers=False)
    generate_in_next_run(reuse_answers=False)
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [12, 12]

    sandbox.add_fault(Fault(call="files.content", kind="status", status=401))
    with pytest.raises(RunError):
        generate_in_next_run(reuse_answers=False)
    generate_in_next_run(reuse_answers=False)
    assert len(sandbox.books().batches) == 3
    assert_billed_once(sandbox)


async def test_an_interrupted_run_without_reuse_is_continued(sandbox):
    """At the interruption one of two jobs was answered: the next run delivers its answers, and waits for the other."""
    sandbox.add_fault(BatchFault(kind="status", value="in_progress", looks=20))
    llm = load_as_new_process(
        OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, max_requests_per_job=6, reuse_answers=False)
    )
    everything = asyncio.gather(*[llm.agenerate(question) for question in QUESTIONS])
    while not count_answered():
        await asyncio.sleep(0.02)
    everything.cancel()
    with pytest.raises(asyncio.CancelledError):
        await everything

    assert await asyncio.to_thread(generate_in_next_run, reuse_answers=False) == await asyncio.to_thread(sync_answers)
    assert len(sandbox.books().batches) == 2
    assert_billed_once(sandbox)


def count_answered() -> int:
    """Return the number of requests that have an answer in the ledger."""
    return len(list_requests(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]), "answered"))


@pytest.mark.parametrize("limit", [{"max_files": 3}, {"max_storage_bytes": 1_500}])
def test_an_upload_waits_until_jobs_free_the_file_storage(sandbox, caplog, limit):
    """Six jobs share the storage for two or three input files; each job that ends frees its files."""
    sandbox.configure(in_progress_seconds=0.2, **limit)
    assert generate(max_requests_per_job=2, delete_files=True) == sync_answers()
    assert len(sandbox.books().batches) == 6
    assert sandbox.books().files == []
    assert_billed_once(sandbox)
    assert caplog.text.count("Uploads wait until jobs end and their files are deleted") == 1


@pytest.mark.stops
def test_a_full_file_storage_ends_the_run_if_no_job_frees_files(sandbox):
    """The next run collects the jobs in progress, and submits the other requests."""
    sandbox.configure(in_progress_seconds=600.0, max_files=3)
    with pytest.raises(StorageFullError, match=r"quotaExceeded.*wait until files expire.*`delete_files=True`"):
        generate(max_requests_per_job=2)
    assert len(sandbox.books().batches) <= 3

    sandbox.configure(in_progress_seconds=0.0, max_files=None)
    assert generate_in_next_run(max_requests_per_job=2) == sync_answers()
    assert_billed_once(sandbox)


def test_files_are_deleted_with_delete_files(sandbox):
    """The ledger has their content."""
    generate(delete_files=True)
    assert sandbox.books().files == []
    assert generate_in_next_run() == sync_answers()


@pytest.mark.stops
@pytest.mark.parametrize("fields", [{"wait": False}, {"use_offline_batch_generation": True}])
def test_a_run_that_does_not_wait_raises_an_error_with_the_batches_in_progress(sandbox, fields):
    """The error is distilabel's own; a later run collects the results."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException) as raised:
        generate(max_requests_per_job=5, **fields)
    assert set(raised.value.jobs_ids) == {batch["id"] for batch in sandbox.books().batches}
    assert len(raised.value.jobs_ids) == 3

    sandbox.configure(in_progress_seconds=0.0)
    assert generate_in_next_run(**fields) == sync_answers()
    assert_billed_once(sandbox)


def test_the_poll_interval_of_distilabel_is_kept(sandbox):
    """`offline_batch_generation_block_until_done` is the number of seconds between two polls."""
    sandbox.configure(in_progress_seconds=1.5)
    llm = OpenAIBatchLLM(
        model="gpt-4o-mini", use_offline_batch_generation=True, offline_batch_generation_block_until_done=1
    )
    llm.load()
    assert llm.generate_outputs(QUESTIONS) == sync_answers()
    assert sum(call.name == "batches.retrieve" for call in sandbox.calls()) == 2


def test_a_server_that_does_not_list_batches_causes_a_warning(sandbox, caplog):
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=404, times=-1))
    with caplog.at_level(logging.WARNING):
        assert generate() == sync_answers()
    assert "does not list its batches" in caplog.text


def list_jobs() -> list[tuple[str, str | None]]:
    """Return the state and the error of each job in the ledger."""
    with sqlite3.connect(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3") as database:
        return database.execute("SELECT state, error FROM jobs ORDER BY id").fetchall()


@pytest.mark.parametrize("call", ["files.create", "batches.create"])
def test_a_refused_job_is_dropped(sandbox, call):
    """The ledger has the reason, and no file stays on the server; the next run submits the requests."""
    sandbox.add_fault(Fault(call=call, kind="status", status=403, times=1))
    with pytest.raises(RunError) as caught:
        generate()
    assert list_jobs() == [("dropped", str(caught.value))]
    assert not sandbox.books().files

    assert generate_in_next_run() == sync_answers()
    assert [state for state, _ in list_jobs()] == ["dropped", "collected"]
    assert_billed_once(sandbox)


def test_a_job_whose_batch_may_exist_stays_open(sandbox):
    """The next run finds the batch, and submits nothing."""
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after", times=1))
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=401, times=1))
    with pytest.raises(RunError):
        generate(reuse_answers=False)
    assert list_jobs() == [("uploaded", None)]

    assert generate_in_next_run() == sync_answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_a_job_of_a_server_that_was_never_reached_is_dropped(sandbox):
    """A mistyped address leaves no open job."""
    with pytest.raises(RunError, match="Is the address right"):
        generate(base_url="http://127.0.0.1:9/v1", reuse_answers=False, max_retries=1)
    assert [state for state, _ in list_jobs()] == ["dropped"]


def test_a_damaged_ledger_ends_the_run(sandbox):
    """The file is not changed, and nothing is submitted."""
    path = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3"
    generate(QUESTIONS[:1])
    content = path.read_bytes()
    path.write_bytes(b"not a ledger" * 1_000)
    with pytest.raises(LedgerError):
        generate_in_next_run()
    assert path.read_bytes() == b"not a ledger" * 1_000
    assert len(sandbox.books().batches) == 1
    path.write_bytes(content)


@pytest.mark.stops
def test_a_password_in_the_address_is_in_no_file_and_no_request(sandbox):
    """A proxy would need the password, and the sandbox rejects it; the requests are the same with any password."""
    sandbox.configure(api_keys=[API_KEY])
    with pytest.raises(AuthenticationError):
        generate(base_url=sandbox.base_url.replace("http://", "http://me:s3cret@"), reuse_answers=False)

    ledger = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3"
    assert not any(b"s3cret" in path.read_bytes() for path in ledger.parent.glob("ledger*"))
    with sqlite3.connect(ledger) as database:
        scopes = database.execute("SELECT base_url FROM scopes").fetchall()
    custom_ids = list_requests(ledger.parent)
    assert scopes == [(f"{sandbox.base_url}/",)]
    generate()
    assert custom_ids == set(sandbox.books().billed)
