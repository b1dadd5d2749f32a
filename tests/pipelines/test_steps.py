"""The steps that do not block: streaming, and submitting now to load later."""

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
from distilabel_openai_batch.plugin.steps.base import split_into_batches
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, ResultFault, Sandbox
from tests.support.environment import API_KEY
from tests.support.hub import hub_with

ROWS = [{"instruction": f"Say number {i}.", "id": i} for i in range(23)]
IDS = [row["id"] for row in ROWS]
FAILS = RequestFailure(contains="Say number 7.", status=400, message="It is the seventh.")


def generation(llm=None, **fields) -> TextGeneration:
    llm = llm or OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, max_requests_per_job=5, **fields)
    return TextGeneration(name="generate", llm=llm, input_batch_size=4)


@step(inputs=["id"], outputs=["seen_at"])
def Clock(inputs: StepInput):
    yield [row | {"seen_at": time.time()} for row in inputs]


def run(pipeline: Pipeline, use_cache=False) -> list[dict]:
    return pipeline.run(use_cache=use_cache)["default"]["train"].to_list()


def through(first_step, tmp_path, name="steps", use_cache=False) -> list[dict]:
    """The rows that a step yields, in a pipeline with another step behind it."""
    with Pipeline(name=name, cache_dir=tmp_path) as pipeline:
        made = first_step()
        made >> Clock(input_batch_size=3)
    return run(pipeline, use_cache)


def streamed(tmp_path, data=ROWS, **fields) -> list[dict]:
    return through(lambda: StreamBatchResults(task=generation(), data=data, batch_size=3, **fields), tmp_path)


def submitting(tmp_path, rows=ROWS) -> list[dict]:
    """The jobs, from a pipeline."""
    with Pipeline(name="submitting", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=rows) >> SubmitBatch(task=generation(), run_name="numbers")
    return run(pipeline)


def loading(tmp_path, use_cache=False, **fields) -> list[dict]:
    """The rows, from a pipeline."""
    fields = fields or {"run_name": "numbers"}
    return through(lambda: LoadBatchResults(task=generation(), batch_size=3, **fields), tmp_path, "loading", use_cache)


def submitted(rows=ROWS, task=generation) -> list[dict]:
    """The jobs, from a step that is called."""
    submit = SubmitBatch(task=task(), run_name="numbers")
    submit.load()
    [jobs] = submit.process(rows)
    submit.unload()
    return jobs


def loaded(task=generation, **fields) -> list[dict]:
    """The rows, from a step that is called."""
    load = LoadBatchResults(task=task(), batch_size=3, **(fields or {"run_name": "numbers"}))
    load.load()
    batches = list(load.process())
    load.unload()
    assert [last for _, last in batches] == [False] * (len(batches) - 1) + [True]
    return [row for rows, _ in batches for row in rows]


def without_time(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seen_at"} for row in rows]


def synchronous(tmp_path) -> list[dict]:
    with Pipeline(name="synchronous", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=ROWS) >> generation(OpenAILLM(model="gpt-4o-mini"))
    return run(pipeline)


def bought_once(sandbox, jobs=5) -> None:
    books = sandbox.books()
    assert len(books.batches) == jobs
    assert len(books.billed) == len(ROWS)
    assert set(books.billed.values()) == {1}


# The stream


def test_a_stream_yields_what_the_task_yields(sandbox, tmp_path):
    """In the order of the rows, with all their columns, in jobs of five."""
    assert without_time(streamed(tmp_path)) == synchronous(tmp_path)
    bought_once(sandbox)


def test_rows_flow_before_the_last_job_has_ended(sandbox, tmp_path):
    """The step behind it has worked on the first rows while later jobs run: the server's books say when those ended."""
    sandbox.configure(in_progress_seconds=1.0)
    llm = {"max_jobs": 2}
    rows = through(lambda: StreamBatchResults(task=generation(**llm), data=ROWS, batch_size=3), tmp_path)
    last_ended = max(interval.end for interval in sandbox.books().intervals)
    assert min(row["seen_at"] for row in rows) < last_ended
    assert [row["id"] for row in rows] == IDS


def test_without_an_order_each_row_comes_once(sandbox, tmp_path):
    """In the first run, and in one that takes all from the ledger."""
    first = streamed(tmp_path, ordered=False)
    again = streamed(tmp_path, ordered=False)
    assert sorted(row["id"] for row in first) == sorted(row["id"] for row in again) == IDS
    bought_once(sandbox)


def test_an_output_file_that_grows_is_taken_as_it_grows(sandbox, tmp_path):
    """One job, whose first rows are downstream before it has ended."""
    sandbox.configure(in_progress_seconds=4.0, growing_output=True, shuffle=False)
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.1, max_poll_interval=0.2)
    rows = through(lambda: StreamBatchResults(task=generation(llm), data=ROWS, batch_size=3), tmp_path)
    [interval] = sandbox.books().intervals
    assert min(row["seen_at"] for row in rows) < interval.end
    assert [row["id"] for row in rows] == IDS
    bought_once(sandbox, jobs=1)


