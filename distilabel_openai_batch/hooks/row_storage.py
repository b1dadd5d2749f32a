"""Pass rows to a step, and cache them, without a change of type and without pickles.

distilabel passes the rows of a global step in Parquet files, in which a column has one type: dictionaries get the keys
of all others, with `None`, and rows of different types stop the pipeline.

Replaced: `write_batch_data_to_fs` and `read_batch_data_from_fs`, which pass a global step's rows through files; and
`write_batch_data`, which caches a step's output.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

import orjson
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager

from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_codec import UnsupportedValueError, decode_rows, encode_rows, survives_json
from distilabel_openai_batch.hooks.stopping import running_pipelines
from distilabel_openai_batch.replaced_file import replaced_file

keeps_row_types: ContextVar[bool] = ContextVar("keeps_row_types", default=False)
"""Switch of `write_batch_data_to_fs`: write the rows by `row_codec`. On while a batch is sent to a step with a client,
and in the process of such a step."""

_ROWS_FILE = "rows.json"


@patch(_Batch, "write_batch_data_to_fs", parameters=["self", "fs", "base_path"])
def _write_batch_data_to_fs(original: Any, self: Any, fs: Any = None, base_path: Any = None) -> None:
    """Write rows by `row_codec` where `keeps_row_types` is set, as far as the codec knows their types."""
    encoded = None
    if keeps_row_types.get():
        try:
            encoded = encode_rows(self.data)
        except UnsupportedValueError:
            pass
        else:
            # The original also makes the directory and sets `data_path`: call the original without rows.
            self.data = []
    original(self, fs, base_path)
    if encoded is not None:
        with self._fs.open(f"{self.data_path}/{_ROWS_FILE}", "wb") as file:
            file.write(encoded)


@patch(_Batch, "read_batch_data_from_fs", parameters=["self"])
def _read_batch_data_from_fs(original: Any, self: Any) -> None:
    """Read the file of `_write_batch_data_to_fs`, where there is one."""
    path = f"{self.data_path}/{_ROWS_FILE}"
    if not (self._fs and self._fs.exists(path)):
        original(self)
        return
    with self._fs.open(path, "rb") as file:
        self.data = decode_rows(file.read())
    self._fs.rm(self.data_path, recursive=True)


@patch(_BatchManager, "write_batch_data", parameters=["self", "batch", "steps_data_path"])
def _write_batch_data(original: Any, self: Any, batch: Any, steps_data_path: Any) -> None:
    """Cache rows that JSON would change in a file of `row_codec` too, which is readable by its owner alone.

    distilabel caches a step's rows as JSON, which makes a date a text and a NaN `None`: a continued run would make
    other requests of the same rows. The file is written first, since the JSON file marks the batch as stored. Rows that
    neither file can hold are not cached: a continued run repeats the step.
    """
    if running_pipelines and not all(survives_json(row) for rows in batch.data for row in rows):
        try:
            encoded = encode_rows(batch.data)
        except UnsupportedValueError:
            return
        path = _rows_file(Path(steps_data_path) / self._steps[batch.step_name].signature, batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as file:
            file.write(encoded)
    try:
        original(self, batch, steps_data_path)
    except orjson.JSONEncodeError:
        if not running_pipelines:
            raise


def read_stored_batches(directory: Path) -> list[Any] | None:
    """Return a step's cached output batches in order; `None` if a batch is missing or cannot be read.

    A batch of an earlier release, whose rows are in a pickle file, counts as missing: reading a pickle runs its code.

    Args:
        directory: the step's cache directory, with a file `batch_….json` for each batch.
    """
    try:
        batches = [_Batch.from_dict(orjson.loads(path.read_bytes())) for path in directory.glob("batch_*.json")]
        for batch in batches:
            if (rows_directory(directory) / f"{batch.data_hash}.pickle").exists():
                return None
            if (path := _rows_file(directory, batch)).exists():
                batch.data = decode_rows(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    batches.sort(key=lambda batch: batch.seq_no)
    if not batches or not batches[-1].last_batch or [batch.seq_no for batch in batches] != list(range(len(batches))):
        return None
    return batches


def rows_directory(directory: Path) -> Path:
    """Return the directory of a step's rows, beside `directory`: distilabel may read every file inside."""
    return directory.with_name(f"{directory.name}.rows")


def _rows_file(directory: Path, batch: Any) -> Path:
    return rows_directory(directory) / f"batch_{batch.seq_no}.json"
