"""What is asked at the synchronous endpoint: a handful, a dry run, what a deadline left over, and what is tried out."""

import logging
import sqlite3

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError, LedgerError, OpenAIBatchLLM, RequestsFailedError
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure
from tests.support.environment import API_KEY, in_a_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(10)]
pytestmark = pytest.mark.usefixtures("quick_retries")


def ask(questions=QUESTIONS, **fields):
    """What a process is given that begins now."""
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in in_a_new_process(llm).generate(questions)]


def bought(sandbox) -> tuple[int, int]:
    """How many requests were bought in batches and synchronously; none of them twice."""
    books = sandbox.books()
    assert not books.billed_bodies.keys() & books.sync_bodies.keys()
    assert {*books.billed_bodies.values(), *books.sync_bodies.values()} == {1}
    return len(books.billed_bodies), len(books.sync_bodies)


# A deadline


def test_what_a_job_has_not_answered_by_the_deadline_is_asked_synchronously(sandbox, caplog):
    """It is cancelled, what it answered is kept, and the log says what the rest cost."""
    sandbox.configure(in_progress_seconds=4.0, cancelling_seconds=0.1)
    with caplog.at_level(logging.INFO):
        answers = ask(deadline=1.0)
    in_batches, synchronous = bought(sandbox)
    assert in_batches > 0
    assert in_batches + synchronous == 10
    assert [batch["status"] for batch in sandbox.books().batches] == ["cancelled"]
    assert "The deadline has passed" in caplog.text
    assert f"{synchronous} requests were asked synchronously, at full price: " in caplog.text

    sandbox.configure(in_progress_seconds=0.0)
    assert ask() == answers
    assert bought(sandbox) == (in_batches, synchronous)


def test_a_job_that_ends_in_time_is_all_there_is(sandbox):
    """A deadline costs nothing by itself."""
    assert all(ask(deadline=600.0))
    assert bought(sandbox) == (10, 0)


def test_who_waits_for_a_free_place_has_a_deadline_too(sandbox):
    """Of five jobs, one may be in flight at a time: the others are never made."""
    sandbox.configure(in_progress_seconds=600.0)
    assert all(ask(deadline=0.5, max_jobs=1, max_requests_per_job=2))
    assert bought(sandbox) == (0, 10)
    assert len(sandbox.books().batches) == 1


def test_who_waits_for_the_token_limit_has_a_deadline_too(sandbox):
    """The second job is refused while the first one is under way."""
    sandbox.configure(in_progress_seconds=600.0, enqueued_token_limit=100)
    assert all(ask(deadline=0.5, max_requests_per_job=6))
    assert bought(sandbox) == (0, 10)


def test_the_time_of_a_job_counts_from_when_it_was_planned(sandbox):
    """Also in a later run, which takes it over."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        ask(wait=False)
    assert all(ask(deadline=0.001))
    assert bought(sandbox) == (0, 10)
    assert len(sandbox.books().batches) == 1


def test_a_failure_that_passes_is_not_given_another_job_after_the_deadline(sandbox):
    """The batch expired, and its time is up."""
    sandbox.configure(in_progress_seconds=0.5)
    sandbox.add_fault(BatchFault(kind="expire", value=4))
    assert all(ask(deadline=0.2, max_attempts=1))
    assert len(sandbox.books().batches) == 1
    assert sum(bought(sandbox)) == 10


# At once


def test_a_handful_is_asked_at_once(sandbox):
    """Below the limit synchronously, in one job from there on."""
    answers = ask(QUESTIONS[:3], sync_below=4)
    assert bought(sandbox) == (0, 3)
    assert ask(sync_below=4)[:3] == answers
    assert bought(sandbox) == (7, 3)


def test_a_dry_run_answers_at_once(sandbox, tmp_path):
    """Whatever a batch would take, which nobody waits for."""
    sandbox.configure(in_progress_seconds=600.0)
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(name="load", data=[{"instruction": f"Say number {i}."} for i in range(5)]) >> TextGeneration(
            llm=OpenAIBatchLLM(model="gpt-4o-mini")
        )
    assert pipeline.dry_run(batch_size=2)["default"]["train"]["generation"][0]
    assert bought(sandbox) == (0, 2)
    assert not sandbox.books().batches


def test_a_rate_limit_is_waited_out(sandbox):
    """However often it is met."""
    sandbox.configure(failures=[RequestFailure(contains="number 1.", status=429, times=20, endpoint="sync")])
    assert all(ask(sync_below=100))
    assert bought(sandbox) == (0, 10)


def test_a_request_that_always_fails_is_given_up(sandbox):
    """It is its row's `None`; the others have their answers."""
    sandbox.configure(
        failures=[
            RequestFailure(contains="number 1.", status=500),
            RequestFailure(contains="number 2.", status=400, message="Not this one."),
        ]
    )
    answers = ask(sync_below=100)
    assert [i for i, answer in enumerate(answers) if answer is None] == [1, 2]
    assert bought(sandbox) == (0, 8)


