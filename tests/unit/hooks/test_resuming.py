"""Tests of the state that a run of a pipeline begins with, and leaves; whole runs are in `tests/pipelines`."""

from __future__ import annotations

import signal
from datetime import date

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline, routing_batch_function
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager
from distilabel.steps import KeepColumns, LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks import stopping
from distilabel_openai_batch.hooks.resuming import _COMPLETE, _execution_directory
from distilabel_openai_batch.hooks.row_storage import rows_directory

ROWS = [{"instruction": "Say it.", "day": date(1969, 7, 20)}] * 4


def llm_of(llm_class=OpenAIBatchLLM):
    return llm_class(model="gpt-4o-mini", api_key="sk-unused")


def pipeline_of(cache_dir, llm=None, **load) -> Pipeline:
    """A generator, a Task, and an ordinary step."""
    with Pipeline(name="resumed", cache_dir=cache_dir) as pipeline:
        load = LoadDataFromDicts(name="load", data=ROWS, batch_size=2, **load)
        load >> TextGeneration(name="generate", llm=llm or llm_of()) >> KeepColumns(name="keep", columns=["generation"])
    pipeline.dag.validate()
    return pipeline


@pytest.fixture(autouse=True)
def running_pipelines():
    """The running pipelines of this process: none when the test ends."""
    yield stopping.running_pipelines
    stopping.running_pipelines.clear()


def begin(pipeline: Pipeline, use_cache=True) -> Pipeline:
    """Load the state that a run begins with."""
    pipeline._load_batch_manager(use_cache)
    return pipeline


def store(pipeline: Pipeline, step_name: str, *batches: list[dict], complete=True) -> None:
    """Cache a step's output batches as a run does."""
    for seq_no, rows in enumerate(batches):
        batch = _Batch(seq_no, step_name, last_batch=complete and seq_no == len(batches) - 1)
        batch.set_data([rows])
        pipeline._batch_manager.write_batch_data(batch, pipeline._cache_location["steps_data"])


def test_a_run_begins_behind_the_completed_steps(tmp_path):
    """The Task gets the cached rows of the generator, with their types, and the generator makes none again."""
    earlier = begin(pipeline_of(tmp_path))
    store(earlier, "load", ROWS[:2], ROWS[2:])

    manager = begin(pipeline_of(tmp_path))._batch_manager

    assert manager._last_batch_received["load"].seq_no == 1
    assert manager._last_batch_received["generate"] is None
    assert manager._last_batch_flag_sent_to == ["load"]
    batches = manager._steps["generate"].data["load"]
    assert [row for batch in batches for row in batch.data[0]] == ROWS


def test_a_step_without_its_last_batch_is_repeated(tmp_path):
    """The cached batches are deleted, so that the new run does not mix old and new rows."""
    earlier = begin(pipeline_of(tmp_path))
    store(earlier, "load", ROWS[:2], complete=False)
    directory = earlier._cache_location["steps_data"] / earlier._batch_manager._steps["load"].signature
    assert list(directory.glob("batch_*.json"))
    assert list(rows_directory(directory).iterdir())

    manager = begin(pipeline_of(tmp_path))._batch_manager

    assert manager._last_batch_received["load"] is None
    assert not directory.exists()
    assert not rows_directory(directory).exists()


def test_a_step_behind_an_incomplete_step_is_repeated(tmp_path):
    earlier = begin(pipeline_of(tmp_path))
    store(earlier, "load", ROWS)
    store(earlier, "keep", [{"generation": "It."}] * 4)

    manager = begin(pipeline_of(tmp_path))._batch_manager

    assert manager._last_batch_flag_sent_to == ["load"]


def test_a_step_that_refuses_the_cache_is_repeated(tmp_path):
    store(begin(pipeline_of(tmp_path, use_cache=False)), "load", ROWS)
    assert begin(pipeline_of(tmp_path, use_cache=False))._batch_manager._last_batch_flag_sent_to == []


@routing_batch_function()
def first_step(steps):
    return steps[:1]


