"""Tests of the steps that do not block: stream, and submit now to load later."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from functools import partial

import openai
import pytest
from datasets import Dataset
from distilabel.errors import DistilabelUserError
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns, LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import EmbeddingTaskGenerator, EvolInstruct, TextGeneration, UltraFeedback
from pydantic import ValidationError

from distilabel_openai_batch import (
    AuthenticationError,
    BatchFailedError,
    LedgerError,
    LoadBatchResults,
    OpenAIBatchLLM,
    RequestsFailedError,
    RunError,
    StreamBatchResults,
    SubmitBatch,
)
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.plugin.steps.base import TaskStep, split_into_batches
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, ResultFault, Sandbox
from tests.support.commands import check_printed_commands, run_command
from tests.support.environment import API_KEY
from tests.support.hub import serve_dataset

ROWS = [{"instruction": f"Say number {i}.", "id": i} for i in range(23)]
IDS = [row["id"] for row in ROWS]
FAILS = RequestFailure(contains="Say number 7.", status=400, message="It is the seventh.")


def generation_task(llm=None, **fields) -> TextGeneration:
    llm = llm or OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, max_requests_per_job=5, **fields)
    return TextGeneration(name="generate", llm=llm, input_batch_size=4)


@step(inputs=["id"], outputs=["seen_at"])
def Clock(inputs: StepInput):
    yield [row | {"seen_at": time.time()} for row in inputs]


def run(pipeline: Pipeline, use_cache=False) -> list[dict]:
    """Return the rows of a run; each command that the run prints finds its scope."""
    rows = pipeline.run(use_cache=use_cache)["default"]["train"].to_list()
    if any(isinstance(pipeline.dag.get_step(name)["step"], TaskStep) for name in pipeline.dag):
        log = pipeline._cache_location["log_file"].read_text(encoding="utf-8")
        assert check_printed_commands(log)
    return rows


def run_generator_step(first_step, tmp_path, name="steps", use_cache=False) -> list[dict]:
    """Return the rows that a generator step yields in a pipeline with a second step."""
    with Pipeline(name=name, cache_dir=tmp_path) as pipeline:
        made = first_step()
        made >> Clock(input_batch_size=3)
    return run(pipeline, use_cache)


def run_stream(tmp_path, data=ROWS, **fields) -> list[dict]:
    return run_generator_step(
        lambda: StreamBatchResults(task=generation_task(), data=data, batch_size=3, **fields), tmp_path
    )


def submit_in_pipeline(tmp_path, rows=ROWS) -> list[dict]:
    """Submit in a pipeline, and return a row for each job."""
    with Pipeline(name="submitting", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=rows) >> SubmitBatch(task=generation_task(), run_name="numbers")
    return run(pipeline)


def load_in_pipeline(tmp_path, use_cache=False, **fields) -> list[dict]:
    """Load in a pipeline, and return the rows."""
    fields = fields or {"run_name": "numbers"}
    return run_generator_step(
        lambda: LoadBatchResults(task=generation_task(), batch_size=3, **fields), tmp_path, "loading", use_cache
    )


def submit_rows(rows=ROWS, task=generation_task) -> list[dict]:
    """Submit by a call of the step, and return a row for each job."""
    submit = SubmitBatch(task=task(), run_name="numbers")
    submit.load()
    [jobs] = submit.process(rows)
    submit.unload()
    return jobs


def load_rows(task=generation_task, **fields) -> list[dict]:
    """Load by a call of the step, and return the rows."""
    load = LoadBatchResults(task=task(), batch_size=3, **(fields or {"run_name": "numbers"}))
    load.load()
    batches = list(load.process())
    load.unload()
    assert [last for _, last in batches] == [False] * (len(batches) - 1) + [True]
    return [row for rows, _ in batches for row in rows]


def without_time(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seen_at"} for row in rows]


def synchronous_rows(tmp_path) -> list[dict]:
    with Pipeline(name="synchronous", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=ROWS) >> generation_task(OpenAILLM(model="gpt-4o-mini"))
    return run(pipeline)


def assert_submitted_once(sandbox, jobs=5) -> None:
    books = sandbox.books()
    assert len(books.batches) == jobs
    assert len(books.billed) == len(ROWS)
    assert set(books.billed.values()) == {1}


# The stream


def test_stream_yields_the_rows_of_the_task(sandbox, tmp_path):
    """Rows come in order, with all their columns, from jobs of five requests."""
    assert without_time(run_stream(tmp_path)) == synchronous_rows(tmp_path)
    assert_submitted_once(sandbox)


def test_stream_passes_rows_on_before_the_last_job_ends(sandbox, tmp_path):
    """The next step sees the first rows before the server has ended the last job."""
    sandbox.configure(in_progress_seconds=1.0)
    llm = {"max_jobs": 2}
    rows = run_generator_step(
        lambda: StreamBatchResults(task=generation_task(**llm), data=ROWS, batch_size=3), tmp_path
    )
    last_ended = max(interval.end for interval in sandbox.books().intervals)
    assert min(row["seen_at"] for row in rows) < last_ended
    assert [row["id"] for row in rows] == IDS


def test_unordered_stream_yields_each_row_once(sandbox, tmp_path):
    """The same holds for a second run, whose answers all come from the ledger."""
    first = run_stream(tmp_path, ordered=False)
    again = run_stream(tmp_path, ordered=False)
    assert sorted(row["id"] for row in first) == sorted(row["id"] for row in again) == IDS
    assert_submitted_once(sandbox)


def test_growing_output_file_is_read_while_the_job_runs(sandbox, tmp_path):
    """The first rows of a single job reach the next step before the job has ended."""
    sandbox.configure(in_progress_seconds=4.0, growing_output=True, shuffle=False)
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.1, max_poll_interval=0.2)
    rows = run_generator_step(lambda: StreamBatchResults(task=generation_task(llm), data=ROWS, batch_size=3), tmp_path)
    [interval] = sandbox.books().intervals
    assert min(row["seen_at"] for row in rows) < interval.end
    assert [row["id"] for row in rows] == IDS
    assert_submitted_once(sandbox, jobs=1)


def test_failed_request_is_none_in_its_row_of_a_stream(sandbox, tmp_path):
    sandbox.configure(failures=[FAILS])
    assert [row["id"] for row in run_stream(tmp_path) if row["generation"] is None] == [7]


def test_stream_raises_an_error_of_the_run(sandbox, tmp_path):
    sandbox.configure(api_keys=["another"])
    with pytest.raises(AuthenticationError):
        run_stream(tmp_path)


def test_stream_submits_jobs_in_the_order_of_the_rows(sandbox):
    """With few jobs in progress the first rows come first."""
    questions = [f"Question {number}." for number in range(24)]
    llm = OpenAIBatchLLM(model="gpt-4o-mini", max_requests_per_job=2, max_jobs=1, min_poll_interval=0.02)
    stream = StreamBatchResults(task=generation_task(llm), data=[{"instruction": question} for question in questions])
    stream.load()
    assert [row["instruction"] for batch, _ in stream.process() for row in batch] == questions

    client = openai.OpenAI()
    submitted = [
        json.loads(line)["body"]["messages"][-1]["content"]
        for batch in reversed(client.batches.list(limit=100).data)
        for line in client.files.content(batch.input_file_id).iter_lines()
    ]
    assert submitted == questions


def test_stream_can_be_called_outside_a_pipeline(sandbox):
    """The argument `offset` skips rows."""
    stream = StreamBatchResults(task=generation_task(), data=ROWS, batch_size=10)
    stream.load()
    batches = list(stream.process(offset=5))
    stream.unload()
    assert [[row["id"] for row in rows] for rows, _ in batches] == [IDS[5:15], IDS[15:]]
    assert [last for _, last in batches] == [False, True]


def test_dry_run_of_a_stream_sends_one_batch_synchronously(sandbox, tmp_path):
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(name="stream", task=generation_task(), data=ROWS) >> Clock()
    assert len(pipeline.dry_run(batch_size=2)["default"]["train"]) == 2
    assert (sandbox.books().sync, sandbox.books().batches) == (2, [])


def test_dry_run_of_a_loader_sends_one_batch_synchronously(sandbox, tmp_path):
    """Otherwise `resubmit=True` would send all rows synchronously, at full price."""
    sandbox.configure(failures=[RequestFailure(contains="Say number", endpoint="batch", status=500)])
    task_of_one_attempt = partial(generation_task, max_attempts=1)
    submit_rows(task=task_of_one_attempt)
    load_rows(task=task_of_one_attempt)
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(name="load", task=task_of_one_attempt(), run_name="numbers", resubmit=True) >> Clock()

    assert len(pipeline.dry_run(batch_size=2)["default"]["train"]) == 2

    assert sandbox.books().sync == 2


def test_dry_run_of_a_loader_yields_rows_of_the_named_batches(sandbox, tmp_path):
    """The first rows of the submission need not be among these rows."""
    jobs = submit_rows()
    sandbox.settle()
    last = [job["batch_id"] for job in jobs if job["requests"] == 3]
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(name="load", task=generation_task(), batch_ids=last) >> Clock()
    assert pipeline.dry_run(batch_size=2)["default"]["train"]["id"][:] == IDS[-3:-1]


@pytest.mark.parametrize("ledger", ["the same", "another"])
def test_dry_run_of_a_submission_keeps_the_submitted_rows(sandbox, tmp_path, monkeypatch, ledger):
    """The same holds on another machine."""
    jobs = submit_in_pipeline(tmp_path)
    sandbox.settle()
    if ledger == "another":
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / ledger))
    with Pipeline(name="submitting", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(name="rows", data=[{"instruction": "Say number 99.", "id": 99}, *ROWS]) >> SubmitBatch(
            task=generation_task(), run_name="numbers"
        )
    pipeline.dry_run(batch_size=2)

    assert len(sandbox.books().batches) == len(jobs) + 1
    assert [row["id"] for row in load_rows()] == IDS
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "a third"))
    assert [row["id"] for row in load_rows()] == IDS


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_stream_reads_rows_from_files_and_datasets(sandbox, tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    dataset = Dataset.from_list(ROWS)
    {"jsonl": dataset.to_json, "csv": dataset.to_csv, "parquet": dataset.to_parquet}[suffix](str(path))
    for data in (str(path), dataset):
        stream = StreamBatchResults(task=generation_task(), data=data, batch_size=50)
        stream.load()
        [(rows, last)] = stream.process()
        stream.unload()
        assert [row["id"] for row in rows] == IDS
        assert last


def test_rows_are_read_from_the_hub(tmp_path):
    """`datasets` reads the address of the Hub when imported, so a new process loads the rows."""
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    program = (
        "import json; from distilabel_openai_batch.plugin.row_sources import load_rows;"
        " print(json.dumps(load_rows('me/rows')[:]))"
    )
    with serve_dataset("me/rows", "rows.jsonl", lines) as address:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        process = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    assert json.loads(process.stdout)["id"] == IDS


def test_stream_survives_yaml(sandbox, tmp_path):
    """YAML holds the Task and its LLM without the key. The Task is no step of its own."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    with Pipeline(name="yaml", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(name="stream", task=generation_task(), data=str(tmp_path / "rows.jsonl")) >> KeepColumns(
            columns=["id", "generation"]
        )
    assert len(list(pipeline.dag.G)) == 2
    pipeline.save(tmp_path / "pipeline.yaml", format="yaml")
    assert API_KEY not in (tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
    read = Pipeline.from_yaml(tmp_path / "pipeline.yaml")
    assert read.dag.get_step("stream")["step"].task.llm.max_requests_per_job == 5
    assert len(run(read)) == len(ROWS)


def test_signature_depends_on_the_rows():
    """Otherwise distilabel's cache would be used for other rows."""
    each = (ROWS, ROWS[1:], Dataset.from_list(ROWS))
    made = [StreamBatchResults(name="s", task=generation_task(), data=data) for data in each]
    assert len({stream.signature for stream in made}) == 3


@pytest.mark.parametrize(
    ("sizes", "offset", "expected"),
    [
        ([4, 4, 2], 0, [(3, False), (3, False), (3, False), (1, True)]),
        ([3, 3], 0, [(3, False), (3, True)]),
        ([4, 4], 5, [(3, True)]),
        ([], 0, [(0, True)]),
        ([3, 0], 0, [(3, True)]),
    ],
)
def test_batches_have_one_size_except_the_last(sizes, offset, expected):
    found = split_into_batches(iter([[{}] * size for size in sizes]), 3, offset)
    assert [(len(rows), last) for rows, last in found] == expected


# Mistakes


@pytest.mark.parametrize("made", [StreamBatchResults, SubmitBatch, LoadBatchResults])
def test_task_without_an_openai_batch_llm_is_refused(made):
    """The error shows the expected code."""
    with pytest.raises(ValidationError, match=r"TextGeneration\(llm=OpenAIBatchLLM\(model=…\)\)"):
        made(task=generation_task(OpenAILLM(model="gpt-4o-mini")))
    with pytest.raises(ValidationError, match="makes its own rows"):
        made(task=EmbeddingTaskGenerator(category="text-retrieval", llm=OpenAIBatchLLM(model="gpt-4o-mini")))


def test_missing_column_is_found_before_any_submission(sandbox, tmp_path):
    """The error proposes an input mapping."""
    with pytest.raises(DistilabelUserError, match=r"input_mappings={'instruction': 'question'}"):
        run_stream(tmp_path, data=[{"question": "Why?"}])
    with pytest.raises(ValueError, match="'instruction'"):
        submit_in_pipeline(tmp_path, rows=[{"question": "Why?"}])
    assert not sandbox.books().batches


@pytest.mark.parametrize("data", [[], None, "nothing-there.jsonl"])
def test_stream_without_rows_is_an_error(sandbox, tmp_path, data):
    """Otherwise the pipeline would wait for ever."""
    with pytest.raises(DistilabelUserError, match=r"has no rows|no such file"):
        run_stream(tmp_path, data=data)


def test_loader_needs_exactly_one_of_run_name_and_batch_ids(sandbox, tmp_path):
    with pytest.raises(ValidationError, match="not both"):
        LoadBatchResults(task=generation_task(), run_name="numbers", batch_ids=["batch_1"])
    with pytest.raises(DistilabelUserError, match="Pass `run_name=…`"):
        load_in_pipeline(tmp_path, run_name=None)
    with pytest.raises(ValidationError, match="empty"):
        LoadBatchResults(task=generation_task(), batch_ids=[])
    with pytest.raises(RunError, match="neither in the ledger nor on the server"):
        load_in_pipeline(tmp_path, run_name="never-submitted")
    with pytest.raises(RunError, match="does not know batch batch_none"):
        load_in_pipeline(tmp_path, batch_ids=["batch_none"])


def scopes() -> list[str]:
    """Return the names of the scopes in the ledger."""
    return [scope.name.pipeline for scope in LedgerReader(ledger_directory()).scopes()]


def test_mistyped_run_name_lists_similar_names(sandbox, monkeypatch, tmp_path):
    """Names come from the ledger, or from the server on another machine. The ledger keeps no mistyped name."""
    submit_rows()
    with pytest.raises(RunError, match=r"'nubmers' .*Nearest names of other runs: 'numbers'\."):
        load_rows(run_name="nubmers")
    assert scopes() == ["numbers"]

    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "another machine's"))
    with pytest.raises(RunError, match=r"Nearest names of other runs: 'numbers'\."):
        load_rows(run_name="nubmers")
    assert scopes() == []


