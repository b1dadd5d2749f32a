"""Pass rows to a step, and cache them, without a change of type.

The module replaces `_send_batch_to_step`, by which the pipeline's process sends a batch; `write_batch_data_to_fs` and
`read_batch_data_from_fs`, which pass a global step's rows through files; and `write_batch_data`, which caches a step's
output.
"""

from __future__ import annotations

import math
import os
import pickle
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import orjson
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager

from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.stopping import running_pipelines

pickles_rows: ContextVar[bool] = ContextVar("pickles_rows", default=False)
"""Switch of `write_batch_data_to_fs`: pickle the rows. On while a batch is sent to a step with a client, and in the
process of such a step."""

_ROWS_FILE = "rows.pickle"
_JSON_SCALARS = {str, int, bool, type(None)}


@patch(BasePipeline, "_send_batch_to_step", parameters=["self", "batch"])
def _send_batch_to_step(original: Any, self: Any, batch: Any) -> None:
    """Pickle the rows of a batch for a step with a client, as distilabel does for ordinary steps.

    distilabel passes the rows of a global step in Parquet files, in which a column has one type: dictionaries get the
    keys of all others, with `None`, and rows of different types stop the pipeline.
    """
    token = pickles_rows.set(batch_client(self.dag.get_step(batch.step_name)["step"]) is not None)
    try:
        original(self, batch)
    finally:
        pickles_rows.reset(token)


@patch(_Batch, "write_batch_data_to_fs", parameters=["self", "fs", "base_path"])
def _write_batch_data_to_fs(original: Any, self: Any, fs: Any = None, base_path: Any = None) -> None:
    """Write rows as one pickle file where `pickles_rows` is set, see `_send_batch_to_step`."""
    data = self.data
    if pickles_rows.get():
        # The original also makes the directory and sets `data_path`: call the original without rows.
        self.data = []
    original(self, fs, base_path)
    if pickles_rows.get():
        with self._fs.open(f"{self.data_path}/{_ROWS_FILE}", "wb") as file:
            pickle.dump(data, file, protocol=pickle.HIGHEST_PROTOCOL)


@patch(_Batch, "read_batch_data_from_fs", parameters=["self"])
def _read_batch_data_from_fs(original: Any, self: Any) -> None:
    """Read the pickle file of `_write_batch_data_to_fs`, where there is one."""
    path = f"{self.data_path}/{_ROWS_FILE}"
    if not (self._fs and self._fs.exists(path)):
        original(self)
        return
    with self._fs.open(path, "rb") as file:
        self.data = pickle.load(file)  # noqa: S301  # written by this pipeline, as private as the queue with its path
    self._fs.rm(self.data_path, recursive=True)


@patch(_BatchManager, "write_batch_data", parameters=["self", "batch", "steps_data_path"])
def _write_batch_data(original: Any, self: Any, batch: Any, steps_data_path: Any) -> None:
    """Cache rows that JSON would change in a pickle file too.

    distilabel caches a step's rows as JSON, which makes a date a text and a NaN `None`: a continued run would make
    other requests of the same rows. The pickle file is written first, since the JSON file marks the batch as stored.
    """
    if running_pipelines and not all(survives_json(row) for rows in batch.data for row in rows):
        path = _rows_file(Path(steps_data_path) / self._steps[batch.step_name].signature, batch)
        # A row has an object of a class that cannot be imported by name → pickle fails; keep the JSON file only.
        with suppress(pickle.PicklingError, AttributeError, TypeError):
            pickled = pickle.dumps(batch.data, protocol=pickle.HIGHEST_PROTOCOL)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            unfinished.write_bytes(pickled)
            unfinished.replace(path)
    original(self, batch, steps_data_path)


def read_stored_batches(directory: Path) -> list[Any] | None:
    """Return a step's cached output batches in order; `None` if a batch is missing or cannot be read.

    Args:
        directory: the step's cache directory, with a file `batch_….json` for each batch.
    """
    try:
        batches = [_Batch.from_dict(orjson.loads(path.read_bytes())) for path in directory.glob("batch_*.json")]
        for batch in batches:
            if (path := _rows_file(directory, batch)).exists():
                batch.data = pickle.loads(path.read_bytes())  # noqa: S301  # ours, as private as the cache directory
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, EOFError, pickle.UnpicklingError):
        return None
    batches.sort(key=lambda batch: batch.seq_no)
    if not batches or not batches[-1].last_batch or [batch.seq_no for batch in batches] != list(range(len(batches))):
        return None
    return batches


def rows_directory(directory: Path) -> Path:
    """Return the directory of a step's pickled rows, beside `directory`: distilabel may read every file inside."""
    return directory.with_name(f"{directory.name}.rows")


def _rows_file(directory: Path, batch: Any) -> Path:
    return rows_directory(directory) / f"{batch.data_hash}.pickle"


def survives_json(value: object) -> bool:
    """Return whether JSON keeps a value: not a date, a tuple, a NaN, nor a dictionary with a key that is not a text."""
    kind = type(value)
    if kind is float:
        return math.isfinite(cast("float", value))
    if kind is list:
        return all(map(survives_json, cast("list[object]", value)))
    if kind is dict:
        return all(
            type(key) is str and survives_json(item) for key, item in cast("dict[object, object]", value).items()
        )
    return kind in _JSON_SCALARS
