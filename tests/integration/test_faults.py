"""Each way in which the server can fail, through the public face and a real socket.

After each, every row has its own answer or `None`, the server's books and the ledger agree, and no request was billed
twice, but for those whose result the server lost.
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
    failpoints,
)
from distilabel_openai_batch.engine import job_watcher
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure, ResultFault
from tests.support.environment import API_KEY, load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
CALLS = ["files.create", "batches.create", "batches.retrieve", "files.content"]
pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture(autouse=True)
def books_and_ledger_agree(request, sandbox):
    """What was billed is answered in the ledger, and the other way round, and its jobs are at their end."""
    yield
    ledger = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3"
    with sqlite3.connect(ledger) as database:
        answered = {row[0] for row in database.execute("SELECT custom_id FROM requests WHERE state = 'answered'")}
        open_jobs = database.execute("SELECT count(*) FROM jobs WHERE state IN ('created', 'ended')").fetchone()[0]
    if not request.node.get_closest_marker("stops"):
        assert answered == set(sandbox.books().billed)
        assert not open_jobs


def ask(questions=QUESTIONS, **fields):
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    llm.load()
    return llm.generate(questions)


def ask_as_the_next_run(questions=QUESTIONS, **fields):
    """What a later process would be given."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions)


def answers(questions=QUESTIONS):
    """What the synchronous endpoint says to the same questions."""
    llm = OpenAILLM(model="gpt-4o-mini")
    llm.load()
    return llm.generate(questions)


def assert_billed_once(sandbox):
    assert set(sandbox.books().billed.values()) <= {1}


PASSING_CALL_FAULTS = {
    "answers 500": {"kind": "status", "status": 500},
    "answers 502 with an HTML page": {"kind": "status", "status": 502, "body": "<html>Bad gateway</html>"},
    "answers 408": {"kind": "status", "status": 408},
    "answers 429 with Retry-After": {"kind": "status", "status": 429, "headers": {"Retry-After": "0.05"}},
    "is cut before its effect": {"kind": "cut_before"},
    "is cut after its effect": {"kind": "cut_after"},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", PASSING_CALL_FAULTS)
def test_a_call_that_fails_for_a_while_is_waited_out(sandbox, call, fault):
    """For longer than the SDK's own retries; every row is answered, and bought once."""
    sandbox.add_fault(Fault(call=call, times=9, **PASSING_CALL_FAULTS[fault]))

    assert ask(max_retries=20) == answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_a_download_that_breaks_off_is_carried_on(sandbox):
    """However often, and the file is what the server has."""
    sandbox.add_fault(Fault(call="files.content", kind="truncate", times=4))

    assert ask() == answers()
    assert_billed_once(sandbox)


BAD_REPLIES = {
    "a 404": {"status": 404},
    "a page of a gateway": {"status": 200, "body": "<html>Please log in.</html>"},
}


@pytest.mark.parametrize("case", BAD_REPLIES)
@pytest.mark.parametrize("delete_files", [False, True])
def test_a_bad_reply_to_a_download_is_not_the_file(sandbox, case, delete_files):
    """It is downloaded again, and not bought again; and is not removed before."""
    sandbox.add_fault(Fault(call="files.content", kind="status", **BAD_REPLIES[case]))

    assert ask(delete_files=delete_files) == answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)
    assert bool(sandbox.books().files) is not delete_files


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_bad_reply_to_the_download_of_a_batch_that_failed_half_way_is_not_the_file(sandbox, case):
    """Without its answers it looks like one that was refused."""
    sandbox.add_fault(BatchFault(kind="fail", value={"code": "server_error", "message": "Oops", "done": 5}))
    sandbox.add_fault(Fault(call="files.content", kind="status", **BAD_REPLIES[case]))

    assert ask() == answers()
    assert_billed_once(sandbox)