def test_loader_names_the_server_of_the_submission(sandbox):
    """A user may submit to the sandbox and load from the API."""
    submit_rows()
    with Sandbox() as other, pytest.raises(RunError, match=f"The run was submitted to {sandbox.base_url}"):
        load_rows(lambda: generation_task(base_url=other.base_url), run_name="numbers")


def task_with_a_value(**fields) -> TextGeneration:
    """Return a Task whose prompt shows a value that need not be text."""
    return TextGeneration(
        name="generate",
        llm=OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05),
        template="What of {{ when }}?",
        columns=["when"],
        **fields,
    )


@pytest.mark.parametrize("value", [datetime(1969, 7, 20), float("nan"), (1, 2), [{"at": (1,)}], {1: 2}, {1, 2}])
def test_row_that_json_would_change_is_refused_before_any_submission(sandbox, value):
    """The loaded row would make another request: with `resubmit=True` all requests would be submitted again."""
    with pytest.raises(RunError, match=r"the column 'when'.* Turn the column into text"):
        submit_rows([{"when": "today"}, {"when": value}], task=task_with_a_value)
    assert not sandbox.calls()
    with pytest.raises(LedgerError, match="There is no ledger"):
        scopes()


def test_pipeline_names_the_column_that_json_would_change(sandbox, tmp_path):
    """The error has the row's column name, not that of the Task's input, in each run."""
    with Pipeline(name="changing", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=[{"date": datetime(1969, 7, 20)}])
        load >> SubmitBatch(name="submit", task=task_with_a_value(input_mappings={"when": "date"}), run_name="dates")
    for _ in range(2):
        with pytest.raises(RunError, match=r"'submit' keeps its rows as JSON.*the column 'date'"):
            pipeline.run(use_cache=True)


