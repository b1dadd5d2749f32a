"""Process the row groups of a Task concurrently.

A row group is the rows of one call of the Task's unchanged `process`: a batch of distilabel. All groups run at the same
time, so that their requests go into one job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import greenback
from anyio.abc import TaskGroup
from distilabel.steps import GlobalStep, Step

from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks.empty_rows import AnswerGuard, MissingInputs
from distilabel_openai_batch.hooks.registry import original_of
from distilabel_openai_batch.hooks.row_columns import RowColumns, add_row_columns, formatted_outputs, row_columns
from distilabel_openai_batch.hooks.step_process import PIPELINE_STOPPING_ERRORS, seed_random_numbers

Rows = list[dict[str, Any]]


class RowGroups:
    """The row groups of a Task, which run concurrently.

    Each group's synchronous `process` runs under greenback, so that the blocking `generate` can await. Groups start in
    order and switch only where a group awaits, so that a second run makes equal requests in the same order. If a group
    raises, the group's rows get `None`s, as distilabel does for an ordinary step.

    Args:
        task: the loaded step.
        client: the step's client, see `clients.batch_client`.
        finished: called with a group's index and output rows as soon as the group is done.
        failure_column_name: the column for failures; by default the column of `add_failures`.

    Attributes:
        guard: the rows without a generation.
    """

    def __init__(
        self,
        task: Any,
        client: Any,
        finished: Callable[[int, Rows], None],
        failure_column_name: str | None = None,
    ) -> None:
        self._task = task
        self._client = client
        self._finished = finished
        self._columns = RowColumns.of(task.name, client, failure_column_name)
        self._inputs = MissingInputs(task, client)
        client.check_rows_by(self._inputs.check)
        self.guard = AnswerGuard(task, client)
        self._process = original_of(Step, "process_applying_mappings")
        self._stopping_errors: list[Exception] = []
        self._task_group: TaskGroup

    async def run(self, feed: Callable[[Any], Awaitable[None]]) -> None:
        """Run the groups that `feed` starts, until all are done.

        Args:
            feed: calls `start` for each group; is given the session of the client. `feed` and all groups are cancelled
                as soon as a group raises an error that stops the pipeline.

        Raises:
            RunError: the run cannot continue.
            DistilabelOfflineBatchGenerationNotFinishedException: the run stops before all jobs have ended.
            Exception: the error of `feed`.
        """
        async with self._client.session() as session, anyio.create_task_group() as self._task_group:
            try:
                await feed(session)
            except Exception as error:
                self._stop(error)
        if self._stopping_errors:
            raise self._stopping_errors[0]

    def start(self, index: int, group: tuple[Rows, ...]) -> None:
        """Start a group.

        Args:
            index: the group's number, which seeds the group's random numbers.
            group: the arguments of `process`: the rows of each predecessor.
        """
        self._inputs.add(group)
        self._task_group.start_soon(self._run_group, index, group)

    def _stop(self, error: Exception) -> None:
        self._stopping_errors.append(error)
        self._task_group.cancel_scope.cancel()

    async def _run_group(self, index: int, group: tuple[Rows, ...]) -> None:
        task, columns = self._task, self._columns
        log = CallLog()
        formatted_outputs.set([])
        row_columns.set(columns)
        await greenback.ensure_portal()
        seed_random_numbers(task, index)
        group_error: Exception | None = None
        try:
            with log.activate():
                rows = next(self._process(task, *group))
        except PIPELINE_STOPPING_ERRORS as error:
            self._stop(error)
            return
        except Exception as error:
            task._logger.warning(f"⚠️ Row group {index} of step '{task.name}' failed and gets `None`s: {error!r}.")
            rows = task.impute_step_outputs(group[0])
            group_error = error
        self.guard.add(log, max(map(len, group), default=0))
        if columns:
            rows = add_row_columns(task, columns, log, group[0], rows, group_error)
        self._finished(index, rows)


async def process_side_by_side(
    task: Any,
    client: Any,
    groups: Iterable[tuple[Rows, ...]],
    finished: Callable[[int, Rows], None],
    failure_column_name: str | None = None,
) -> None:
    """Process row groups concurrently.

    Args:
        task: see `RowGroups`.
        client: see `RowGroups`.
        groups: the arguments of `process` for each group.
        finished: see `RowGroups`.
        failure_column_name: see `RowGroups`.

    Raises:
        RunError: the run cannot continue.
        DistilabelOfflineBatchGenerationNotFinishedException: the run stops before all jobs have ended.
    """
    row_groups = RowGroups(task, client, finished, failure_column_name)

    async def feed(_session: Any) -> None:
        for index, group in enumerate(groups):
            row_groups.start(index, group)

    await row_groups.run(feed)


def split_into_row_groups(step: Any, args: tuple[Rows, ...]) -> list[tuple[Rows, ...]]:
    """Cut a step's rows into the batches that distilabel sends to the step.

    Args:
        step: the step. A `GlobalStep` gets all rows in one batch.
        args: the rows of each predecessor.

    Returns:
        The arguments of `process` for each batch.
    """
    longest = max(map(len, args), default=0)
    size = longest if isinstance(step, GlobalStep) else step.input_batch_size
    if not longest:
        return [args]
    return [tuple(rows[start : start + size] for rows in args) for start in range(0, longest, size)]
