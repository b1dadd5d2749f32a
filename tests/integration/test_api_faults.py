"""Faults of single API calls: replies with other content than the call's object, missing files, cut downloads."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from distilabel.models.llms import OpenAILLM

from distilabel_openai_batch import ConnectionFailedError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.api import lasting_failures
from distilabel_openai_batch.sandbox import Dialect, Fault, RequestFailure, Settings
from tests.support.environment import load_as_new_process

PROMPTS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
pytestmark = pytest.mark.usefixtures("quick_retries")


def generate(**fields):
    """Generate in a run of its own."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(PROMPTS)


def answers():
    """Return the answers of the synchronous endpoint."""
    llm = OpenAILLM(model="gpt-4o-mini")
    llm.load()
    return llm.generate(PROMPTS)


def job_states() -> list[str]:
    """Return the states of the ledger's jobs."""
    path = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        return [state for (state,) in database.execute("SELECT state FROM jobs ORDER BY id")]


def assert_billed_once(sandbox):
    assert set(sandbox.books().billed.values()) <= {1}


# Replies with status 200 and other content.

ODD_REPLIES = {
    "an error": {"error": {"message": "The model is overloaded.", "type": "server_error"}},
    "a page": "<html>The model is overloaded.</html>",
    "a list": ["The model is overloaded."],
}


UNSEARCHABLE = {"no list": Dialect(lists=False), "no names": Dialect(metadata=False, input_files=False)}