def test_what_was_answered_before_the_run_failed_is_kept(sandbox):
    """The next run asks the others."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=401, skip=4, times=-1))
    with pytest.raises(AuthenticationError):
        ask(sync_below=100)
    sandbox.clear_faults()
    before = sandbox.books().sync
    assert before
    assert all(ask())
    in_batches, synchronous = bought(sandbox)
    assert synchronous == before
    assert in_batches + synchronous == 10


def test_a_server_without_the_endpoint_is_asked_in_a_batch(sandbox, caplog):
    """And the log says so."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=405, times=-1))
    with caplog.at_level(logging.WARNING):
        assert all(ask(sync_below=100))
    assert bought(sandbox) == (10, 0)
    assert "goes into a batch" in caplog.text


def test_the_legacy_endpoint_too(sandbox):
    """Prompts that are strings."""
    assert all(ask(["Once upon a time", "In the end"], model="gpt-3.5-turbo-instruct", sync_below=10))
    assert bought(sandbox) == (0, 2)


# Tried out


def test_one_request_is_tried_out_before_the_others_are_submitted(sandbox):
    """Its answer is its row's; the others go into one job."""
    assert all(ask(preflight=True))
    assert bought(sandbox) == (9, 1)
    assert len(sandbox.books().batches) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"generation_kwargs": {"temperature": 7.0}}, "temperature"),
    ],
    ids=["model", "parameter"],
)
def test_what_no_request_would_pass_with_is_known_at_once(sandbox, fields, words):
    """In the API's words; nothing was uploaded."""
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "preflight": True, **fields})
    llm.load()
    with pytest.raises(RequestsFailedError, match=words):
        llm.generate(QUESTIONS, **llm.generation_kwargs)
    assert not sandbox.calls("files.create")


def test_one_bad_request_is_no_reason_to_stop(sandbox):
    """The next one is tried."""
    sandbox.configure(failures=[RequestFailure(contains="number 0.", status=400, message="Not this one.")])
    answers = ask(preflight=True)
    assert [i for i, answer in enumerate(answers) if answer is None] == [0]
    assert bought(sandbox) == (8, 1)


@pytest.mark.parametrize("status", [401, 404, 405])
def test_a_key_or_server_for_batches_only_is_not_tried_out(sandbox, caplog, status):
    """It says so, and submits all."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=status, body="{}", times=-1))
    with caplog.at_level(logging.WARNING):
        assert all(ask(preflight=True))
    assert bought(sandbox) == (10, 0)
    assert "No request could be tried out" in caplog.text
    assert API_KEY not in caplog.text


def test_it_is_tried_out_once(sandbox):
    """Not again in the next round of calls, nor for what is known."""
    sandbox.add_fault(BatchFault(kind="expire", value=5))
    assert all(ask(preflight=True))
    assert bought(sandbox) == (9, 1)
    assert all(ask(preflight=True))
    assert bought(sandbox) == (9, 1)


def test_each_endpoint_is_tried_out(sandbox):
    """What one of them takes, another may refuse."""
    mixed = [*QUESTIONS[:3], "Once upon a time", "In the end"]
    assert all(ask(mixed, model="gpt-3.5-turbo-instruct", preflight=True))
    assert bought(sandbox) == (3, 2)


@pytest.mark.parametrize("sync_below", [0, 100])
def test_reasoning_models_take_what_they_are_sent(sandbox, sync_below):
    """They refuse `max_tokens`, a temperature and the like: none is sent. `extra_body` says how long they think."""
    for model in ("o3-mini", "gpt-5-mini"):
        llm = OpenAIBatchLLM(model=model, min_poll_interval=0.02, sync_below=sync_below)
        llm.load()
        outputs = llm.generate(QUESTIONS[:2], extra_body={"reasoning_effort": "low"})
        assert all(output["generations"][0] for output in outputs)


def test_a_ledger_that_cannot_be_written_ends_the_run(sandbox, monkeypatch):
    """It is no row's failure: what is asked could not be kept."""

    def full(self, row_ids, outcomes):
        with self._connection.reading():
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RequestTable, "record", full)
    with pytest.raises(LedgerError, match="disk is full"):
        ask(sync_below=100)
