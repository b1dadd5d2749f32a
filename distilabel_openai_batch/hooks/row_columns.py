"""Add the columns about a row's requests that a client's fields ask for: the failure, and the reasoning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks import failure_columns, reasoning_columns

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Names of the columns that a step adds.

    Attributes:
        failure: the column of `add_failures`; `None` for none.
        reasoning: the column of `keep_reasoning`; `None` for none.
    """

    failure: str | None = None
    reasoning: str | None = None

    @classmethod
    def of(cls, step_name: str, client: Any, failure_name: str | None = None) -> RowColumns:
        """Return the columns of a step.

        Args:
            step_name: the name of the step.
            client: the step's client, see `clients.batch_client`; `None` for none.
            failure_name: the name of the failure column; `None` for the name of `add_failures`.
        """
        adds_failures, keeps_reasoning = (getattr(client, name, False) for name in ("add_failures", "keep_reasoning"))
        return cls(
            (failure_name or failure_columns.column_name(step_name)) if adds_failures else None,
            reasoning_columns.column_name(step_name) if keeps_reasoning else None,
        )

    @property
    def names(self) -> list[str]:
        """Names of the columns that the step adds."""
        return [name for name in (self.failure, self.reasoning) if name]

    def __bool__(self) -> bool:
        return self.failure is not None or self.reasoning is not None

    def fill(self, rows: Rows, output: Mapping[str, Any]) -> None:
        """Add the columns to the rows that distilabel made of one output of an LLM."""
        if self.failure:
            _add(rows, self.failure, failure_columns.output_cells(output, len(rows)))
        if self.reasoning:
            _add(rows, self.reasoning, reasoning_columns.output_cells(output, len(rows)))


formatted_outputs: ContextVar[list[int] | None] = ContextVar("formatted_outputs", default=None)
"""The rows of each output that `_Task._format_outputs` formatted for the running row group."""

row_columns: ContextVar[RowColumns | None] = ContextVar("row_columns", default=None)
"""The columns of the step while `RowGroups` runs a row group; `None` elsewhere."""


def add_row_columns(
    step: Any,
    columns: RowColumns,
    log: CallLog,
    input_rows: Rows | None,
    rows: Rows,
    group_error: Exception | None = None,
) -> Rows:
    """Return the output rows of the running row group with the columns of the step.

    Args:
        step: the step that made the rows.
        columns: the columns.
        log: the log of the group's calls.
        input_rows: the group's input rows; `None` for a generator step.
        rows: the group's output rows.
        group_error: the error of `process`, if `process` raised.
    """
    names, failure = columns.names, columns.failure
    if group_error is None and formatted_outputs.get() and all(name in row for row in rows for name in names):
        if failure:
            rows = [row | {failure: failure_columns.merge_generations(row[failure])} for row in rows]
        return rows
    step_outputs = [name for name in step.get_outputs() if name not in names]
    rows = [dict(row) for row in rows]
    places = failure_columns.input_places(input_rows, rows, log.calls, step_outputs)
    if failure:
        _add(rows, failure, failure_columns.match_failures(places, rows, log.calls, step_outputs, group_error))
    if columns.reasoning:
        _add(rows, columns.reasoning, reasoning_columns.match_reasoning(places, log.calls, len(rows)))
    return rows


def _add(rows: Rows, name: str, cells: Iterable[Any]) -> None:
    for row, cell in zip(rows, cells, strict=True):
        row[name] = cell
