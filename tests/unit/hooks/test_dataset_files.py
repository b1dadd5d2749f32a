"""Tests of the files of a dataset."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from distilabel.utils import serialization

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks import stopping
from distilabel_openai_batch.hooks.dataset_files import rewrite_dataset

FAILURE = {"message": "No.", "status_code": 400, "code": "bad", "custom_id": "a-0"}


def pipeline_of(tmp_path, llm) -> Pipeline:
    with Pipeline(name="files", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(name="load", data=[{"id": 1}]) >> TextGeneration(name="generate", llm=llm)
    return pipeline


def batch_of(rows: list[dict], seq_no: int = 0) -> _Batch:
    return _Batch(seq_no=seq_no, step_name="generate", last_batch=False, data=[rows])


def rows_with_failures(cells: list[dict | None]) -> list[dict]:
    return [{"id": number, "failure_generate": cell} for number, cell in enumerate(cells)]


@pytest.fixture
def running():
    """A running pipeline with a client."""
    stopping.running_pipelines.append(object())
    yield
    stopping.running_pipelines.clear()


def test_a_file_that_cannot_be_written_leaves_the_old_one(running, tmp_path):
    path = tmp_path / "state.json"
    serialization.write_json(path, {"state": 1})
    with pytest.raises(TypeError):
        serialization.write_json(path, {"state": object()})
    assert json.loads(path.read_text()) == {"state": 1}
    serialization.write_yaml(tmp_path / "state.yaml", {"state": 2})
    assert (tmp_path / "state.yaml").read_text() == "state: 2\n"


def test_files_of_other_pipelines_are_written_in_place(tmp_path):
    path = tmp_path / "state.json"
    path.touch()
    file_id = path.stat().st_ino
    serialization.write_json(path, {"state": 1})
    assert path.stat().st_ino == file_id


def test_failure_column_keeps_its_type_when_the_first_rows_have_no_failure(tmp_path):
    """distilabel writes fifty rows at a time."""
    pipeline = pipeline_of(tmp_path, OpenAIBatchLLM(model="gpt-4o-mini", add_failures=True))
    first = rows_with_failures([None] * 50)
    later = [{"id": 1}] * 49 + rows_with_failures([FAILURE])
    last = rows_with_failures([None] * 50)

    rewrite_dataset(
        pipeline, {"generate": [batch_of(rows, number) for number, rows in enumerate((first, later, last))]}
    )

    table = pq.read_table(pipeline._cache_location["data"] / "steps_outputs" / "generate")
    assert table.num_rows == 150
    assert [cell for cell in table["failure_generate"].to_pylist() if cell] == [FAILURE]


def test_reasoning_column_keeps_its_type_when_the_first_rows_have_no_tool_calls(tmp_path):
    pipeline = pipeline_of(tmp_path, OpenAIBatchLLM(model="gpt-4o-mini", keep_reasoning=True))
    calls = [{"id": "call_1", "name": "clock", "arguments": "{}"}]
    cells = [None, {"reasoning": "Hm.", "tool_calls": None}, {"reasoning": None, "tool_calls": calls}]
    stored = [batch_of([{"id": 1, "reasoning_generate": cell}] * 50, number) for number, cell in enumerate(cells)]

    rewrite_dataset(pipeline, {"generate": stored})

    table = pq.read_table(pipeline._cache_location["data"] / "steps_outputs" / "generate")
    assert table["reasoning_generate"].to_pylist() == [cell for cell in cells for _ in range(50)]


def test_rows_without_the_column_get_one_when_a_later_row_has_it(tmp_path):
    """Routed rows have the failure columns of only the Tasks on their way."""
    pipeline = pipeline_of(tmp_path, OpenAIBatchLLM(model="gpt-4o-mini", add_failures=True))
    stored = [batch_of([{"id": 1}] * 50), batch_of(rows_with_failures([FAILURE] * 50), 1)]

    rewrite_dataset(pipeline, {"generate": stored})

    table = pq.read_table(pipeline._cache_location["data"] / "steps_outputs" / "generate")
    assert table["failure_generate"].null_count == 50


def test_a_dataset_is_written_again_from_the_beginning(tmp_path):
    """Files of the earlier run, with rows that may occur twice, are deleted."""
    pipeline = pipeline_of(tmp_path, OpenAIBatchLLM(model="gpt-4o-mini"))
    directory = pipeline._cache_location["data"] / "steps_outputs" / "generate"
    for _ in range(2):
        rewrite_dataset(pipeline, {"generate": [batch_of([{"id": 1}])]})
        assert pq.read_table(directory).to_pylist() == [{"id": 1}]


@pytest.mark.parametrize("llm_class", [OpenAILLM, OpenAIBatchLLM])
def test_write_buffer_of_a_pipeline_with_a_client_knows_the_failure_columns(tmp_path, llm_class):
    fields = {"add_failures": True} if llm_class is OpenAIBatchLLM else {}
    pipeline = pipeline_of(tmp_path, llm_class(model="gpt-4o-mini", api_key="sk-unused", **fields))
    pipeline._setup_write_buffer()
    columns = getattr(pipeline._write_buffer, "_openai_batch_columns", None)
    assert columns == (["failure_generate"] if fields else None)


def test_other_pipelines_keep_arrows_error(tmp_path):
    """Without a client the write buffer is distilabel's."""
    pipeline = pipeline_of(tmp_path, OpenAILLM(model="gpt-4o-mini", api_key="sk-unused"))
    pipeline._setup_write_buffer()
    for cells in ([None] * 50, [FAILURE] * 50):
        pipeline._write_buffer.add_batch(batch_of(rows_with_failures(cells)))
    with pytest.raises((pa.ArrowException, NotImplementedError)):
        pipeline._write_buffer.close()