def test_a_failed_request_is_its_rows_none(sandbox, tmp_path):
    """In a stream as anywhere."""
    sandbox.configure(failures=[FAILS])
    assert [row["id"] for row in streamed(tmp_path) if row["generation"] is None] == [7]


def test_what_concerns_the_run_is_raised_by_a_stream(sandbox, tmp_path):
    """As by any Task."""
    sandbox.configure(api_keys=["another"])
    with pytest.raises(AuthenticationError):
        streamed(tmp_path)


def test_jobs_are_made_in_the_order_of_the_rows(sandbox):
    """So the first rows are there first, where few jobs are in flight."""
    questions = [f"Question {number}." for number in range(24)]
    llm = OpenAIBatchLLM(model="gpt-4o-mini", max_requests_per_job=2, max_jobs=1, min_poll_interval=0.02)
    stream = StreamBatchResults(task=generation(llm), data=[{"instruction": it} for it in questions])
    stream.load()
    assert [row["instruction"] for batch, _ in stream.process() for row in batch] == questions

    client = openai.OpenAI()
    asked = [
        json.loads(line)["body"]["messages"][-1]["content"]
        for batch in reversed(client.batches.list(limit=100).data)
        for line in client.files.content(batch.input_file_id).iter_lines()
    ]
    assert asked == questions


def test_a_stream_outside_a_pipeline(sandbox):
    """It is a step that can be called; offsets leave rows out."""
    stream = StreamBatchResults(task=generation(), data=ROWS, batch_size=10)
    stream.load()
    batches = list(stream.process(offset=5))
    stream.unload()
    assert [[row["id"] for row in rows] for rows, _ in batches] == [IDS[5:15], IDS[15:]]
    assert [last for _, last in batches] == [False, True]


def test_a_dry_run_asks_for_one_batch(sandbox, tmp_path):
    """Not for all rows, and not in a job."""
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(name="stream", task=generation(), data=ROWS) >> Clock()
    assert len(pipeline.dry_run(batch_size=2)["default"]["train"]) == 2
    assert (sandbox.books().sync, sandbox.books().batches) == (2, [])


def test_a_dry_run_of_a_loader_asks_for_one_batch(sandbox, tmp_path):
    """`resubmit=True` would ask for all rows again, at full price."""
    sandbox.configure(failures=[RequestFailure(contains="Say number", endpoint="batch", status=500)])
    asking_once = partial(generation, max_attempts=1)
    submitted(task=asking_once)
    loaded(task=asking_once)
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(name="load", task=asking_once(), run_name="numbers", resubmit=True) >> Clock()

    assert len(pipeline.dry_run(batch_size=2)["default"]["train"]) == 2

    assert sandbox.books().sync == 2


