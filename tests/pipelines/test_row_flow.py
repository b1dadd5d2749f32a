"""Tests of rows that flow: rows go on when their job has ended, in few jobs, with work in proportion to the rows."""

# No `from __future__ import annotations`: distilabel looks for `StepInput` in a function's annotations themselves.

import hashlib
import inspect
import time

import pytest
from distilabel.pipeline import Pipeline
from distilabel.pipeline import batch as distilabel_batch
from distilabel.pipeline.write_buffer import _WriteBuffer
from distilabel.steps import GlobalStep, KeepColumns, LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import EvolInstruct, TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.engine import session_pool
from distilabel_openai_batch.errors import InternalError
from distilabel_openai_batch.hooks.row_flow import RowFlow
from distilabel_openai_batch.sandbox import RequestFailure

GROUP = 5


@step(inputs=["generation"], outputs=["seen_at"])
def Clock(inputs: StepInput):
    """Add the time at which a row arrives."""
    yield [row | {"seen_at": time.time()} for row in inputs]


class CollectAll(GlobalStep):
    """A global step, which returns all rows in one batch."""

    def process(self, inputs: StepInput):
        yield inputs


def llm(**fields) -> OpenAIBatchLLM:
    return OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.05, **fields})


def task(name: str, reads: str = "instruction", llm_fields=None, **fields) -> TextGeneration:
    return TextGeneration(
        name=name,
        llm=llm(**llm_fields or {}),
        input_batch_size=GROUP,
        input_mappings={"instruction": reads} if reads != "instruction" else {},
        **fields,
    )


def loader(rows: int) -> LoadDataFromDicts:
    return LoadDataFromDicts(data=[{"instruction": f"Say number {i}.", "id": i} for i in range(rows)], batch_size=GROUP)


def run(pipeline: Pipeline, use_cache=False) -> list[dict]:
    return pipeline.run(use_cache=use_cache)["default"]["train"].to_list()


def second_task(name="two") -> TextGeneration:
    return task(name, reads="generation", output_mappings={"generation": "answer", "model_name": "answered_by"})


def test_rows_reach_the_next_step_before_the_last_job_ends(sandbox, tmp_path):
    """Four jobs run one after another; rows keep their order."""
    sandbox.configure(in_progress_seconds=0.5)
    with Pipeline(name="early", cache_dir=tmp_path) as pipeline:
        generate = task("generate", llm_fields={"max_requests_per_job": GROUP, "max_jobs": 1})
        loader(20) >> generate >> Clock(name="clock", input_batch_size=GROUP)
    rows = run(pipeline)
    ends = sorted(interval.end for interval in sandbox.books().intervals)
    assert len(ends) == 4
    assert min(row["seen_at"] for row in rows) < ends[1]
    assert [row["id"] for row in rows] == list(range(20))


def test_a_task_behind_a_task_submits_the_rows_of_each_job_while_others_run(sandbox, tmp_path):
    """The first Task has four jobs, so the second has at most four, and begins before the first has ended."""
    sandbox.configure(in_progress_seconds=0.6)
    with Pipeline(name="chain", cache_dir=tmp_path) as pipeline:
        one = task("one", llm_fields={"max_requests_per_job": GROUP, "max_jobs": 1})
        loader(20) >> one >> KeepColumns(columns=["id", "generation"], input_batch_size=GROUP) >> second_task()
    rows = run(pipeline)
    assert [row["id"] for row in rows] == list(range(20))
    assert all(row["answer"] for row in rows)
    books = sandbox.books()
    sizes = [len(batch["custom_ids"]) for batch in books.batches]
    assert sum(sizes) == 40
    assert all(size % GROUP == 0 for size in sizes)
    assert len(sizes) <= 8
    assert books.max_jobs_in_flight >= 2, "the second Task waited for the end of the first"


@pytest.mark.parametrize("between", [KeepColumns, CollectAll], ids=lambda step: step.__name__)
def test_rows_that_arrive_together_make_one_job(sandbox, tmp_path, between):
    """Each of two Tasks in a row has one job for forty batches, whichever step is between them."""
    with Pipeline(name="together", cache_dir=tmp_path) as pipeline:
        if between is KeepColumns:
            middle = KeepColumns(columns=["id", "generation"], input_batch_size=7)
        else:
            middle = CollectAll()
        loader(200) >> task("one") >> middle >> second_task()
    rows = run(pipeline)
    assert [row["id"] for row in rows] == list(range(200))
    assert all(row["answer"] for row in rows)
    assert [len(batch["custom_ids"]) for batch in sandbox.books().batches] == [200, 200]