def test_json_may_change_a_column_that_the_task_does_not_read(sandbox):
    """A date in such a column comes back as text."""
    submit_rows([{"when": [1.0, None, "é", True, {"a": 2}], "date": datetime(1969, 7, 20)}], task=task_with_a_value)
    [row] = load_rows(task=task_with_a_value)
    assert (row["date"], row["batch_failure"]) == ("1969-07-20T00:00:00", None)
    with pytest.raises(RunError, match="cannot hold the column 'odd'"):
        submit_rows([{"when": "today", "odd": object()}], task=task_with_a_value)


# Submit, and load


def test_loader_yields_the_rows_of_a_submission(sandbox, tmp_path):
    """`SubmitBatch` yields a row for each job, `LoadBatchResults` the original rows with the Task's columns."""
    sandbox.configure(in_progress_seconds=0.5)
    jobs = submit_in_pipeline(tmp_path)
    assert sorted(job["requests"] for job in jobs) == [3, 5, 5, 5, 5]
    assert {job["run_name"] for job in jobs} == {"numbers"}
    assert all(job["bytes"] > 500 and job["base_url"].startswith(sandbox.base_url) for job in jobs)
    assert {job["batch_id"] for job in jobs} == {batch["id"] for batch in sandbox.books().batches}

    rows = without_time(load_in_pipeline(tmp_path))
    assert {row.pop("batch_failure") for row in rows} == {None}
    assert rows == synchronous_rows(tmp_path)
    assert_submitted_once(sandbox)