def test_routed_steps_are_repeated(tmp_path):
    """A cached batch does not say where the batch was routed to."""

    def routed() -> Pipeline:
        with Pipeline(name="routed", cache_dir=tmp_path) as pipeline:
            load = LoadDataFromDicts(name="load", data=ROWS)
            load >> first_step >> [TextGeneration(name=name, llm=llm_of()) for name in ("one", "two")]
        pipeline.dag.validate()
        return pipeline

    store(begin(routed()), "load", ROWS)
    assert begin(routed())._batch_manager._last_batch_flag_sent_to == []


def test_a_complete_dataset_is_left_to_distilabels_cache(tmp_path, monkeypatch):
    pipeline = pipeline_of(tmp_path)
    _execution_directory(pipeline).mkdir(parents=True)
    (_execution_directory(pipeline) / _COMPLETE).touch()
    monkeypatch.setattr(_BatchManager, "can_generate", lambda self: False)
    begin(pipeline)
    assert (_execution_directory(pipeline) / _COMPLETE).exists()
    assert pipeline not in stopping.running_pipelines


@pytest.mark.parametrize("llm_class", [OpenAILLM, OpenAIBatchLLM])
def test_only_a_pipeline_with_a_client_counts_as_running(tmp_path, running_pipelines, llm_class):
    pipeline = begin(pipeline_of(tmp_path, llm_of(llm_class)))
    assert (pipeline in running_pipelines) is (llm_class is OpenAIBatchLLM)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_run_that_begins_is_not_complete(tmp_path, use_cache):
    """Distilabel's cache would return the old dataset if the new run died."""
    pipeline = pipeline_of(tmp_path)
    _execution_directory(pipeline).mkdir(parents=True)
    (_execution_directory(pipeline) / _COMPLETE).touch()
    begin(pipeline, use_cache)
    assert not (_execution_directory(pipeline) / _COMPLETE).exists()


@pytest.mark.parametrize("outcome", ["complete", "stopped", "interrupted", "failed", "dry run", "unfinished"])
def test_teardown_marks_only_a_complete_dataset(tmp_path, monkeypatch, running_pipelines, outcome):
    """The signal handlers are restored in any case."""
    pipeline = begin(pipeline_of(tmp_path))
    pipeline._openai_batch_handlers = {signal.SIGTERM: signal.SIG_DFL}
    pipeline._openai_batch_stop = object() if outcome in ("stopped", "interrupted") else None
    pipeline._openai_batch_signal = signal.SIGINT if outcome == "interrupted" else None
    pipeline._exception = RuntimeError("Failed to load.") if outcome in ("stopped", "failed") else None
    pipeline._dry_run = outcome == "dry run"
    pipeline._pool = None
    monkeypatch.setattr("distilabel_openai_batch.hooks.resuming.terminate_pool", lambda pipeline: None)
    monkeypatch.setattr(_BatchManager, "can_generate", lambda self: outcome == "unfinished")
    monkeypatch.setattr(Pipeline, "_stop_load_queue_loop", lambda self: None)
    pipeline._load_steps_thread = type("Thread", (), {"join": lambda self: None})()
    pipeline._manager = None
    _execution_directory(pipeline).mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    pipeline._teardown()

    assert (_execution_directory(pipeline) / _COMPLETE).exists() is (outcome == "complete")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert pipeline not in running_pipelines
    # Steps that were stopped while loading are no failure of the run.
    error = {"failed": RuntimeError, "interrupted": KeyboardInterrupt}.get(outcome, type(None))
    assert type(pipeline._exception) is error


def test_a_step_behind_no_rows_gets_an_empty_batch(tmp_path, running_pipelines):
    """distilabel would send such a step nothing, and wait for ever."""
    step = begin(pipeline_of(tmp_path))._batch_manager._steps["keep"]
    step.add_batch(_Batch(0, "generate", last_batch=False, data=[[]]))
    assert not step._ready_to_create_batch()
    step.add_batch(_Batch(1, "generate", last_batch=True, data=[[]]))
    assert step._ready_to_create_batch()

    running_pipelines.clear()
    assert not step._ready_to_create_batch()
