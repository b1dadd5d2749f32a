"""Requests for the synchronous endpoint: small rounds, dry runs, the rest after a deadline, and preflights."""

import logging
import os
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError, LedgerError, OpenAIBatchLLM, RequestsFailedError
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.states import JobState
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure
from tests.support.environment import API_KEY, load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(10)]
pytestmark = pytest.mark.usefixtures("quick_retries")


def generate_in_new_process(questions=QUESTIONS, **fields):
    """Return the answers that a new process gets."""
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in load_as_new_process(llm).generate(questions)]


def count_billed(sandbox) -> tuple[int, int]:
    """Return the numbers of requests that were billed in batches and synchronously; no request is billed twice."""
    books = sandbox.books()
    assert not books.billed_bodies.keys() & books.sync_bodies.keys()
    assert {*books.billed_bodies.values(), *books.sync_bodies.values()} == {1}
    return len(books.billed_bodies), len(books.sync_bodies)


def test_no_job_is_open_when_generate_returns(sandbox):
    """`jobs` would show a job as interrupted whose run ended well."""
    generate_in_new_process(sync_below=100)
    [job] = LedgerReader(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])).jobs()
    assert (job.state, job.is_interrupted) == (JobState.COLLECTED, False)


# Deadline


def test_requests_left_at_the_deadline_are_synchronous(sandbox, caplog):
    """The job is cancelled, its partial results are kept, and the log has the cost of the rest."""
    sandbox.configure(in_progress_seconds=4.0, cancelling_seconds=0.1)
    with caplog.at_level(logging.INFO):
        answers = generate_in_new_process(deadline=1.0)
    in_batches, synchronous = count_billed(sandbox)
    assert in_batches > 0
    assert in_batches + synchronous == 10
    assert [batch["status"] for batch in sandbox.books().batches] == ["cancelled"]
    assert "The deadline has passed" in caplog.text
    assert f"{synchronous} requests went to the synchronous endpoint, at full price: " in caplog.text

    sandbox.configure(in_progress_seconds=0.0)
    assert generate_in_new_process() == answers
    assert count_billed(sandbox) == (in_batches, synchronous)


def test_job_that_ends_before_the_deadline_answers_all_requests(sandbox):
    assert all(generate_in_new_process(deadline=600.0))
    assert count_billed(sandbox) == (10, 0)


def test_deadline_holds_for_jobs_that_wait_for_max_jobs(sandbox):
    """Of five jobs one may be in progress at a time: the others are never created."""
    sandbox.configure(in_progress_seconds=600.0)
    assert all(generate_in_new_process(deadline=0.5, max_jobs=1, max_requests_per_job=2))
    assert count_billed(sandbox) == (0, 10)
    assert len(sandbox.books().batches) == 1


def test_deadline_holds_for_jobs_that_wait_for_the_token_limit(sandbox):
    """The server rejects the second job while the first one is in progress."""
    sandbox.configure(in_progress_seconds=600.0, enqueued_token_limit=100)
    assert all(generate_in_new_process(deadline=0.5, max_requests_per_job=6))
    assert count_billed(sandbox) == (0, 10)


def test_deadline_counts_from_the_planning_of_the_job(sandbox):
    """A later run, which adopts the job, uses the same start."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        generate_in_new_process(wait=False)
    assert all(generate_in_new_process(deadline=0.001))
    assert count_billed(sandbox) == (0, 10)
    assert len(sandbox.books().batches) == 1


def test_a_fixed_moment_is_the_deadline_of_later_rounds_too(sandbox):
    """The requests of a round after the moment go to the synchronous endpoint."""
    sandbox.configure(in_progress_seconds=600.0)
    llm = OpenAIBatchLLM(
        model="gpt-4o-mini", min_poll_interval=0.02, deadline=datetime.now().astimezone() + timedelta(seconds=1)
    )
    load_as_new_process(llm)
    assert all(output["generations"][0] for output in llm.generate(QUESTIONS[:5]))
    assert len(sandbox.books().batches) == 1
    assert all(output["generations"][0] for output in llm.generate(QUESTIONS[5:]))
    assert len(sandbox.books().batches) == 1
    assert count_billed(sandbox) == (0, 10)


def test_temporary_failure_after_the_deadline_is_not_put_into_another_job(sandbox):
    """The batch expired after the deadline."""
    sandbox.configure(in_progress_seconds=0.5)
    sandbox.add_fault(BatchFault(kind="expire", value=4))
    assert all(generate_in_new_process(deadline=0.2, max_attempts=1))
    assert len(sandbox.books().batches) == 1
    assert sum(count_billed(sandbox)) == 10


# Small rounds and dry runs


def test_small_round_is_synchronous(sandbox):
    """A round of `sync_below` requests or more is a job."""
    answers = generate_in_new_process(QUESTIONS[:3], sync_below=4)
    assert count_billed(sandbox) == (0, 3)
    assert generate_in_new_process(sync_below=4)[:3] == answers
    assert count_billed(sandbox) == (7, 3)


def test_dry_run_is_synchronous(sandbox, tmp_path):
    """No batch is created."""
    sandbox.configure(in_progress_seconds=600.0)
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(name="load", data=[{"instruction": f"Say number {i}."} for i in range(5)]) >> TextGeneration(
            llm=OpenAIBatchLLM(model="gpt-4o-mini")
        )
    assert pipeline.dry_run(batch_size=2)["default"]["train"]["generation"][0]
    assert count_billed(sandbox) == (0, 2)
    assert not sandbox.books().batches


def test_rate_limit_is_waited_out(sandbox):
    """The request is retried without a limit of attempts."""
    sandbox.configure(failures=[RequestFailure(contains="number 1.", status=429, times=20, endpoint="sync")])
    assert all(generate_in_new_process(sync_below=100))
    assert count_billed(sandbox) == (0, 10)


def test_request_that_always_fails_is_none_in_its_row(sandbox):
    """The other requests have their answers."""
    sandbox.configure(
        failures=[
            RequestFailure(contains="number 1.", status=500),
            RequestFailure(contains="number 2.", status=400, message="Not this one."),
        ]
    )
    answers = generate_in_new_process(sync_below=100)
    assert [i for i, answer in enumerate(answers) if answer is None] == [1, 2]
    assert count_billed(sandbox) == (0, 8)


def test_answers_before_an_error_of_the_run_are_kept(sandbox):
    """The next run submits the other requests."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=401, skip=4, times=-1))
    with pytest.raises(AuthenticationError):
        generate_in_new_process(sync_below=100)
    sandbox.clear_faults()
    before = sandbox.books().sync
    assert before
    assert all(generate_in_new_process())
    in_batches, synchronous = count_billed(sandbox)
    assert synchronous == before
    assert in_batches + synchronous == 10


