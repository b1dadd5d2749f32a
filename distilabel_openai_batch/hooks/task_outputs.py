"""Give a Task structured output without instructor, and columns with the failure and the reasoning of each row.

Replaced: `_set_default_structured_output`; and `get_outputs`, `_format_outputs` and the `process_applying_mappings` of
generator steps, which the columns of `add_failures` and `keep_reasoning` need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distilabel.steps import GeneratorStep
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_columns import RowColumns, add_row_columns, formatted_outputs, row_columns


@patch(_Task, "_set_default_structured_output", parameters=["self"])
def _set_default_structured_output(original: Any, self: Any) -> None:
    """Set a Task's default output schema without `instructor`.

    distilabel refuses to load a Task that has such a schema if `instructor` is not installed, and no release of
    `instructor` installs beside openai 3.3.1 or newer. The client itself sends the schema.
    """
    if batch_client(self) is None:
        original(self)
        return
    schema = self.get_structured_output()
    if schema and self.use_default_structured_output and not self.llm.structured_output:
        self.llm.structured_output = {"schema": schema, "format": "json"}


@patch(_Step, "get_outputs", parameters=["self"])
def _get_outputs(original: Any, self: Any) -> dict[str, bool]:
    """Add the columns of a client to a step's output columns, so that later steps may name them as inputs."""
    outputs: dict[str, bool] = original(self)
    return outputs | dict.fromkeys(_columns(self).names, True) if row_columns.get() is None else outputs


@patch(_Task, "_format_outputs", parameters=["self", "outputs", "input"])
def _format_outputs(original: Any, self: Any, outputs: Any, input: Any = None) -> list[dict[str, Any]]:
    """Add the columns of a client to the rows that distilabel makes of one output of an LLM.

    No other function of distilabel has both the row and the failures of its generations.
    """
    rows: list[dict[str, Any]] = original(self, outputs, input)
    columns = row_columns.get()
    if columns is None:
        columns = _columns(self)
    if columns:
        columns.fill(rows, outputs)
        if (formatted := formatted_outputs.get()) is not None:
            formatted.append(len(rows))
    return rows


@patch(GeneratorStep, "process_applying_mappings", parameters=["self", "offset"])
def _process_applying_mappings(
    original: Any, self: Any, offset: int = 0
) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Add the columns of a client to the rows of a generator step."""
    batches = original(self, offset)
    columns = _columns(self)
    if not columns:
        yield from batches
        return
    while True:
        log = CallLog()
        formatted_outputs.set([])
        with log.activate():
            batch = next(batches, None)
        if batch is None:
            return
        rows, is_last = batch
        yield add_row_columns(self, columns, log, None, rows), is_last


def _columns(step: Any) -> RowColumns:
    return RowColumns.of(step.name, batch_client(step))
