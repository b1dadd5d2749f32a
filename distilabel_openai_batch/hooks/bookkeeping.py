"""Keep the work of a pipeline with a client proportional to its rows.

distilabel 1.5.3 repeats some of its bookkeeping for each batch over everything that the run has seen: with a million
rows that is most of a day. Each replacement returns the same result in constant time for each batch.

Replaced: `_Batch.get_data`, `_update_data_hash` and `copy`; `add_batch`, `empty_buffers` and `_last_batch_normal` of
`_BatchManagerStep`; `_BatchManager._missing_seq_no`; `_cache_location` and `_get_steps_load_stages` of a pipeline; and
`LoadDataFromDicts.process`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager, _BatchManagerStep
from distilabel.steps import LoadDataFromDicts

from distilabel_openai_batch.hooks.packed_batches import unpack_rows
from distilabel_openai_batch.hooks.registry import patch, patch_property
from distilabel_openai_batch.hooks.stopping import in_client_pipeline, running_pipelines


@patch(_Batch, "_update_data_hash", parameters=["self"])
def _update_data_hash(original: Any, self: Any) -> None:
    """Hash no rows: distilabel hashes all remaining rows of a batch each time that some are taken."""
    if in_client_pipeline():
        self.data_hash = None
    else:
        original(self)


@patch(_Batch, "get_data", parameters=["self", "num_rows"])
def _get_data(original: Any, self: Any, num_rows: int | None = None) -> Any:
    """Take rows without a copy of the remaining rows."""
    if not in_client_pipeline():
        return original(self, num_rows)
    rows = self.data[0]
    if num_rows is None:
        self.data = []
        return list(rows)
    if len(rows) <= num_rows:
        self.data[0] = []
        return list(rows)
    if not isinstance(rows, deque):
        self.data[0] = rows = deque(rows)
    return [rows.popleft() for _ in range(num_rows)]


@patch(_Batch, "copy", parameters=["self"])
def _copy(original: Any, self: Any) -> Any:
    """Copy a batch for a further step, and not its rows: each step's process gets rows of its own."""
    if not in_client_pipeline():
        return original(self)
    return dataclasses.replace(
        self,
        data=[list(rows) for rows in self.data],
        created_from=dict(self.created_from),
        batch_routed_to=list(self.batch_routed_to),
    )


@patch(_BatchManagerStep, "add_batch", parameters=["self", "batch", "prepend"])
def _add_batch(original: Any, self: Any, batch: Any, prepend: bool = False) -> None:
    """Add a batch, and sort a step's batches only if the batch is out of order."""
    # A batch that a stopped step had not read comes back packed.
    unpack_rows(batch)
    batches = self.data.get(batch.step_name)
    if prepend or not in_client_pipeline() or (batches and batches[-1].seq_no > batch.seq_no):
        original(self, batch, prepend)
        return
    batches.append(batch)
    if batch.last_batch:
        self.last_batch_received.append(batch.step_name)


@patch(_BatchManagerStep, "empty_buffers", parameters=["self"])
def _empty_buffers(original: Any, self: Any) -> Any:
    """Count the rows of a step's batches only up to the rows that a batch needs."""
    if self.accumulate or not in_client_pipeline():
        return original(self)
    return [
        name
        for name, batches in self.data.items()
        if name not in self.last_batch_received and not _reach(batches, self.input_batch_size)
    ]


@patch(_BatchManagerStep, "_last_batch_normal", parameters=["self"])
def _last_batch_normal(original: Any, self: Any) -> bool:
    """Count the rows of a step's batches only up to more rows than a batch has."""
    if not in_client_pipeline():
        return bool(original(self))
    return all(
        name in self.last_batch_received and not (self.input_batch_size and _reach(batches, self.input_batch_size + 1))
        for name, batches in self.data.items()
    )


def _reach(batches: Iterable[Any], rows: int) -> bool:
    """Return whether batches have at least a number of rows."""
    for batch in batches:
        rows -= len(batch.data[0])
        if rows <= 0:
            return True
    return False


@patch(_BatchManager, "_missing_seq_no", parameters=["self", "last_batch"])
def _missing_seq_no(original: Any, self: Any, last_batch: Any) -> bool:
    """Compare the number of batches: a step returns each batch once."""
    if not in_client_pipeline():
        return bool(original(self, last_batch))
    return bool(len(self._received_batch_seq_nos[last_batch.step_name]) <= last_batch.seq_no)


@patch_property(BasePipeline, "_cache_location")
def _cache_location(original: Any, self: Any) -> Any:
    """Compute the paths of the cache once in a run: each of them needs the signature of every step."""
    if self not in running_pipelines:
        return original(self)
    if self._openai_batch_cache_location is None:
        self._openai_batch_cache_location = original(self)
    return self._openai_batch_cache_location


@patch(BasePipeline, "_get_steps_load_stages", parameters=["self"])
def _get_steps_load_stages(original: Any, self: Any) -> Any:
    """Compute the load stages once in a run: distilabel computes them for each batch, and adds to `load_groups`."""
    if self not in running_pipelines:
        return original(self)
    if self._openai_batch_load_stages is None:
        self._openai_batch_load_stages = original(self)
    return self._openai_batch_load_stages


@patch(LoadDataFromDicts, "process", parameters=["self", "offset"])
def _process(original: Any, self: Any, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Yield batches without a copy of the remaining rows for each."""
    if not in_client_pipeline():
        yield from original(self, offset)
        return
    for start in range(offset, len(self.data), self.batch_size):
        end = start + self.batch_size
        yield self.data[start:end], end >= len(self.data)
