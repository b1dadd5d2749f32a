"""Rows on their way to a step and in the cache, stored without a change of type."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import orjson
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager
from distilabel.pipeline.ray import RayPipeline

from distilabel_openai_batch.hooks.step_process import _as_ordinary_steps, _as_they_are
from distilabel_openai_batch.hooks.stopping import _running

_ROWS_FILE = "rows.pickle"


def _send_rows_across_the_cluster() -> None:
    """A Task of ours on a Ray cluster is sent its rows as an ordinary step is.

    distilabel gives a global step a path to them, on a disk that the step's machine may not have.
    """
    send_batch_to_step = RayPipeline._send_batch_to_step

    def wrapped(self: Any, batch: Any) -> None:
        token = _as_ordinary_steps.set(True)
        try:
            send_batch_to_step(self, batch)
        finally:
            _as_ordinary_steps.reset(token)

    RayPipeline._send_batch_to_step = wrapped


def _pass_rows_as_they_are(is_ours: Callable[[Any], bool]) -> None:
    """The rows of a Task of ours reach it, and come back, as they are.

    distilabel gives those of a global step through Parquet files. A column of a table has one type: dictionaries in it
    all get the same keys, `None` where they had none, and rows that do not fit the type stop the pipeline. An ordinary
    step's rows are pickled, and so are these.
    """
    send_batch_to_step = BasePipeline._send_batch_to_step
    write, read = _Batch.write_batch_data_to_fs, _Batch.read_batch_data_from_fs

    def sending(self: Any, batch: Any) -> None:
        token = _as_they_are.set(is_ours(self.dag.get_step(batch.step_name)["step"]))
        try:
            send_batch_to_step(self, batch)
        finally:
            _as_they_are.reset(token)

    def writing(self: Any, fs: Any = None, base_path: Any = None) -> None:
        data = self.data
        if _as_they_are.get():
            # What else it does is to be done all the same: it makes the directory, and says where that is.
            self.data = []
        write(self, fs, base_path)
        if _as_they_are.get():
            with self._fs.open(f"{self.data_path}/{_ROWS_FILE}", "wb") as file:
                pickle.dump(data, file, protocol=pickle.HIGHEST_PROTOCOL)

    def reading(self: Any) -> None:
        path = f"{self.data_path}/{_ROWS_FILE}"
        if not (self._fs and self._fs.exists(path)):
            read(self)
            return
        with self._fs.open(path, "rb") as file:
            self.data = pickle.load(file)  # noqa: S301  # our own, as private as the queue that names it
        self._fs.rm(self.data_path, recursive=True)

    BasePipeline._send_batch_to_step = sending
    _Batch.write_batch_data_to_fs = writing
    _Batch.read_batch_data_from_fs = reading


def _stored_batches(directory: Path) -> list[Any] | None:
    """A step's stored outputs, if they are all there."""
    try:
        batches = [_Batch.from_dict(orjson.loads(path.read_bytes())) for path in directory.glob("batch_*.json")]
        for batch in batches:
            if (path := _rows_file(directory, batch)).exists():
                batch.data = pickle.loads(path.read_bytes())  # noqa: S301  # our own, as private as the cache it is in
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, EOFError, pickle.UnpicklingError):
        return None
    batches.sort(key=lambda batch: batch.seq_no)
    if not batches or not batches[-1].last_batch or [batch.seq_no for batch in batches] != list(range(len(batches))):
        return None
    return batches


def _store_rows_as_they_are() -> None:
    """A step's stored rows come back as they were, so that Tasks behind it ask the same questions.

    distilabel stores them as JSON, which makes text of a date and `None` of a NaN. Rows that it would change are kept
    beside it as well: before it, since the JSON says that they are there.
    """
    write_batch_data = _BatchManager.write_batch_data

    def wrapped(self: Any, batch: Any, steps_data_path: Any) -> None:
        if _running and not all(survives_json(row) for given in batch.data for row in given):
            path = _rows_file(Path(steps_data_path) / self._steps[batch.step_name].signature, batch)
            # A class may be such that nobody finds it again by its name: then JSON has to do.
            with suppress(pickle.PicklingError, AttributeError, TypeError):
                pickled = pickle.dumps(batch.data, protocol=pickle.HIGHEST_PROTOCOL)
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f".{path.name}.{os.getpid()}")
                unfinished.write_bytes(pickled)
                unfinished.replace(path)
        write_batch_data(self, batch, steps_data_path)

    _BatchManager.write_batch_data = wrapped


def _rows_directory(directory: Path) -> Path:
    """Where rows are that JSON would change: not among the stored outputs, all of which distilabel may read."""
    return directory.with_name(f"{directory.name}.rows")


def _rows_file(directory: Path, batch: Any) -> Path:
    return _rows_directory(directory) / f"{batch.data_hash}.pickle"


_SURVIVE = {str, int, bool, type(None)}


def survives_json(value: object) -> bool:
    """Whether a value comes back from JSON as it was: dates, tuples and NaNs do not, nor keys that are not text."""
    kind = type(value)
    if kind is float:
        return math.isfinite(cast("float", value))
    if kind is list:
        return all(map(survives_json, cast("list[object]", value)))
    if kind is dict:
        return all(
            type(key) is str and survives_json(each) for key, each in cast("dict[object, object]", value).items()
        )
    return kind in _SURVIVE
