"""Write the files of a dataset completely, and each column with one type.

Replaced: `write_json` and `write_yaml`, which write a pipeline's state; `_setup_write_buffer` and
`_WriteBuffer._write`, which write the rows of the last steps as Parquet files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from distilabel import constants
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.write_buffer import _WriteBuffer
from distilabel.utils import serialization

from distilabel_openai_batch.hooks.clients import pipeline_uses_batch_client, task_batch_client
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_columns import RowColumns
from distilabel_openai_batch.hooks.stopping import running_pipelines

# Rows of a Parquet file: few enough to hold in memory, enough that a million rows make 500 files.
_ROWS_PER_FILE = 2_000


@patch(serialization, "write_json", parameters=["filename", "data"])
@patch(serialization, "write_yaml", parameters=["filename", "data"])
def _write_whole_file(original: Any, filename: Path, data: Any) -> None:
    """Write a file beside its place and move the finished file there, while a pipeline with a client runs.

    distilabel writes in place: a process that dies meanwhile would leave half a file.
    """
    if not running_pipelines:
        original(filename, data)
        return
    unfinished = filename.with_name(f".{filename.name}.{os.getpid()}")
    original(unfinished, data)
    unfinished.replace(filename)


@patch(BasePipeline, "_setup_write_buffer", parameters=["self", "use_cache"])
def _setup_write_buffer(original: Any, self: Any, use_cache: bool = True) -> None:
    """Prepare the write buffer, see `_prepare`."""
    original(self, use_cache)
    if pipeline_uses_batch_client(self):
        _prepare(self._write_buffer, self)


@patch(_WriteBuffer, "_write", parameters=["self", "step_name"])
def _write(original: Any, self: Any, step_name: str) -> None:
    """Write buffered rows whose columns of `add_failures` and `keep_reasoning` are empty or missing.

    distilabel writes fifty rows at a time, and takes the column types of the first fifty for all: if a column is `None`
    there and a text later, Arrow ends the pipeline with an error. Failures are rare, and a routed row has the failure
    columns of only the Tasks on its way. So the replacement adds missing failure columns, and afterwards widens the
    remembered types to the written types.
    """
    columns: list[str] | None = getattr(self, "_openai_batch_columns", None)
    if columns is None:
        original(self, step_name)
        return
    schemas = self._buffer_last_schema
    earlier_schema = _add_missing_columns(self._buffers[step_name], columns, schemas.get(step_name))
    if earlier_schema is not None:
        schemas[step_name] = earlier_schema
    original(self, step_name)
    file = self._path / step_name / f"{self._buffers_last_file[step_name] - 1:05}.parquet"
    written_schema = pq.read_schema(file)
    if earlier_schema is not None and set(earlier_schema.names) == set(written_schema.names):
        schemas[step_name] = pa.unify_schemas([earlier_schema, written_schema], promote_options="permissive")


def _add_missing_columns(rows: list[dict[str, Any]], columns: Sequence[str], schema: Any) -> Any:
    """Add each of some columns that any row or the schema has to all rows, and return the schema with these columns."""
    present = {name for row in rows for name in columns if name in row}.union(schema.names if schema else ())
    added = [name for name in columns if name in present]
    for row in rows:
        for name in added:
            row.setdefault(name, None)
    if schema is not None:
        for name in added:
            if name not in schema.names:
                schema = schema.append(pa.field(name, pa.null()))
    return schema


def rewrite_dataset(pipeline: Any, stored: dict[str, list[Any]]) -> None:
    """Write the dataset's files again from cached batches: a killed run may have lost or repeated its last rows.

    Args:
        pipeline: the pipeline, about to run.
        stored: the cached output batches of each finished step.
    """
    path = pipeline._cache_location["data"] / constants.STEPS_OUTPUTS_PATH
    shutil.rmtree(path, ignore_errors=True)
    leaf_steps = pipeline.dag.leaf_steps
    buffer = _WriteBuffer(path, leaf_steps, steps_cached=dict.fromkeys(pipeline.dag, True))
    _prepare(buffer, pipeline)
    for name in leaf_steps:
        for batch in stored.get(name, []):
            buffer.add_batch(batch)
    buffer.close()


def _prepare(buffer: Any, pipeline: Any) -> None:
    """Tell a write buffer which columns the clients of the pipeline add, see `_write`; set the size of its files.

    distilabel writes a file for each fifty rows, and reads and writes each file again at the end.
    """
    buffer._openai_batch_columns = _pipeline_columns(pipeline)
    buffer._buffers_dump_batch_size = dict.fromkeys(buffer._buffers_dump_batch_size, _ROWS_PER_FILE)


def _pipeline_columns(pipeline: Any) -> list[str]:
    columns: list[str] = []
    for name in pipeline.dag:
        step = pipeline.dag.get_step(name)["step"]
        columns += RowColumns.of(getattr(step, "task", step).name, task_batch_client(step)).names
    return list(dict.fromkeys(columns))
