"""Tests of rows that are passed to steps and cached."""

from __future__ import annotations

from datetime import date

import fsspec
import orjson
import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from upath import UPath

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks import row_storage, stopping
from distilabel_openai_batch.hooks.row_codec import UnsupportedValueError
from distilabel_openai_batch.hooks.row_storage import (
    keeps_row_types,
    read_stored_batches,
    rows_directory,
)

MIXED_ROWS = [{"value": {"a": 1}}, {"value": {"b": "text"}}, {"value": date(1969, 7, 20)}]


def pipeline_of(llm_class) -> Pipeline:
    with Pipeline(name="stored") as pipeline:
        task = TextGeneration(name="generate", llm=llm_class(model="gpt-4o-mini", api_key="sk-unused"))
        LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}]) >> task
    return pipeline


@pytest.fixture
def running():
    """A pipeline with a client runs."""
    stopping.running_pipelines.append(object())
    yield
    stopping.running_pipelines.clear()


@pytest.mark.parametrize(("llm_class", "keeps"), [(OpenAILLM, False), (OpenAIBatchLLM, True)])
def test_row_types_are_kept_for_a_step_with_a_client(monkeypatch, llm_class, keeps):
    """The flag holds while the batch is sent, and no longer."""
    pipeline, seen = pipeline_of(llm_class), []
    pipeline._batch_manager = _BatchManager.from_dag(pipeline.dag)
    monkeypatch.setattr(Pipeline, "_send_to_step", lambda *arguments: seen.append(keeps_row_types.get()))
    monkeypatch.setattr(_Batch, "write_batch_data_to_fs", lambda *arguments: None)
    pipeline._fs, pipeline._storage_base_path = None, "/"
    pipeline._use_fs_to_pass_data = False

    pipeline._send_batch_to_step(_Batch(0, "generate", last_batch=True, data=[MIXED_ROWS]))

    assert seen == [keeps]
    assert not keeps_row_types.get()


def write_and_read(batch, directory):
    """Pass a batch through the file system, as to a global step with a client; return the files."""
    token = keeps_row_types.set(True)
    try:
        batch.write_batch_data_to_fs(fsspec.filesystem("file"), UPath(directory))
    finally:
        keeps_row_types.reset(token)
    assert batch.data == []
    files = [path.suffix for path in directory.rglob("*") if path.is_file()]
    batch.read_batch_data_from_fs()
    return files


def test_rows_keep_their_types_on_the_way_to_a_step(tmp_path):
    """A Parquet file could not hold these rows. The step deletes the file after reading."""
    batch = _Batch(0, "generate", last_batch=True, data=[MIXED_ROWS])
    assert write_and_read(batch, tmp_path) == [".json"]
    assert batch.data == [MIXED_ROWS]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_rows_of_unknown_types_go_to_a_step_as_distilabel_sends_them(tmp_path, monkeypatch):
    monkeypatch.setattr(row_storage, "encode_rows", raise_unsupported)
    batch = _Batch(0, "generate", last_batch=True, data=[[{"id": 1}]])
    assert write_and_read(batch, tmp_path) == [".parquet"]
    assert batch.data == [[{"id": 1}]]


def raise_unsupported(rows):
    raise UnsupportedValueError("a value of type Image")


def test_rows_of_other_steps_are_written_as_distilabel_does(tmp_path):
    batch = _Batch(0, "generate", last_batch=True, data=[[{"id": 1}]])
    batch.write_batch_data_to_fs(fsspec.filesystem("file"), UPath(tmp_path))
    assert list(tmp_path.rglob("*.parquet"))
    batch.read_batch_data_from_fs()
    assert batch.data == [[{"id": 1}]]


def stored(tmp_path, *rows: list[dict], last=True):
    """The cache directory of a step with some output batches."""
    manager = _BatchManager.from_dag(pipeline_of(OpenAIBatchLLM).dag)
    for seq_no, each in enumerate(rows):
        is_last = last and seq_no == len(rows) - 1
        batch = _Batch(seq_no, "generate", last_batch=is_last)
        batch.set_data([each])
        manager.write_batch_data(batch, tmp_path)
    return tmp_path / manager._steps["generate"].signature


def test_cached_rows_keep_their_types(running, tmp_path):
    directory = stored(tmp_path, [{"id": 1}], MIXED_ROWS)
    batches = read_stored_batches(directory)
    assert [batch.data for batch in batches] == [[[{"id": 1}]], [MIXED_ROWS]]
    # JSON keeps the first batch, which therefore needs no file of its own.
    [file] = rows_directory(directory).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("value", [object(), "\ud800"], ids=["unknown type", "no text in JSON"])
def test_rows_that_no_file_holds_are_not_cached(running, tmp_path, value):
    """A continued run repeats the step."""
    directory = stored(tmp_path, [{"id": 1}], [{"value": value}])
    assert len(list(directory.glob("batch_*.json"))) == 1
    assert read_stored_batches(directory) is None


def test_rows_of_an_earlier_release_in_a_pickle_are_not_read(running, tmp_path):
    """A writer of the cache could run code."""
    directory = stored(tmp_path, [{"id": 1}])
    file = directory / "batch_0.json"
    dump = orjson.loads(file.read_bytes())
    file.write_bytes(orjson.dumps(dump | {"data_hash": "abc"}))
    rows_directory(directory).mkdir()
    (rows_directory(directory) / "abc.pickle").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert read_stored_batches(directory) is None


def test_other_pipelines_are_cached_as_json_alone(tmp_path):
    directory = stored(tmp_path, MIXED_ROWS)
    assert not rows_directory(directory).exists()


@pytest.mark.parametrize("defect", ["no batch", "no last batch", "a missing batch", "half a file"])
def test_an_incomplete_cache_is_not_read(tmp_path, defect):
    directory = stored(tmp_path, [{"id": 1}], [{"id": 2}], last=defect != "no last batch")
    files = sorted(directory.glob("batch_*.json"), key=lambda path: path.name)
    if defect == "no batch":
        for file in files:
            file.unlink()
    elif defect == "a missing batch":
        files[0].unlink()
    elif defect == "half a file":
        files[0].write_bytes(files[0].read_bytes()[:20])
    assert read_stored_batches(directory) is None
