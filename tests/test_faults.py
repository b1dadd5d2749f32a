"""Each way in which the server can fail, through the public face and a real socket.

After each, every row has its own answer or `None`, and the server's books show no request billed twice.
"""

from __future__ import annotations

import logging

import pytest
from conftest import API_KEY
from distilabel.models.llms import OpenAILLM

from distilabel_openai_batch import BatchFailedError, OpenAIBatchLLM, RunError, api
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure, ResultFault

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
CALLS = ["files.create", "batches.create", "batches.retrieve", "files.content"]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    """Pauses between repetitions of a call that last moments, however often it fails."""
    monkeypatch.setattr(api.Patience, "pause", lambda self, attempt: 0.01)


def ask(questions=QUESTIONS, **fields):
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    llm.load()
    return llm.generate(questions)


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
    if "without files" not in case:
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


def test_a_batch_that_the_server_forgets_is_an_error_that_names_it(sandbox):
    """Another key, or another project?"""
    sandbox.add_fault(Fault(call="batches.retrieve", kind="status", status=404, times=-1))

    with pytest.raises(RunError, match=r"does not know batch batch_.*key of another project"):
        ask()


@pytest.mark.parametrize("call", ["files.create", "batches.create", "batches.retrieve", "files.content"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_at_any_call_is_raised(sandbox, call, status):
    """At once, with the server's words, and without the key."""
    body = {"error": {"message": f"Not with {API_KEY}.", "code": "refused"}}
    sandbox.add_fault(Fault(call=call, kind="status", status=status, body=body))

    with pytest.raises(RunError, match="Not with") as raised:
        ask()

    assert raised.value.status_code == status
    assert API_KEY not in str(raised.value)


def test_a_lost_reply_to_the_creation_is_told(sandbox, caplog):
    """A lost reply to the creation is told, and costs nothing."""
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))

    with caplog.at_level(logging.WARNING):
        assert ask() == answers()

    assert len(sandbox.books().batches) == 1
    assert "was found again" in caplog.text