def test_a_dry_run_of_a_loader_has_the_rows_of_the_batches_that_were_named(sandbox, tmp_path):
    """Not those of the first rows that happen to be among them."""
    jobs = submitted()
    sandbox.settle()
    last = [job["batch_id"] for job in jobs if job["requests"] == 3]
    with Pipeline(name="dry", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(name="load", task=generation(), batch_ids=last) >> Clock()
    assert pipeline.dry_run(batch_size=2)["default"]["train"]["id"][:] == IDS[-3:-1]


@pytest.mark.parametrize("ledger", ["the same", "another"])
def test_a_dry_run_of_a_submission_leaves_the_rows_of_the_real_one(sandbox, tmp_path, monkeypatch, ledger):
    """On its machine, and on another one."""
    jobs = submitting(tmp_path)
    sandbox.settle()
    if ledger == "another":
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / ledger))
    with Pipeline(name="submitting", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(name="rows", data=[{"instruction": "Say number 99.", "id": 99}, *ROWS]) >> SubmitBatch(
            task=generation(), run_name="numbers"
        )
    pipeline.dry_run(batch_size=2)

    assert len(sandbox.books().batches) == len(jobs) + 1
    assert [row["id"] for row in loaded()] == IDS
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "a third"))
    assert [row["id"] for row in loaded()] == IDS


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_come_from_files(sandbox, tmp_path, suffix):
    """Of each kind, and from a dataset."""
    path = tmp_path / f"rows.{suffix}"
    dataset = Dataset.from_list(ROWS)
    {"jsonl": dataset.to_json, "csv": dataset.to_csv, "parquet": dataset.to_parquet}[suffix](str(path))
    for data in (str(path), dataset):
        stream = StreamBatchResults(task=generation(), data=data, batch_size=50)
        stream.load()
        [(rows, last)] = stream.process()
        stream.unload()
        assert [row["id"] for row in rows] == IDS
        assert last


def test_rows_come_from_the_hub(tmp_path):
    """By a dataset's id. The Hub's address is read when `datasets` is imported, so a process of its own asks it."""
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    program = (
        "import json; from distilabel_openai_batch.plugin.row_sources import load_rows;"
        " print(json.dumps(load_rows('me/rows')[:]))"
    )
    with hub_with("me/rows", "rows.jsonl", lines) as address:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        told = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    assert json.loads(told.stdout)["id"] == IDS


def test_a_stream_is_written_to_yaml_and_read_again(sandbox, tmp_path):
    """With its Task and its LLM, and without the key; the Task is no step of its own."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    with Pipeline(name="yaml", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(name="stream", task=generation(), data=str(tmp_path / "rows.jsonl")) >> KeepColumns(
            columns=["id", "generation"]
        )
    assert len(list(pipeline.dag.G)) == 2
    pipeline.save(tmp_path / "pipeline.yaml", format="yaml")
    assert API_KEY not in (tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
    read = Pipeline.from_yaml(tmp_path / "pipeline.yaml")
    assert read.dag.get_step("stream")["step"].task.llm.max_requests_per_job == 5
    assert len(run(read)) == len(ROWS)


def test_other_rows_are_another_signature():
    """distilabel's cache is not believed for them."""
    each = (ROWS, ROWS[1:], Dataset.from_list(ROWS))
    made = [StreamBatchResults(name="s", task=generation(), data=data) for data in each]
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
def test_batches_are_of_one_size(sizes, offset, expected):
    """All but the last, which is said to be the last."""
    found = split_into_batches(iter([[{}] * size for size in sizes]), 3, offset)
    assert [(len(rows), last) for rows, last in found] == expected


# Mistakes


@pytest.mark.parametrize("made", [StreamBatchResults, SubmitBatch, LoadBatchResults])
def test_the_task_has_to_hold_an_openai_batch_llm(made):
    """The error says what to write instead."""
    with pytest.raises(ValidationError, match=r"TextGeneration\(llm=OpenAIBatchLLM\(model=…\)\)"):
        made(task=generation(OpenAILLM(model="gpt-4o-mini")))
    with pytest.raises(ValidationError, match="makes its own rows"):
        made(task=EmbeddingTaskGenerator(category="text-retrieval", llm=OpenAIBatchLLM(model="gpt-4o-mini")))