def test_second_submission_leaves_running_jobs_and_reads_ended_ones(sandbox):
    sandbox.configure(in_progress_seconds=600.0)
    sandbox.add_fault(BatchFault(kind="expire", value=5))
    submit_rows()
    assert {job["status"] for job in submit_rows()} == {"expired", "validating"}
    sandbox.configure(in_progress_seconds=0.0)
    assert_submitted_once(sandbox)


def test_second_submission_submits_no_request(sandbox):
    """Both submissions yield the same jobs."""
    assert [job["batch_id"] for job in submit_rows()] == [job["batch_id"] for job in submit_rows()]
    assert_submitted_once(sandbox)


def test_another_machine_loads_without_the_ledger(sandbox, tmp_path, monkeypatch):
    """The run's name or the ids of its jobs suffice, also while jobs run."""
    sandbox.configure(in_progress_seconds=1.0)
    jobs = submit_rows()
    for number, fields in enumerate([{"run_name": "numbers"}, {"batch_ids": [job["batch_id"] for job in jobs]}]):
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / f"machine-{number}"))
        rows = load_rows(**fields)
        assert [row["id"] for row in rows] == IDS
        assert all(row["generation"] and row["batch_failure"] is None for row in rows)
    assert_submitted_once(sandbox)


def test_batch_ids_load_the_rows_of_these_batches_alone(sandbox, tmp_path, monkeypatch):
    """The same holds on a machine without the ledger."""
    submit_rows()
    batches = [batch for batch in sandbox.books().batches if batch["request_counts"]["total"] == 5][1:3]
    for ledger in (os.environ["DISTILABEL_OPENAI_BATCH_DIR"], str(tmp_path / "another")):
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", ledger)
        rows = load_rows(batch_ids=[batch["id"] for batch in batches])
        assert {row["id"] // 5 for row in rows} < {0, 1, 2, 3}
        assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
        assert len(rows) == 10
    assert_submitted_once(sandbox)


def test_row_without_an_answer_has_a_reason(sandbox):
    """The request is submitted again with `resubmit=True` only."""
    sandbox.configure(failures=[FAILS])
    submit_rows()
    rows = load_rows()
    assert [(row["id"], row["generation"]) for row in rows if row["batch_failure"]] == [(7, None)]
    assert "It is the seventh." in rows[7]["batch_failure"]
    assert len(sandbox.books().batches) == 5

    sandbox.configure(failures=[])
    rows = load_rows(run_name="numbers", resubmit=True)
    assert [row["id"] for row in rows if row["generation"] is None] == []
    assert_submitted_once(sandbox, jobs=6)


def test_loading_with_another_model_is_an_error(sandbox):
    """No request of this model was submitted: advice to resubmit would double all costs."""
    submit_rows()
    before = len(sandbox.books().batches)

    with pytest.raises(RequestsFailedError, match="the Task, model, parameters or rows differ from the submitted ones"):
        load_rows(lambda: generation_task(OpenAIBatchLLM(model="gpt-4o", min_poll_interval=0.02)))

    assert len(sandbox.books().batches) == before


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (BatchFault(kind="expire", value=2), "could not be executed"),
        (BatchFault(kind="fail"), "The sandbox was told to fail this batch."),
    ],
)
def test_resubmit_repeats_the_requests_of_a_failed_job(sandbox, fault, reason):
    """Without `resubmit` the rows of that job are `None` with a reason, and all other rows have answers."""
    sandbox.add_fault(fault)
    submit_rows()
    without = [row for row in load_rows() if row["generation"] is None]
    assert len(without) == (3 if fault.kind == "expire" else 5)
    assert all(reason in row["batch_failure"] for row in without)

    rows = load_rows(run_name="numbers", resubmit=True)
    assert [row["id"] for row in rows] == IDS
    assert all(row["generation"] for row in rows)
    assert_submitted_once(sandbox, jobs=6)


