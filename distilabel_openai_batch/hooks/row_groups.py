"""Row groups of a Task, processed side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import greenback
from distilabel.steps import GlobalStep, Step

from distilabel_openai_batch.engine.calls import outcomes_seen
from distilabel_openai_batch.hooks import failure_columns
from distilabel_openai_batch.hooks.step_process import STOPS_THE_PIPELINE, _formatted, _reasons_column, _seed

_process_applying_mappings = Step.process_applying_mappings


async def process_side_by_side(
    task: Any,
    client: Any,
    groups: Sequence[tuple[list[dict[str, Any]], ...]],
    finished: Callable[[int, list[dict[str, Any]]], None],
    reasons: str | None = None,
) -> None:
    """Processes row groups of a Task, or another step, of ours, all side by side.

    Each group's ordinary synchronous `process` runs under greenback, where the blocking `generate` can await. Groups
    start in order and give way only where they await, so that a second run asks the same questions. A group that raises
    is imputed with `None`s, as distilabel does for a normal step; what concerns the whole run is raised.

    Args:
        task: loaded.
        client: what it asks with.
        groups: the arguments of `process` for each.
        finished: is given each group's index and output rows as soon as they are there.
        reasons: the column that says why a row has no answer, in place of that of `add_failures`.
    """
    column = (reasons or failure_columns.column(task.name)) if client.add_failures else None
    stops: list[Exception] = []

    async def process(index: int) -> None:
        outcomes_seen.set([])
        _formatted.set([])
        _reasons_column.set(column)
        await greenback.ensure_portal()
        _seed(task, index)
        lost: Exception | None = None
        try:
            rows = next(_process_applying_mappings(task, *groups[index]))
        except STOPS_THE_PIPELINE as error:
            stops.append(error)
            return
        except Exception as error:
            task._logger.warning(
                f"⚠️ Processing row group {index} with step '{task.name}' failed: {error!r}. Its rows are filled with"
                " `None`s."
            )
            rows = task.impute_step_outputs(groups[index][0])
            lost = error
        if column:
            rows = _with_reasons(task, column, groups[index][0], rows, lost)
        finished(index, rows)

    async with client.session(), anyio.create_task_group() as task_group:
        for index in range(len(groups)):
            task_group.start_soon(process, index)
    if stops:
        raise stops[0]


def _row_groups(step: Any, args: tuple[list[dict[str, Any]], ...]) -> list[tuple[list[dict[str, Any]], ...]]:
    """Cuts a step's rows as distilabel would have, had the step not been made global by us.

    A step that is global by its own nature keeps its rows together, and so does one with several predecessors' rows
    side by side, which belong together.
    """
    if isinstance(step, GlobalStep) or len(args) != 1 or not args[0]:
        return [args]
    [rows] = args
    size = step.input_batch_size
    return [(rows[start : start + size],) for start in range(0, len(rows), size)]


def _with_reasons(
    step: Any,
    column: str,
    given: list[dict[str, Any]] | None,
    rows: list[dict[str, Any]],
    lost: Exception | None = None,
) -> list[dict[str, Any]]:
    """Gives each row its column of failures."""
    if lost is None and _formatted.get() and all(column in row for row in rows):
        return [row | {column: failure_columns.grouped(row[column])} for row in rows]
    made = [name for name in step.get_outputs() if name != column]
    reasons = failure_columns.beside(given, rows, outcomes_seen.get() or [], made, lost)
    return [row | {column: reason} for row, reason in zip(rows, reasons, strict=True)]