def test_a_missing_column_is_found_before_anything_is_bought(sandbox, tmp_path):
    """When the pipeline is built up, with a mapping that would mend it."""
    with pytest.raises(DistilabelUserError, match=r"input_mappings={'instruction': 'question'}"):
        streamed(tmp_path, data=[{"question": "Why?"}])
    with pytest.raises(ValueError, match="'instruction'"):
        submitting(tmp_path, rows=[{"question": "Why?"}])
    assert not sandbox.books().batches


@pytest.mark.parametrize("data", [[], None, "nothing-there.jsonl"])
def test_no_rows_are_an_error(sandbox, tmp_path, data):
    """Rather than a pipeline that waits for some."""
    with pytest.raises(DistilabelUserError, match=r"has no rows|no such file"):
        streamed(tmp_path, data=data)


def test_a_loader_is_told_what_to_load(sandbox, tmp_path):
    """By one of two fields."""
    with pytest.raises(ValidationError, match="not both"):
        LoadBatchResults(task=generation(), run_name="numbers", batch_ids=["batch_1"])
    with pytest.raises(DistilabelUserError, match="Pass `run_name=…`"):
        loading(tmp_path, run_name=None)
    with pytest.raises(ValidationError, match="empty"):
        LoadBatchResults(task=generation(), batch_ids=[])
    with pytest.raises(RunError, match="neither in the ledger nor on the server"):
        loading(tmp_path, run_name="never-submitted")
    with pytest.raises(RunError, match="does not know batch batch_none"):
        loading(tmp_path, batch_ids=["batch_none"])


def scopes() -> list[str]:
    """The names that the ledger has, as the command line shows them."""
    return [scope.name.pipeline for scope in LedgerReader(ledger_directory()).scopes()]


def test_a_mistyped_run_is_told_the_names_that_there_are(sandbox, monkeypatch, tmp_path):
    """The nearest ones, from the ledger or from the server; and nothing of it is left in the ledger."""
    submitted()
    with pytest.raises(RunError, match=r"'nubmers' .*There is 'numbers'\."):
        loaded(run_name="nubmers")
    assert scopes() == ["numbers"]

    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "another machine's"))
    with pytest.raises(RunError, match=r"There is 'numbers'\."):
        loaded(run_name="nubmers")
    assert scopes() == []


def test_a_run_that_was_submitted_to_another_server_says_which(sandbox):
    """A rehearsal against the sandbox, loaded from the real one."""
    submitted()
    with Sandbox() as other, pytest.raises(RunError, match=f"It was submitted to {sandbox.base_url}"):
        loaded(lambda: generation(base_url=other.base_url), run_name="numbers")


def dated(**fields) -> TextGeneration:
    """A Task whose prompt shows a value that need not be text."""
    return TextGeneration(
        name="generate",
        llm=OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05),
        template="What of {{ when }}?",
        columns=["when"],
        **fields,
    )


@pytest.mark.parametrize("value", [datetime(1969, 7, 20), float("nan"), (1, 2), [{"at": (1,)}], {1: 2}, {1, 2}])
def test_a_row_that_json_would_change_is_refused_before_anything_is_submitted(sandbox, value):
    """It would be loaded as another question; with `resubmit=True` all would be bought again."""
    with pytest.raises(RunError, match=r"the column 'when'.* Turn the column into text"):
        submitted([{"when": "today"}, {"when": value}], task=dated)
    assert not sandbox.calls()
    with pytest.raises(LedgerError, match="There is no ledger"):
        scopes()