def test_load_of_a_rejected_submission_raises_the_reason(sandbox):
    """Each further load raises the same error, and the commands show the reason."""
    sandbox.add_fault(BatchFault(kind="fail", times=-1))
    submit_rows()
    for _ in range(2):
        with pytest.raises(BatchFailedError, match=r"All 23 requests .*The sandbox was told to fail this batch\."):
            load_rows()

    assert "The sandbox was told to fail this batch." in run_command("failures", "numbers").stdout
    assert sum(job.failed for job in LedgerReader(ledger_directory(None)).jobs()) == len(ROWS)


def test_refused_parameter_is_learned_while_loading(sandbox, caplog):
    """The deployment's name hides its model: a load records the refusal, so that the resubmission needs one job."""
    sandbox.configure(aliases={"my-deployment": "gpt-5-mini"})

    def task() -> TextGeneration:
        return generation_task(OpenAIBatchLLM(model="my-deployment", min_poll_interval=0.05))

    submit_rows(task=task)

    [reason] = {row["batch_failure"] for row in load_rows(task=task)}
    assert "'max_tokens' is not supported" in reason
    assert "Load with `resubmit=True`: these requests are submitted with `max_completion_tokens`" in caplog.text

    rows = load_rows(task=task, run_name="numbers", resubmit=True)
    assert all(row["generation"] for row in rows)
    assert len(sandbox.books().batches) == 2


