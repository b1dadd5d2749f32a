"""Process the row groups of a Task concurrently.

A Task with a client is given its whole dataset in one call, see `scheduling`. This module cuts the dataset into the row
groups that distilabel would have made, and runs the Task's unchanged `process` for all groups at the same time: the
requests of all groups go into one job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import anyio
import greenback
from distilabel.steps import GlobalStep, Step

from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks import failure_columns
from distilabel_openai_batch.hooks.registry import original_of
from distilabel_openai_batch.hooks.step_process import PIPELINE_STOPPING_ERRORS, seed_random_numbers

formatted_outputs: ContextVar[list[int] | None] = ContextVar("formatted_outputs", default=None)
"""The rows of each output that `_Task._format_outputs` formatted for the running row group."""

failure_column: ContextVar[str | None] = ContextVar("failure_column", default=None)
"""The failure column's name while `process_side_by_side` runs a row group; `None` elsewhere."""


async def process_side_by_side(
    task: Any,
    client: Any,
    groups: Sequence[tuple[list[dict[str, Any]], ...]],
    finished: Callable[[int, list[dict[str, Any]]], None],
    failure_column_name: str | None = None,
) -> None:
    """Process row groups of a step concurrently.

    Each group's synchronous `process` runs under greenback, so that the blocking `generate` can await. Groups start in
    order and switch only where a group awaits, so that a second run makes equal requests in the same order. If a group
    raises, the group's rows get `None`s, as distilabel does for an ordinary step.

    Args:
        task: the loaded step.
        client: the step's client, see `clients.batch_client`.
        groups: the arguments of `process` for each group.
        finished: called with a group's index and output rows as soon as the group is done.
        failure_column_name: the column for failures; by default the column of `add_failures`.

    Raises:
        RunError: the run cannot continue.
        DistilabelOfflineBatchGenerationNotFinishedException: the run stops before all jobs have ended.
    """
    column = (failure_column_name or failure_columns.column_name(task.name)) if client.add_failures else None
    process_applying_mappings = original_of(Step, "process_applying_mappings")
    stopping_errors: list[Exception] = []

    async def process(index: int) -> None:
        log = CallLog()
        formatted_outputs.set([])
        failure_column.set(column)
        await greenback.ensure_portal()
        seed_random_numbers(task, index)
        group_error: Exception | None = None
        try:
            with log.activate():
                rows = next(process_applying_mappings(task, *groups[index]))
        except PIPELINE_STOPPING_ERRORS as error:
            stopping_errors.append(error)
            return
        except Exception as error:
            task._logger.warning(f"⚠️ Row group {index} of step '{task.name}' failed and gets `None`s: {error!r}.")
            rows = task.impute_step_outputs(groups[index][0])
            group_error = error
        if column:
            rows = add_failure_column(task, column, log, groups[index][0], rows, group_error)
        finished(index, rows)

    async with client.session(), anyio.create_task_group() as task_group:
        for index in range(len(groups)):
            task_group.start_soon(process, index)
    if stopping_errors:
        raise stopping_errors[0]


def split_into_row_groups(step: Any, args: tuple[list[dict[str, Any]], ...]) -> list[tuple[list[dict[str, Any]], ...]]:
    """Cut a step's rows into the batches that distilabel would send if the step were not made global.

    A step that is a `GlobalStep` by itself keeps all rows together. So does a step with several predecessors, whose
    rows belong together.

    Args:
        step: the step.
        args: the arguments of `process`: the rows of each predecessor.

    Returns:
        The arguments of `process` for each group.
    """
    if isinstance(step, GlobalStep) or len(args) != 1 or not args[0]:
        return [args]
    [rows] = args
    size = step.input_batch_size
    return [(rows[start : start + size],) for start in range(0, len(rows), size)]


def add_failure_column(
    step: Any,
    column: str,
    log: CallLog,
    input_rows: list[dict[str, Any]] | None,
    rows: list[dict[str, Any]],
    group_error: Exception | None = None,
) -> list[dict[str, Any]]:
    """Return the output rows of the running row group, each with the failure column.

    Args:
        step: the step that made the rows.
        column: the column's name.
        log: the log of the group's calls.
        input_rows: the group's input rows; `None` for a generator step.
        rows: the group's output rows.
        group_error: the error of `process`, if `process` raised.
    """
    if group_error is None and formatted_outputs.get() and all(column in row for row in rows):
        return [row | {column: failure_columns.merge_generations(row[column])} for row in rows]
    step_outputs = [name for name in step.get_outputs() if name != column]
    cells = failure_columns.match_failures(input_rows, rows, log.calls, step_outputs, group_error)
    return [row | {column: cell} for row, cell in zip(rows, cells, strict=True)]
