"""Tests of rows that are passed to steps and cached."""

from __future__ import annotations

import math
from datetime import date

import fsspec
import numpy as np
import orjson
import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks import stopping
from distilabel_openai_batch.hooks.row_storage import (
    pickles_rows,
    read_stored_batches,
    rows_directory,
    survives_json,
)

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers(0, 9) | st.text(), inner)
    ),
    max_leaves=8,
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


@given(VALUES)
def test_survives_json_agrees_with_json(value):
    kept = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    assert survives_json(value) == (repr(kept) == repr(value))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, (1,), [(1,)], {"a": {1: 2}}, date(1969, 7, 20), np.ones(2), np.float64(1.5), {1}]
)
def test_values_that_json_changes_are_found_at_any_depth(value):
    assert not survives_json(value)
    assert not survives_json([{"a": value}])


@pytest.mark.parametrize(("llm_class", "pickles"), [(OpenAILLM, False), (OpenAIBatchLLM, True)])
def test_rows_are_pickled_for_a_step_with_a_client(monkeypatch, llm_class, pickles):
    """The flag holds while the batch is sent, and no longer."""
    pipeline, seen = pipeline_of(llm_class), []
    pipeline._batch_manager = _BatchManager.from_dag(pipeline.dag)
    monkeypatch.setattr(Pipeline, "_send_to_step", lambda *arguments: seen.append(pickles_rows.get()))
    monkeypatch.setattr(_Batch, "write_batch_data_to_fs", lambda *arguments: None)
    pipeline._fs, pipeline._storage_base_path = None, "/"
    pipeline._use_fs_to_pass_data = False

    pipeline._send_batch_to_step(_Batch(0, "generate", last_batch=True, data=[MIXED_ROWS]))

    assert seen == [pickles]
    assert not pickles_rows.get()


def test_pickled_rows_keep_their_types_on_the_way_to_a_step(tmp_path):
    """A Parquet file could not hold these rows. The step deletes the pickle file after reading."""
    batch = _Batch(0, "generate", last_batch=True, data=[MIXED_ROWS])
    token = pickles_rows.set(True)
    try:
        batch.write_batch_data_to_fs(fsspec.filesystem("file"), UPath(tmp_path))
    finally:
        pickles_rows.reset(token)
    assert batch.data == []

    batch.read_batch_data_from_fs()

    assert batch.data == [MIXED_ROWS]
    assert not list(tmp_path.rglob("*.pickle"))


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
    # JSON keeps the first batch, which therefore needs no pickle file.
    assert len(list(rows_directory(directory).iterdir())) == 1


def test_rows_that_cannot_be_pickled_are_cached_as_json(running, tmp_path, monkeypatch):
    monkeypatch.setattr(_Batch, "dump", lambda self, *arguments, **options: {"batch": self.seq_no})
    class_without_a_module_name = type("Local", (), {})
    directory = stored(tmp_path, [{"value": class_without_a_module_name()}])
    assert not list(rows_directory(directory).glob("*.pickle"))


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