def test_resubmit_with_batch_ids_repeats_their_requests_alone(sandbox, tmp_path, monkeypatch):
    """Later loads of the same ids find the new answers, here and on another machine."""
    for _ in range(2):
        sandbox.add_fault(BatchFault(kind="expire", value=2))
    submit_rows()
    sandbox.settle()
    expired_ids = [batch["id"] for batch in sandbox.books().batches if batch["status"] == "expired"][:1]
    rows = load_rows(batch_ids=expired_ids)
    assert [row["generation"] is None for row in rows].count(True) == 3

    for ledger in (os.environ["DISTILABEL_OPENAI_BATCH_DIR"], str(tmp_path / "another")):
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", ledger)
        again = load_rows(batch_ids=expired_ids, resubmit=True)
        assert [row["id"] for row in again] == [row["id"] for row in rows]
        assert all(row["generation"] for row in again)
        assert len(sandbox.books().batches) == 6
    assert len(sandbox.books().billed) == len(ROWS) - 3


@pytest.mark.parametrize("by_name", [True, False])
def test_another_machine_reads_the_reason_of_a_failed_job(sandbox, tmp_path, monkeypatch, by_name):
    """The input file names the rows, and the errors of the batch name the reason."""
    sandbox.add_fault(BatchFault(kind="fail"))
    jobs = submit_rows()
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "another"))
    rows = load_rows(**({"run_name": "numbers"} if by_name else {"batch_ids": [job["batch_id"] for job in jobs]}))
    assert [row["id"] for row in rows] == IDS
    reasons = [row["batch_failure"] for row in rows if row["generation"] is None]
    assert len(reasons) == 5
    assert all("The sandbox was told to fail this batch." in reason for reason in reasons)