def test_a_pipeline_says_which_column_json_would_change(sandbox, tmp_path):
    """As an error, in each run; a column under another name is told by the Task's."""
    with Pipeline(name="changing", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=[{"date": datetime(1969, 7, 20)}])
        load >> SubmitBatch(name="submit", task=dated(input_mappings={"when": "date"}), run_name="dates")
    for _ in range(2):
        with pytest.raises(RunError, match=r"'submit' keeps its rows as JSON.*the column 'date'"):
            pipeline.run(use_cache=True)


def test_what_the_task_does_not_need_may_be_changed_by_json(sandbox):
    """A date beside the question comes back as text."""
    submitted([{"when": [1.0, None, "é", True, {"a": 2}], "date": datetime(1969, 7, 20)}], task=dated)
    [row] = loaded(task=dated)
    assert (row["date"], row["batch_failure"]) == ("1969-07-20T00:00:00", None)
    with pytest.raises(RunError, match="cannot hold the column 'odd'"):
        submitted([{"when": "today", "odd": object()}], task=dated)


# Submit, and load


def test_what_is_submitted_is_loaded_later(sandbox, tmp_path):
    """A row for each job; then the original rows with the Task's columns, bought once."""
    sandbox.configure(in_progress_seconds=0.5)
    jobs = submitting(tmp_path)
    assert sorted(job["requests"] for job in jobs) == [3, 5, 5, 5, 5]
    assert {job["run_name"] for job in jobs} == {"numbers"}
    assert all(job["bytes"] > 500 and job["base_url"].startswith(sandbox.base_url) for job in jobs)
    assert {job["batch_id"] for job in jobs} == {batch["id"] for batch in sandbox.books().batches}

    rows = without_time(loading(tmp_path))
    assert {row.pop("batch_failure") for row in rows} == {None}
    assert rows == synchronous(tmp_path)
    bought_once(sandbox)


def test_submitting_while_some_jobs_have_ended(sandbox):
    """What was answered is taken, the rest is left under way."""
    sandbox.configure(in_progress_seconds=600.0)
    sandbox.add_fault(BatchFault(kind="expire", value=5))
    submitted()
    assert {job["status"] for job in submitted()} == {"expired", "validating"}
    sandbox.configure(in_progress_seconds=0.0)
    bought_once(sandbox)


def test_submitting_again_buys_nothing(sandbox):
    """It tells of the same jobs."""
    assert [job["batch_id"] for job in submitted()] == [job["batch_id"] for job in submitted()]
    bought_once(sandbox)


def test_another_machine_loads_from_the_server_alone(sandbox, tmp_path, monkeypatch):
    """By the run's name or by the ids of its jobs, also while they run."""
    sandbox.configure(in_progress_seconds=1.0)
    jobs = submitted()
    for number, fields in enumerate([{"run_name": "numbers"}, {"batch_ids": [job["batch_id"] for job in jobs]}]):
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / f"machine-{number}"))
        rows = loaded(**fields)
        assert [row["id"] for row in rows] == IDS
        assert all(row["generation"] and row["batch_failure"] is None for row in rows)
    bought_once(sandbox)