@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_bad_reply_to_a_download_does_not_cost_what_only_the_server_knows_of(sandbox, case, tmp_path):
    """Where the ledger is lost."""
    ask(ledger_dir=str(tmp_path))
    sandbox.add_fault(Fault(call="files.content", kind="status", **BAD_REPLIES[case]))

    assert ask_as_the_next_run(delete_files=True) == answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_files_with_fewer_answers_than_the_server_counts_are_not_deleted(sandbox):
    """They are downloaded three times, and what is missing is asked again; the server counts wrongly, or lost it."""
    sandbox.add_fault(ResultFault(kind="lose", times=2))

    assert ask(delete_files=True) == answers()
    first, second = sandbox.books().batches
    left = {file["id"] for file in sandbox.books().files}
    assert first["output_file_id"] in left
    assert second["output_file_id"] not in left
    assert sum(call.name == "files.content" for call in sandbox.calls()) == 4


RESULT_FAULTS = {
    "lost": [ResultFault(kind="lose", times=2)],
    "doubled": [ResultFault(kind="double", times=-1)],
    "cut in the middle": [ResultFault(kind="malform", times=2)],
    "beside unknown ones": [ResultFault(kind="unknown", times=-1)],
    "between blank ones": [ResultFault(kind="blank", times=-1)],
    "with a body of text": [ResultFault(kind="string_body", times=-1)],
    "without a response": [ResultFault(kind="null_response", times=2)],
    "without a body": [ResultFault(kind="null_body", times=2)],
    "with status 0": [ResultFault(kind="status_zero", times=2)],
    "with a server's error": [ResultFault(kind="server_error", times=2)],
    "in the other file": [ResultFault(kind="to_error_file", times=3)],
}


@pytest.mark.parametrize("case", RESULT_FAULTS)
def test_odd_result_lines_cost_no_row(sandbox, case):
    """What is lost is asked again; nothing stands in another's place."""
    for fault in RESULT_FAULTS[case]:
        sandbox.add_fault(fault)

    assert ask() == answers()