def test_each_generation_is_a_row_with_its_own_reason(sandbox):
    sandbox.configure(failures=[FAILS])

    def two_generations():
        task = generation_task()
        task.num_generations = 2
        return task

    submit_rows(task=two_generations)
    rows = load_rows(task=two_generations)
    assert [row["id"] for row in rows] == [id for id in IDS for _ in range(2)]
    assert [row["id"] for row in rows if row["batch_failure"]] == [7, 7]


@pytest.mark.parametrize("add_failures", [False, True])
def test_refusal_is_the_reason_of_its_row(sandbox, add_failures):
    """`add_failures` adds a second column with the same reason."""
    sandbox.add_fault(ResultFault(kind="refuse", contains="Say number 7.", times=-1))
    task = partial(generation_task, add_failures=add_failures)
    submit_rows(task=task)

    rows = load_rows(task=task)

    assert [(row["id"], row["generation"]) for row in rows if row["batch_failure"]] == [(7, None)]
    assert rows[7]["batch_failure"].startswith("The model refused: ")
    assert rows[7]["batch_failure"].endswith("(refusal)")
    assert {"failure_generate" in row for row in rows} == {add_failures}
    assert not add_failures or rows[7]["failure_generate"]["code"] == "refusal"


def test_row_that_is_lost_with_its_group_has_a_reason(sandbox):
    """The row has no answer although the row's request was answered."""
    sandbox.configure(failures=[FAILS])

    def evol_task():
        llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
        return EvolInstruct(name="evolve", llm=llm, num_evolutions=1, input_batch_size=4)

    submit_rows(task=evol_task)
    rows = load_rows(task=evol_task)

    assert [row["id"] for row in rows if row["evolved_instruction"] is None] == [4, 5, 6, 7]
    assert [row["id"] for row in rows if row["batch_failure"]] == [4, 5, 6, 7]
    assert "It is the seventh. (400, " in rows[7]["batch_failure"]
    assert rows[6]["batch_failure"].startswith("The row was lost with its row group")