def test_some_jobs_are_some_rows(sandbox, tmp_path, monkeypatch):
    """With the ledger, and without."""
    submitted()
    batches = [batch for batch in sandbox.books().batches if batch["request_counts"]["total"] == 5][1:3]
    for ledger in (os.environ["DISTILABEL_OPENAI_BATCH_DIR"], str(tmp_path / "another")):
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", ledger)
        rows = loaded(batch_ids=[batch["id"] for batch in batches])
        assert {row["id"] // 5 for row in rows} < {0, 1, 2, 3}
        assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
        assert len(rows) == 10
    bought_once(sandbox)


def test_a_row_without_an_answer_says_why(sandbox):
    """And is asked again only where that is wanted."""
    sandbox.configure(failures=[FAILS])
    submitted()
    rows = loaded()
    assert [(row["id"], row["generation"]) for row in rows if row["batch_failure"]] == [(7, None)]
    assert "It is the seventh." in rows[7]["batch_failure"]
    assert len(sandbox.books().batches) == 5

    sandbox.configure(failures=[])
    rows = loaded(run_name="numbers", resubmit=True)
    assert [row["id"] for row in rows if row["generation"] is None] == []
    bought_once(sandbox, jobs=6)


def test_loading_with_another_model_is_an_error(sandbox):
    """None of its requests was submitted: to advise that they be submitted again would be to have all bought twice."""
    submitted()
    before = len(sandbox.books().batches)

    with pytest.raises(RequestsFailedError, match="what was submitted is another Task, model or parameter"):
        loaded(lambda: generation(OpenAIBatchLLM(model="gpt-4o", min_poll_interval=0.02)))

    assert len(sandbox.books().batches) == before


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (BatchFault(kind="expire", value=2), "could not be executed"),
        (BatchFault(kind="fail"), "The sandbox was told to fail this batch."),
    ],
)
def test_jobs_that_came_to_nothing_are_asked_again_on_demand(sandbox, fault, reason):
    """Their rows are `None` and say why; those of the other jobs are there."""
    sandbox.add_fault(fault)
    submitted()
    without = [row for row in loaded() if row["generation"] is None]
    assert len(without) == (3 if fault.kind == "expire" else 5)
    assert all(reason in row["batch_failure"] for row in without)

    rows = loaded(run_name="numbers", resubmit=True)
    assert [row["id"] for row in rows] == IDS
    assert all(row["generation"] for row in rows)
    bought_once(sandbox, jobs=6)


def test_some_jobs_are_asked_again_on_demand(sandbox, tmp_path, monkeypatch):
    """Their requests and no others, once; the rows are theirs ever after, here and on another machine."""
    for _ in range(2):
        sandbox.add_fault(BatchFault(kind="expire", value=2))
    submitted()
    sandbox.settle()
    chosen = [batch["id"] for batch in sandbox.books().batches if batch["status"] == "expired"][:1]
    rows = loaded(batch_ids=chosen)
    assert [row["generation"] is None for row in rows].count(True) == 3

    for ledger in (os.environ["DISTILABEL_OPENAI_BATCH_DIR"], str(tmp_path / "another")):
        monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", ledger)
        again = loaded(batch_ids=chosen, resubmit=True)
        assert [row["id"] for row in again] == [row["id"] for row in rows]
        assert all(row["generation"] for row in again)
        assert len(sandbox.books().batches) == 6
    assert len(sandbox.books().billed) == len(ROWS) - 3


@pytest.mark.parametrize("by_name", [True, False])
def test_another_machine_is_told_of_a_failed_job(sandbox, tmp_path, monkeypatch, by_name):
    """Its input file says whose rows it would have answered, its errors why it did not."""
    sandbox.add_fault(BatchFault(kind="fail"))
    jobs = submitted()
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "another"))
    rows = loaded(**({"run_name": "numbers"} if by_name else {"batch_ids": [job["batch_id"] for job in jobs]}))
    assert [row["id"] for row in rows] == IDS
    reasons = [row["batch_failure"] for row in rows if row["generation"] is None]
    assert len(reasons) == 5
    assert all("The sandbox was told to fail this batch." in reason for reason in reasons)


def test_two_generations_are_two_rows(sandbox):
    """Each with its own reason."""
    sandbox.configure(failures=[FAILS])

    def two():
        task = generation()
        task.num_generations = 2
        return task

    submitted(task=two)
    rows = loaded(task=two)
    assert [row["id"] for row in rows] == [id for id in IDS for _ in range(2)]
    assert [row["id"] for row in rows if row["batch_failure"]] == [7, 7]


@pytest.mark.parametrize("add_failures", [False, True])
def test_a_refusal_says_why(sandbox, add_failures):
    """It is an answer of the API's, and none of the row's; `add_failures` has it in its own column besides."""
    sandbox.add_fault(ResultFault(kind="refuse", contains="Say number 7.", times=-1))
    task = partial(generation, add_failures=add_failures)
    submitted(task=task)

    rows = loaded(task=task)

    assert [(row["id"], row["generation"]) for row in rows if row["batch_failure"]] == [(7, None)]
    assert rows[7]["batch_failure"].startswith("The model refused: ")
    assert rows[7]["batch_failure"].endswith("(refusal)")
    assert {"failure_generate" in row for row in rows} == {add_failures}
    assert not add_failures or rows[7]["failure_generate"]["code"] == "refusal"