BATCH_FAULTS = {
    "a status nobody knows": [BatchFault(kind="status", value="SCHEDULING", looks=2)],
    "a status in capitals": [BatchFault(kind="upper_case")],
    "no counts": [BatchFault(kind="null_counts")],
    "empty file ids": [BatchFault(kind="empty_file_ids")],
    "empty files": [BatchFault(kind="empty_files")],
    "only what every server shows": [BatchFault(kind="bare")],
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
def test_odd_batches_cost_no_row(sandbox, case):
    """What they did answer is used, and only the rest is asked again."""
    for fault in BATCH_FAULTS[case]:
        sandbox.add_fault(fault)

    assert ask() == answers()
    if "files that are gone" not in case and "without files" not in case:
        assert_billed_once(sandbox)


def test_a_job_whose_requests_all_fail_has_no_output_file(sandbox):
    """And each row is `None`, where they fail in different ways."""
    sandbox.configure(
        failures=[
            RequestFailure(contains="number 1", message="One"),
            RequestFailure(contains="", message="Another", status=422),
        ]
    )

    assert {output["generations"][0] for output in ask()} == {None}
    assert sandbox.books().batches[0]["output_file_id"] is None


def test_a_token_limit_is_waited_for(sandbox):
    """A job that does not fit beside the running ones is submitted again when one has ended."""
    sandbox.configure(enqueued_token_limit=60, in_progress_seconds=0.3)

    assert ask(max_requests_per_job=5) == answers()
    assert_billed_once(sandbox)


def test_a_shard_above_the_token_limit_is_halved(sandbox):
    """Until it fits, also when it stands alone."""
    sandbox.configure(enqueued_token_limit=40)

    assert ask() == answers()
    assert_billed_once(sandbox)


def test_a_token_limit_is_filled_with_smaller_jobs(sandbox):
    """What a whole job leaves of it would stay empty; what is not submitted yet is cut smaller before it is."""
    questions = [[{"role": "user", "content": f"Say number {i}."}] for i in range(120)]
    sandbox.configure(enqueued_token_limit=500, in_progress_seconds=0.2)

    outputs = ask(questions, max_requests_per_job=30)

    assert None not in [output["generations"][0] for output in outputs]
    assert_billed_once(sandbox)
    taken = [batch for batch in sandbox.books().batches if batch["status"] == "completed"]
    assert {batch["request_counts"]["total"] for batch in taken} - {30}


@pytest.mark.stops
def test_a_request_above_the_token_limit_is_an_error(sandbox):
    """It says how many tokens are allowed."""
    sandbox.configure(enqueued_token_limit=1)

    with pytest.raises(BatchFailedError, match="Limit: 1 enqueued tokens"):
        ask(QUESTIONS[:2])


def test_an_upload_that_is_not_visible_yet_is_waited_for(sandbox):
    """The server says that there is no such file, for moments."""
    sandbox.configure(upload_visible_after_seconds=0.3)

    assert ask() == answers()
    assert_billed_once(sandbox)


@pytest.mark.stops
def test_a_batch_that_the_server_forgets_is_an_error_that_names_it(sandbox):
    """Another key, or another project?"""
    sandbox.add_fault(Fault(call="batches.retrieve", kind="status", status=404, times=-1))

    with pytest.raises(RunError, match=r"does not know batch batch_.*key belong to another project"):
        ask()


@pytest.mark.stops
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_at_any_call_is_raised(sandbox, call, status):
    """At once, with the server's words, and without the key."""
    body = {"error": {"message": f"Not with {API_KEY}.", "code": "refused"}}
    sandbox.add_fault(Fault(call=call, kind="status", status=status, body=body))

    with pytest.raises(RunError, match="Not with") as raised:
        ask()

    assert raised.value.status_code == status
    assert API_KEY not in str(raised.value)

    sandbox.clear_faults()
    assert ask_as_the_next_run() == answers()
    assert_billed_once(sandbox)


def test_a_lost_reply_to_the_creation_is_told(sandbox, caplog):
    """A lost reply to the creation is told, and costs nothing."""
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))

    with caplog.at_level(logging.WARNING):
        assert ask() == answers()

    assert len(sandbox.books().batches) == 1
    assert "creation was lost; found batch" in caplog.text


def test_a_job_that_never_ends_is_cancelled_and_what_it_answered_is_used(sandbox, monkeypatch):
    """An hour past its window; the rest is asked again."""
    monkeypatch.setattr(job_watcher, "_OVERDUE_SECONDS", 0.2)
    sandbox.configure(window_seconds=0.3)
    sandbox.add_fault(BatchFault(kind="never_finish"))
    sandbox.add_fault(Fault(call="batches.cancel", kind="status", status=500))

    assert ask() == answers()
    assert [batch["status"] for batch in sandbox.books().batches] == ["cancelled", "completed"]
    assert_billed_once(sandbox)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_a_request_that_the_account_cannot_pay_ends_the_run(sandbox, code):
    """And the next one carries on with what was answered."""
    sandbox.configure(failures=[RequestFailure(contains="number 7", status=429, code=code, message="Pay first.")])
    with pytest.raises(QuotaError, match="Pay first"):
        ask()

    sandbox.configure(failures=[])
    assert ask_as_the_next_run() == answers()
    assert_billed_once(sandbox)


def test_the_disk_is_full_while_downloading(sandbox, monkeypatch):
    """The run ends with the reason, and the next one downloads again what was paid for."""

    def reached(failpoint):
        if failpoint is Failpoint.DOWNLOADING:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reached", reached)
        with pytest.raises(RunError, match="No space left on device"):
            ask()

    assert ask_as_the_next_run() == answers()
    assert len(sandbox.books().batches) == 1