def test_generation_that_fits_the_schema_has_no_reason(sandbox):
    """The other generation of the same request was rejected."""
    quoting = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^“"}}, "required": ["name"]}

    def two_generations():
        task = generation_task(structured_output={"schema": quoting, "max_retries": 0})
        task.num_generations = 2
        return task

    submit_rows(task=two_generations)
    rows = load_rows(task=two_generations)

    missing = [row["generation"] is None for row in rows]
    assert {(False, True), (True, False)} & set(zip(missing[::2], missing[1::2], strict=True))
    assert [row["batch_failure"] is not None for row in rows] == missing


def test_task_with_list_columns_is_loaded(sandbox):

    def judge_task():
        return UltraFeedback(llm=OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05))

    rows = [{"instruction": f"Say {i}.", "generations": ["a", "b"], "id": i} for i in range(5)]
    submit_rows(rows, task=judge_task)
    found = load_rows(task=judge_task)
    assert [row["id"] for row in found] == list(range(5))
    assert all(len(row["ratings"]) == 2 for row in found)


def test_each_submission_gets_one_round_further(sandbox):
    """The random choices of the Task are equal each time."""

    def evol_task():
        llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
        return EvolInstruct(name="evolve", llm=llm, num_evolutions=2, input_batch_size=4)

    for round_ in (1, 2, 2):
        submit_rows(task=evol_task)
        sandbox.settle()
        assert len(sandbox.books().batches) == round_
    rows = load_rows(task=evol_task)
    assert [row["id"] for row in rows] == IDS
    assert all(row["evolved_instruction"] for row in rows)
    assert len(sandbox.books().billed) == 2 * len(ROWS)
    assert set(sandbox.books().billed.values()) == {1}


def count_polls(sandbox) -> int:
    """Count the polls of batches."""
    return sum(call.name in ("batches.list", "batches.retrieve") for call in sandbox.calls())


@pytest.mark.parametrize("use_cache", [True, False])
def test_interrupted_loader_yields_each_row_once(sandbox, tmp_path, use_cache):
    """The loader begins again, with and without the cache of distilabel."""
    sandbox.configure(in_progress_seconds=600.0)
    submit_in_pipeline(tmp_path)
    polls_before = count_polls(sandbox)

    def interrupt() -> None:
        while count_polls(sandbox) == polls_before:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def load() -> None:
        threading.Thread(target=interrupt, daemon=True).start()
        load_in_pipeline(tmp_path, use_cache=use_cache)

    # A pipeline that does not stop in time kills its process, so the loader has a process of its own.
    loader = multiprocessing.get_context("fork").Process(target=load)
    loader.start()
    loader.join()
    assert loader.exitcode
    sandbox.configure(in_progress_seconds=0.0)
    assert [row["id"] for row in load_in_pipeline(tmp_path, use_cache=use_cache)] == IDS
    assert_submitted_once(sandbox)