def test_a_row_that_is_lost_with_its_group_says_why(sandbox):
    """It has no answer, though its own request has one."""
    sandbox.configure(failures=[FAILS])

    def evolving():
        llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
        return EvolInstruct(name="evolve", llm=llm, num_evolutions=1, input_batch_size=4)

    submitted(task=evolving)
    rows = loaded(task=evolving)

    assert [row["id"] for row in rows if row["evolved_instruction"] is None] == [4, 5, 6, 7]
    assert [row["id"] for row in rows if row["batch_failure"]] == [4, 5, 6, 7]
    assert "It is the seventh. (400, " in rows[7]["batch_failure"]
    assert rows[6]["batch_failure"].startswith("The row was lost with its row group")


def test_of_two_generations_the_one_that_fits_says_nothing(sandbox):
    """It is there; the other one was rejected."""
    quoting = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^“"}}, "required": ["name"]}

    def two():
        task = generation(structured_output={"schema": quoting, "max_retries": 0})
        task.num_generations = 2
        return task

    submitted(task=two)
    rows = loaded(task=two)

    missing = [row["generation"] is None for row in rows]
    assert {(False, True), (True, False)} & set(zip(missing[::2], missing[1::2], strict=True))
    assert [row["batch_failure"] is not None for row in rows] == missing


def test_a_judges_results_are_loaded(sandbox):
    """A Task with several input columns, lists among them."""

    def judge():
        return UltraFeedback(llm=OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05))

    rows = [{"instruction": f"Say {i}.", "generations": ["a", "b"], "id": i} for i in range(5)]
    submitted(rows, task=judge)
    found = loaded(task=judge)
    assert [row["id"] for row in found] == list(range(5))
    assert all(len(row["ratings"]) == 2 for row in found)


def test_a_task_of_several_rounds_is_submitted_round_by_round(sandbox):
    """Each submission gets one round further; what a Task draws at random is the same each time."""

    def evolving():
        llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
        return EvolInstruct(name="evolve", llm=llm, num_evolutions=2, input_batch_size=4)

    for round_ in (1, 2, 2):
        submitted(task=evolving)
        sandbox.settle()
        assert len(sandbox.books().batches) == round_
    rows = loaded(task=evolving)
    assert [row["id"] for row in rows] == IDS
    assert all(row["evolved_instruction"] for row in rows)
    assert len(sandbox.books().billed) == 2 * len(ROWS)
    assert set(sandbox.books().billed.values()) == {1}


def looks(sandbox) -> int:
    """How often somebody looked at a batch."""
    return sum(call.name in ("batches.list", "batches.retrieve") for call in sandbox.calls())


@pytest.mark.parametrize("use_cache", [True, False])
def test_an_interrupted_loader_misses_no_row_and_doubles_none(sandbox, tmp_path, use_cache):
    """It starts over: with distilabel's cache and without."""
    sandbox.configure(in_progress_seconds=600.0)
    submitting(tmp_path)
    looks_before = looks(sandbox)

    def interrupt() -> None:
        while looks(sandbox) == looks_before:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    def load() -> None:
        threading.Thread(target=interrupt, daemon=True).start()
        loading(tmp_path, use_cache=use_cache)

    # A wind-up that takes too long ends the process.
    loader = multiprocessing.get_context("fork").Process(target=load)
    loader.start()
    loader.join()
    assert loader.exitcode
    sandbox.configure(in_progress_seconds=0.0)
    assert [row["id"] for row in loading(tmp_path, use_cache=use_cache)] == IDS
    bought_once(sandbox)