def test_each_round_of_calls_is_one_job(sandbox, tmp_path):
    with Pipeline(name="rounds", cache_dir=tmp_path) as pipeline:
        loader(40) >> EvolInstruct(name="evolve", llm=llm(), num_evolutions=2, input_batch_size=GROUP)
    rows = run(pipeline)
    assert all(row["evolved_instruction"] for row in rows)
    assert [len(batch["custom_ids"]) for batch in sandbox.books().batches] == [40, 40]


def test_rows_keep_their_order_when_the_first_are_answered_last(sandbox, tmp_path):
    """The first rows fail at first, and go into a job of their own behind the others."""
    sandbox.configure(
        in_progress_seconds=0.2,
        failures=[RequestFailure(contains="number 0.", status=500, times=2, code="server_error")],
    )
    with Pipeline(name="order", cache_dir=tmp_path) as pipeline:
        generate = task("generate", llm_fields={"max_requests_per_job": GROUP})
        loader(20) >> generate >> Clock(name="clock", input_batch_size=GROUP)
    rows = run(pipeline)
    assert [row["id"] for row in rows] == list(range(20))
    assert all(row["generation"] for row in rows)


def test_the_number_of_rows_in_progress_is_limited(sandbox, tmp_path, monkeypatch):
    """A Task holds the rows that keep its jobs busy; the loader makes others when rows have gone on."""
    held = []
    original = RowFlow.add_received

    def add_received(flow, batch):
        original(flow, batch)
        held.append(flow._states["generate"].rows_in_progress)

    monkeypatch.setattr(RowFlow, "add_received", add_received)
    with Pipeline(name="limited", cache_dir=tmp_path) as pipeline:
        generate = task("generate", llm_fields={"max_requests_per_job": 2 * GROUP, "max_jobs": 2})
        loader(200) >> generate
    rows = run(pipeline)
    assert [row["id"] for row in rows] == list(range(200))
    assert GROUP < max(held) <= 5 * GROUP


class Work:
    """The work of a pipeline's process that must not grow with the rows.

    Attributes:
        dumps: number of dumps of pipelines and steps.
        signatures: number of calls of `inspect.signature`.
        hashed: bytes hashed.
    """

    def __init__(self, monkeypatch) -> None:
        self.dumps = self.signatures = self.hashed = 0
        signature, sha1, dump = inspect.signature, hashlib.sha1, Pipeline.dump

        def count_signature(*arguments, **options):
            self.signatures += 1
            return signature(*arguments, **options)

        class CountingHash:
            @staticmethod
            def sha1(data=b"", **options):
                self.hashed += len(data)
                return sha1(data, **options)

        def count_dump(pipeline, **options):
            self.dumps += 1
            return dump(pipeline, **options)

        monkeypatch.setattr(inspect, "signature", count_signature)
        monkeypatch.setattr(distilabel_batch, "hashlib", CountingHash)
        monkeypatch.setattr(Pipeline, "dump", count_dump)


def test_work_besides_the_rows_does_not_grow_with_the_rows(sandbox, tmp_path, monkeypatch):
    """distilabel hashes the remaining rows, and dumps the pipeline, for each batch."""
    work = []
    # The first run of a process fills caches.
    for rows in (5, 50, 400):
        with monkeypatch.context() as patched:
            counted = Work(patched)
            with Pipeline(name=f"work-{rows}", cache_dir=tmp_path) as pipeline:
                loader(rows) >> task("generate") >> KeepColumns(columns=["id"], input_batch_size=GROUP)
            run(pipeline)
            work.append((counted.dumps, counted.signatures, counted.hashed))
    assert work[1] == work[2]
    assert work[1][2] == 0


def fail_with_a_full_disk(*arguments):
    raise OSError(28, "No space left on device")


def test_an_unexpected_error_of_a_step_is_raised_and_the_next_run_is_complete(sandbox, tmp_path, monkeypatch):
    """The disk of the step's process is full when its session opens. No empty dataset is cached."""

    def build() -> Pipeline:
        with Pipeline(name="unexpected", cache_dir=tmp_path) as pipeline:
            loader(10) >> task("generate") >> KeepColumns(columns=["id", "generation"])
        return pipeline

    with monkeypatch.context() as patched:
        patched.setattr(session_pool, "BodyStore", fail_with_a_full_disk)
        with pytest.raises(InternalError, match="No space left on device"):
            run(build(), use_cache=True)
    rows = run(build(), use_cache=True)
    assert [row["id"] for row in rows] == list(range(10))
    assert all(row["generation"] for row in rows)


def test_an_error_of_the_pipelines_process_is_raised(sandbox, tmp_path, monkeypatch):
    """distilabel would return the rows so far as if they were all."""

    monkeypatch.setattr(_WriteBuffer, "add_batch", fail_with_a_full_disk)
    with Pipeline(name="full", cache_dir=tmp_path) as pipeline:
        loader(10) >> task("generate")
    with pytest.raises(InternalError, match="No space left on device"):
        run(pipeline)
