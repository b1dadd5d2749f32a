"""Files of the dataset, written whole and with one type a column."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from distilabel import constants
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.write_buffer import _WriteBuffer
from distilabel.utils import serialization

from distilabel_openai_batch.hooks.stopping import _running


def _write_leaves(pipeline: Any, stored: dict[str, list[Any]], own_columns: list[str]) -> None:
    """Writes the dataset's files anew: a kill may have lost their last rows, or have had some written twice."""
    path = pipeline._cache_location["data"] / constants.STEPS_OUTPUTS_PATH
    shutil.rmtree(path, ignore_errors=True)
    leaves = pipeline.dag.leaf_steps
    buffer = _WriteBuffer(path, leaves, steps_cached=dict.fromkeys(pipeline.dag, True))
    buffer._openai_batch_columns = own_columns
    for name in leaves:
        for batch in stored.get(name, []):
            buffer.add_batch(batch)
    buffer.close()


def _write_whole_files() -> None:
    """What distilabel writes about a pipeline of ours is there as a whole or not at all, whenever it dies."""
    for name in ("write_json", "write_yaml"):
        _write_whole(name, getattr(serialization, name))


def _columns_of(pipeline: Any, own_columns: Callable[[Any], list[str]]) -> list[str]:
    """The columns of ours that a pipeline's steps add."""
    each = (own_columns(pipeline.dag.get_step(name)["step"]) for name in pipeline.dag)
    return list(dict.fromkeys(column for columns in each for column in columns))


def _write_columns_of_one_type(holds_ours: Callable[[Any], bool], own_columns: Callable[[Any], list[str]]) -> None:
    """A dataset can be written whose first rows have nothing in a column, or not all of its columns.

    distilabel writes a leaf's rows some at a time, and takes the types of the first for those of all: a column that is
    `None` fifty times and a text then ends the pipeline with an error of Arrow's. Failures are rare, and so are their
    columns' values; of routed rows each has the columns of those Tasks alone that it went through.
    """
    setup_write_buffer, write_rows = BasePipeline._setup_write_buffer, _WriteBuffer._write

    def setting_up(self: Any, use_cache: bool = True) -> None:
        setup_write_buffer(self, use_cache)
        if holds_ours(self):
            self._write_buffer._openai_batch_columns = _columns_of(self, own_columns)

    def writing(self: Any, step_name: str) -> None:
        columns: list[str] | None = getattr(self, "_openai_batch_columns", None)
        if columns is None:
            write_rows(self, step_name)
            return
        buffered, schemas = self._buffers[step_name], self._buffer_last_schema
        before = schemas.get(step_name)
        known = {name for row in buffered for name in columns if name in row}.union(before.names if before else ())
        for row in buffered:
            for name in columns:
                if name in known:
                    row.setdefault(name, None)
        if before is not None:
            for name in columns:
                if name in known and name not in before.names:
                    before = before.append(pa.field(name, pa.null()))
            schemas[step_name] = before
        write_rows(self, step_name)
        file = self._path / step_name / f"{self._buffers_last_file[step_name] - 1:05}.parquet"
        written = pq.read_schema(file)
        if before is not None and set(before.names) == set(written.names):
            schemas[step_name] = pa.unify_schemas([before, written], promote_options="permissive")

    BasePipeline._setup_write_buffer = setting_up
    _WriteBuffer._write = writing


def _write_whole(name: str, write: Callable[[Path, Any], None]) -> None:
    def wrapped(filename: Path, data: Any) -> None:
        if not _running:
            write(filename, data)
            return
        unfinished = filename.with_name(f".{filename.name}.{os.getpid()}")
        write(unfinished, data)
        unfinished.replace(filename)

    setattr(serialization, name, wrapped)