async def test_a_caller_who_gives_up_does_not_take_the_others_along(sandbox):
    """They get their answers, and whoever asks the question next is given the one that was paid for."""
    sandbox.configure(in_progress_seconds=0.5)
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02)
    llm.load()
    callers = [asyncio.ensure_future(llm.agenerate(question)) for question in QUESTIONS]
    while not sandbox.books().batches:
        await asyncio.sleep(0.02)
    callers[3].cancel()
    outputs = await asyncio.gather(*callers, return_exceptions=True)
    again = await llm.agenerate(QUESTIONS[3])

    right = await asyncio.to_thread(answers)
    assert isinstance(outputs[3], asyncio.CancelledError)
    assert [*outputs[:3], again, *outputs[4:]] == right
    assert len(sandbox.books().batches) == 1


def test_the_same_question_twice_is_two_requests_and_a_later_run_takes_both(sandbox):
    """One answer each."""
    twice = [QUESTIONS[0], QUESTIONS[0], QUESTIONS[1]]
    ask(twice)
    ask_as_the_next_run(twice)
    assert sorted(sandbox.books().billed.values()) == [1, 1, 1]

    ask(twice)
    assert len(sandbox.books().billed) == 6


def test_operational_fields_never_cause_a_purchase(sandbox):
    """Polling, limits, time-outs and patience are no part of the question."""
    ask()
    changed = {"max_poll_interval": 3.0, "max_requests_per_job": 5, "max_jobs": 1, "max_attempts": 1, "timeout": 7}
    assert ask_as_the_next_run(max_retries=1, max_bytes_per_job=10_000, **changed) == answers()
    assert len(sandbox.books().batches) == 1


def test_answers_are_not_reused_where_that_is_not_wanted(sandbox):
    """Except for what was paid for and never handed over."""
    ask(reuse_answers=False)
    ask_as_the_next_run(reuse_answers=False)
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [12, 12]

    sandbox.add_fault(Fault(call="files.content", kind="status", status=401))
    with pytest.raises(RunError):
        ask_as_the_next_run(reuse_answers=False)
    ask_as_the_next_run(reuse_answers=False)
    assert len(sandbox.books().batches) == 3
    assert_billed_once(sandbox)


async def test_what_was_interrupted_is_not_asked_anew(sandbox):
    """Of two jobs one was answered when all was cancelled: the next run is given that, and waits for the other."""
    sandbox.add_fault(BatchFault(kind="status", value="in_progress", looks=20))
    llm = load_as_new_process(
        OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, max_requests_per_job=6, reuse_answers=False)
    )
    everything = asyncio.gather(*[llm.agenerate(question) for question in QUESTIONS])
    while not answered_in_the_ledger():
        await asyncio.sleep(0.02)
    everything.cancel()
    with pytest.raises(asyncio.CancelledError):
        await everything

    assert await asyncio.to_thread(ask_as_the_next_run, reuse_answers=False) == await asyncio.to_thread(answers)
    assert len(sandbox.books().batches) == 2
    assert_billed_once(sandbox)