@pytest.mark.parametrize("dialect", UNSEARCHABLE.values(), ids=UNSEARCHABLE.keys())
@pytest.mark.parametrize("odd", ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
def test_a_creation_with_an_odd_reply_is_never_repeated_if_the_list_cannot_be_searched(sandbox, dialect, odd):
    """The error quotes the reply, and the job stays open: the next run does not repeat the creation either."""
    sandbox.reset(Settings(dialect=dialect))
    sandbox.add_fault(Fault(call="batches.create", kind="replace", status=200, body=odd))
    with pytest.raises(RunError, match="The model is overloaded") as raised:
        generate()
    assert "The job stays open" in str(raised.value)
    with pytest.raises(RunError, match="The job stays open"):
        generate()
    assert job_states() == ["uploaded"]
    assert len(sandbox.books().batches) == 1


@pytest.mark.parametrize("odd", ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
def test_a_creation_with_an_odd_reply_is_found_in_the_list(sandbox, odd):
    sandbox.add_fault(Fault(call="batches.create", kind="replace", status=200, body=odd))
    assert generate() == answers()
    assert_billed_once(sandbox)


@pytest.mark.parametrize("call", ["files.create", "batches.create"])
@pytest.mark.parametrize("odd", ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
def test_odd_replies_that_stay_end_the_run_and_cost_nothing(sandbox, call, odd):
    """The next run submits the job."""
    sandbox.add_fault(Fault(call=call, kind="status", status=200, body=odd, times=-1))
    with pytest.raises(ConnectionFailedError, match="The model is overloaded"):
        generate()
    assert len(sandbox.calls(call)) <= 7
    sandbox.clear_faults()
    assert generate() == answers()
    assert_billed_once(sandbox)


@pytest.mark.parametrize("odd", ODD_REPLIES.values(), ids=ODD_REPLIES.keys())
def test_odd_replies_to_polls_end_the_run_and_keep_the_job(sandbox, odd):
    """The next run collects the job."""
    sandbox.configure(in_progress_seconds=0.1)
    sandbox.add_fault(Fault(call="batches.retrieve", kind="status", status=200, body=odd, times=-1))
    with pytest.raises(ConnectionFailedError, match="The model is overloaded"):
        generate()
    assert job_states() == ["created"]
    sandbox.clear_faults()
    assert generate() == answers()
    assert_billed_once(sandbox)


def test_a_few_odd_replies_are_waited_out(sandbox):
    for call in ("files.create", "batches.retrieve"):
        sandbox.add_fault(Fault(call=call, kind="status", status=200, body={"error": {"message": "Wait."}}, times=3))
    assert generate() == answers()
    assert_billed_once(sandbox)


# Requests that fail with status 400, and pass later.

PASSING_REFUSALS = {
    "image": ("invalid_image_url", "Timeout while downloading https://example.com/a.jpg."),
    "body": (None, "We could not parse the JSON body of your request."),
}


@pytest.mark.parametrize(("code", "message"), PASSING_REFUSALS.values(), ids=PASSING_REFUSALS.keys())
def test_a_refusal_that_passes_is_submitted_again(sandbox, code, message):
    """The other requests are submitted once."""
    failure = RequestFailure(contains="number 7.", code=code, message=message, times=2, endpoint="batch")
    sandbox.reset(Settings(failures=[failure]))
    assert generate(max_attempts=3) == answers()
    assert len(sandbox.books().batches) == 3
    assert_billed_once(sandbox)


def test_a_refusal_that_does_not_pass_ends_after_the_last_attempt(sandbox):
    code, message = PASSING_REFUSALS["image"]
    sandbox.reset(Settings(failures=[RequestFailure(contains="number 7.", code=code, message=message)]))
    generations = [output["generations"] for output in generate(max_attempts=2)]
    assert [number for number, row in enumerate(generations) if row == [None]] == [7]
    assert len(sandbox.books().batches) == 2


def test_a_refusal_that_passes_is_sent_again_synchronously(sandbox):
    code, message = PASSING_REFUSALS["image"]
    failure = RequestFailure(contains="number 7.", code=code, message=message, times=2, endpoint="sync")
    sandbox.reset(Settings(failures=[failure]))
    assert None not in [row for output in generate(sync_below=100) for row in output["generations"]]
    assert not sandbox.books().batches


# Input files that the server does not see.


def test_a_creation_waits_until_the_server_sees_the_input_file(sandbox):
    """The server refuses the creation meanwhile; the file is uploaded once."""
    missing = {"error": {"message": "No such File object: file-0", "type": "invalid_request_error", "param": "id"}}
    sandbox.add_fault(Fault(call="batches.create", kind="status", status=400, body=missing, times=7))
    assert generate() == answers()
    assert len(sandbox.calls("files.create")) == 1
    assert [call.status for call in sandbox.calls("batches.create")] == [*[400] * 7, 200]
    assert_billed_once(sandbox)


# Downloads that the server cuts, and cannot continue.


def test_a_download_without_ranges_is_restarted(sandbox):
    sandbox.reset(Settings(dialect=Dialect(ranges=False)))
    sandbox.add_fault(Fault(call="files.content", kind="truncate", times=3))
    assert generate() == answers()
    assert_billed_once(sandbox)


def test_a_download_that_is_always_cut_ends_the_run_and_keeps_the_job(sandbox):
    """The next run collects the job if the server sends the file then."""
    sandbox.reset(Settings(dialect=Dialect(ranges=False)))
    sandbox.add_fault(Fault(call="files.content", kind="truncate", times=-1))
    with pytest.raises(RunError, match="`max_requests_per_job`"):
        generate()
    assert len(sandbox.calls("files.content")) == 5
    assert job_states() == ["ended"]
    sandbox.clear_faults()
    assert generate() == answers()
    assert_billed_once(sandbox)


@pytest.mark.parametrize("call", ["files.create", "batches.create", "batches.retrieve", "files.content"])
def test_a_500_that_stays_ends_the_run_and_the_next_run_continues(sandbox, monkeypatch, call):
    """The server answers its other calls. No answer is lost, and no request is billed twice."""
    monkeypatch.setattr(lasting_failures, "LASTING_SECONDS", 0.05)
    sandbox.add_fault(Fault(call=call, kind="status", status=500, times=-1))
    with pytest.raises(ConnectionFailedError, match="while it answers other calls"):
        generate()
    sandbox.clear_faults()
    assert generate() == answers()
    assert len(sandbox.books().billed) == len(PROMPTS)
    assert_billed_once(sandbox)