def test_server_without_the_synchronous_endpoint_gets_a_batch(sandbox, caplog):
    """A warning names the change."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=405, times=-1))
    with caplog.at_level(logging.WARNING):
        assert all(generate_in_new_process(sync_below=100))
    assert count_billed(sandbox) == (10, 0)
    assert "go into a batch" in caplog.text


def test_strings_go_to_the_legacy_endpoint(sandbox):
    assert all(
        generate_in_new_process(["Once upon a time", "In the end"], model="gpt-3.5-turbo-instruct", sync_below=10)
    )
    assert count_billed(sandbox) == (0, 2)


# Preflight


def test_preflight_sends_one_request_before_the_others(sandbox):
    """The answer is used for its row; the other requests go into one job."""
    assert all(generate_in_new_process(preflight=True))
    assert count_billed(sandbox) == (9, 1)
    assert len(sandbox.books().batches) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"generation_kwargs": {"temperature": 7.0}}, "temperature"),
    ],
    ids=["model", "parameter"],
)
def test_preflight_reports_a_wrong_model_or_parameter_before_the_upload(sandbox, fields, words):
    """The error has the API's words."""
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "preflight": True, **fields})
    llm.load()
    with pytest.raises(RequestsFailedError, match=words):
        llm.generate(QUESTIONS, **llm.generation_kwargs)
    assert not sandbox.calls("files.create")


def test_preflight_tries_the_next_request_after_a_bad_one(sandbox):
    sandbox.configure(failures=[RequestFailure(contains="number 0.", status=400, message="Not this one.")])
    answers = generate_in_new_process(preflight=True)
    assert [i for i, answer in enumerate(answers) if answer is None] == [0]
    assert count_billed(sandbox) == (8, 1)


@pytest.mark.parametrize("status", [401, 404, 405])
def test_preflight_is_skipped_where_only_batches_are_allowed(sandbox, caplog, status):
    """A warning reports the skipped preflight, and all requests are submitted."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=status, body="{}", times=-1))
    with caplog.at_level(logging.WARNING):
        assert all(generate_in_new_process(preflight=True))
    assert count_billed(sandbox) == (10, 0)
    assert "The preflight is skipped" in caplog.text
    assert API_KEY not in caplog.text


def test_preflight_runs_once(sandbox):
    """Later rounds of calls, and a second run with known answers, send no preflight."""
    sandbox.add_fault(BatchFault(kind="expire", value=5))
    assert all(generate_in_new_process(preflight=True))
    assert count_billed(sandbox) == (9, 1)
    assert all(generate_in_new_process(preflight=True))
    assert count_billed(sandbox) == (9, 1)


def test_preflight_sends_one_request_to_each_endpoint(sandbox):
    """Each endpoint may refuse a parameter that another accepts."""
    mixed = [*QUESTIONS[:3], "Once upon a time", "In the end"]
    assert all(generate_in_new_process(mixed, model="gpt-3.5-turbo-instruct", preflight=True))
    assert count_billed(sandbox) == (3, 2)


@pytest.mark.parametrize("sync_below", [0, 100])
def test_reasoning_models_accept_the_requests(sandbox, sync_below):
    """Parameters that these models refuse, such as `max_tokens`, are left out; `extra_body` is sent."""
    for model in ("o3-mini", "gpt-5-mini"):
        llm = OpenAIBatchLLM(model=model, min_poll_interval=0.02, sync_below=sync_below)
        llm.load()
        outputs = llm.generate(QUESTIONS[:2], extra_body={"reasoning_effort": "low"})
        assert all(output["generations"][0] for output in outputs)


def test_ledger_that_cannot_be_written_ends_the_run(sandbox, monkeypatch):
    """Without the ledger no further answer could be kept, so this is no failure of a row."""

    def full(self, request_ids, outcomes):
        with self._connection.reading():
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(RequestTable, "record", full)
    with pytest.raises(LedgerError, match="disk is full"):
        generate_in_new_process(sync_below=100)