def answered_in_the_ledger() -> int:
    with sqlite3.connect(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3") as database:
        if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return 0
        return database.execute("SELECT count(*) FROM requests WHERE state = 'answered'").fetchone()[0]


def test_files_are_deleted_where_that_is_wanted(sandbox):
    """Once their content is in the ledger."""
    ask(delete_files=True)
    assert sandbox.books().files == []
    assert ask_as_the_next_run() == answers()


@pytest.mark.stops
@pytest.mark.parametrize("fields", [{"wait": False}, {"use_offline_batch_generation": True}])
def test_a_script_that_does_not_wait_is_told_which_batches_are_under_way(sandbox, fields):
    """With distilabel's own exception; a later run collects."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException) as raised:
        ask(max_requests_per_job=5, **fields)
    assert set(raised.value.jobs_ids) == {batch["id"] for batch in sandbox.books().batches}
    assert len(raised.value.jobs_ids) == 3

    sandbox.configure(in_progress_seconds=0.0)
    assert ask_as_the_next_run(**fields) == answers()
    assert_billed_once(sandbox)


def test_distilabels_own_poll_interval_is_kept(sandbox):
    """`offline_batch_generation_block_until_done` waits, and looks that often."""
    sandbox.configure(in_progress_seconds=1.5)
    llm = OpenAIBatchLLM(
        model="gpt-4o-mini", use_offline_batch_generation=True, offline_batch_generation_block_until_done=1
    )
    llm.load()
    assert llm.generate_outputs(QUESTIONS) == answers()
    assert sum(call.name == "batches.retrieve" for call in sandbox.calls()) == 2


def test_a_server_without_a_list_is_warned_of(sandbox, caplog):
    """What cannot be promised there is said."""
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=404, times=-1))
    with caplog.at_level(logging.WARNING):
        assert ask() == answers()
    assert "does not list its batches" in caplog.text


def jobs_in_the_ledger() -> list[tuple[str, str | None]]:
    """Each job's state, and why it came to nothing."""
    with sqlite3.connect(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3") as database:
        return database.execute("SELECT state, error FROM jobs ORDER BY id").fetchall()


@pytest.mark.parametrize("call", ["files.create", "batches.create"])
def test_a_job_that_was_refused_is_closed(sandbox, call):
    """With the reason, and without a file on the server; the next run buys what it would have bought."""
    sandbox.add_fault(Fault(call=call, kind="status", status=403, times=1))
    with pytest.raises(RunError) as caught:
        ask()
    assert jobs_in_the_ledger() == [("dropped", str(caught.value))]
    assert not sandbox.books().files

    assert ask_as_the_next_run() == answers()
    assert [state for state, _ in jobs_in_the_ledger()] == ["dropped", "collected"]
    assert_billed_once(sandbox)


def test_a_job_whose_creation_may_have_come_through_stays_open(sandbox):
    """The next run finds its batch, and buys nothing."""
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after", times=1))
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=401, times=1))
    with pytest.raises(RunError):
        ask(reuse_answers=False)
    assert jobs_in_the_ledger() == [("uploaded", None)]

    assert ask_as_the_next_run() == answers()
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_a_job_of_a_server_that_nobody_reached_is_closed(sandbox):
    """A mistyped address leaves nothing behind that would be waited for."""
    with pytest.raises(RunError, match="Is the address right"):
        ask(base_url="http://127.0.0.1:9/v1", reuse_answers=False, max_retries=1)
    assert [state for state, _ in jobs_in_the_ledger()] == ["dropped"]


def test_a_ledger_that_is_damaged_ends_the_run(sandbox):
    """And is left as it is; nothing is bought."""
    path = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3"
    ask(QUESTIONS[:1])
    whole = path.read_bytes()
    path.write_bytes(b"not a ledger" * 1_000)
    with pytest.raises(LedgerError):
        ask_as_the_next_run()
    assert path.read_bytes() == b"not a ledger" * 1_000
    assert len(sandbox.books().batches) == 1
    path.write_bytes(whole)


@pytest.mark.stops
def test_a_password_in_the_address_is_in_no_file_and_no_question(sandbox):
    """It is for a server in front, which this one is not; a new password asks the same questions."""
    with pytest.raises(AuthenticationError):
        ask(base_url=sandbox.base_url.replace("http://", "http://me:s3cret@"), reuse_answers=False)

    ledger = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3"
    assert not any(b"s3cret" in path.read_bytes() for path in ledger.parent.glob("ledger*"))
    with sqlite3.connect(ledger) as database:
        scopes = database.execute("SELECT base_url FROM scopes").fetchall()
        asked = {row[0] for row in database.execute("SELECT custom_id FROM requests")}
    assert scopes == [(f"{sandbox.base_url}/",)]
    ask()
    assert asked == set(sandbox.books().billed)
