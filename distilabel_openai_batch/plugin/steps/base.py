"""Parts that the three steps share."""

# No `from __future__ import annotations` in this folder: distilabel inspects the annotations of steps.

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import anyio
import anyio.lowlevel
import orjson
from anyio.from_thread import start_blocking_portal
from distilabel.errors import DistilabelUserError
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task
from pydantic import Field, field_validator

from distilabel_openai_batch.display.brief_errors import mark_brief
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.hooks.row_groups import RowGroups
from distilabel_openai_batch.plugin.checked_arguments import CheckedArguments
from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM

Rows = list[dict[str, Any]]

JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
"""Options of orjson for rows: numpy arrays and keys that are no text are accepted."""


def check_task(task: _Task) -> _Task:
    """Return the Task, if batch jobs can run the Task.

    Raises:
        ValueError: the Task generates its own rows, or has no `OpenAIBatchLLM`.
    """
    name = type(task).__name__
    if task.is_generator:
        raise ValueError(f"{name} makes its own rows and takes no input. Use {name} as a step of the pipeline.")
    if not isinstance(getattr(task, "llm", None), OpenAIBatchLLM):
        raise ValueError(
            f"{name} must hold an OpenAIBatchLLM, and holds {type(getattr(task, 'llm', None)).__name__}. Write"
            f" {name}(llm=OpenAIBatchLLM(model=…))."
        )
    return task


def remove_from_pipeline(task: _Task) -> None:
    """Remove a Task from its pipeline: a Task created in a pipeline's context is a step, and would run as one."""
    if task.pipeline is not None:
        graph = task.pipeline.dag.G
        if task.name in graph and task.pipeline.dag.get_step(task.name)["step"] is task:
            graph.remove_node(task.name)
        task.pipeline = None


def check_columns(name: str, task: _Task, columns: Sequence[str]) -> None:
    """Check that rows have the columns that a Task needs.

    Args:
        name: name of the step, for the error.
        task: the Task.
        columns: names of the rows' columns.

    Raises:
        DistilabelUserError: a column is missing.
    """
    required = [column for column, is_required in task.get_inputs().items() if is_required]
    if missing := [column for column in required if column not in columns]:
        task_name = type(task).__name__
        raise mark_brief(
            DistilabelUserError(
                f"'{name}' runs a {task_name}, which needs the columns {required}; the rows have {list(columns)}. Map"
                f" them: {task_name}(…, input_mappings={dict.fromkeys(missing, columns[0])})."
            )
        )


class TaskStep(CheckedArguments, _Step):
    """Step that runs a Task, which itself is no step of the pipeline."""

    task: _Task = Field(
        description=(
            "Task to run, with an `OpenAIBatchLLM`. The Task's columns, mappings and `input_batch_size` apply. The"
            " pipeline does not run the Task as a step of its own."
        )
    )

    _check_task = field_validator("task")(check_task)

    def model_post_init(self, __context: Any) -> None:
        """Remove the Task from the pipeline."""
        super().model_post_init(__context)
        remove_from_pipeline(self.task)

    def load(self) -> None:
        """Load the Task and its LLM."""
        super().load()
        if run := self._submission():
            self.task.llm.join_submission(run)
        self.task.load()

    def unload(self) -> None:
        """Unload the Task."""
        self.task.unload()
        super().unload()

    def _submission(self) -> SubmissionRun | None:
        """Return the submission that the Task is part of; `None` if there is none."""
        return None


class _StreamedGroups:
    """The row groups that a stream has started and not yielded, in the event loop of the stream's thread.

    Args:
        task: the loaded Task.
        job_rows: number of rows in a job.
        max_jobs: number of jobs whose rows are read ahead, at most.
        finished: called with a group's index and output rows, and with `None` when no group is left.
        reasons: see `process_row_groups`.
    """

    def __init__(
        self,
        task: _Task,
        job_rows: int,
        max_jobs: int,
        finished: Callable[[tuple[int, Rows] | None], None],
        reasons: str | None,
    ) -> None:
        self._finished = finished
        self._job_rows = job_rows
        self._max_rows = job_rows * max_jobs
        self._group_sizes: dict[int, int] = {}
        self._rows = 0
        self._row_groups = RowGroups(task, task.llm, lambda *group: finished(group), reasons)

    async def run(self, groups: Iterable[tuple[Rows, ...]]) -> None:
        """Process row groups, and read the groups of a job when there is room for all its rows."""
        self._room = anyio.Event()
        try:
            await self._row_groups.run(partial(self._feed, groups))
        finally:
            self._finished(None)

    async def _feed(self, groups: Iterable[tuple[Rows, ...]], session: Session) -> None:
        session.hold()
        for index, group in enumerate(groups):
            self._group_sizes[index] = size = len(group[0])
            self._rows += size
            self._row_groups.start(index, group)
            await anyio.lowlevel.checkpoint()
            if self._rows >= self._max_rows:
                session.release(more_may_come=True)
                # The rows of a job are yielded group by group → wait for the last, or each group would be a job.
                while self._rows > self._max_rows - self._job_rows:
                    self._room = anyio.Event()
                    await self._room.wait()
                session.hold()
        session.release()

    def add_yielded(self, index: int) -> None:
        """Free the room of a group."""
        self._rows -= self._group_sizes.pop(index)
        self._room.set()


def process_row_groups(
    task: _Task,
    row_groups: Iterable[tuple[Rows, ...]],
    ordered: bool,
    reasons: str | None = None,
) -> Generator[Rows, None, None]:
    """Process row groups in batch jobs, and yield the output rows of each group.

    A thread of its own reads the groups and runs the jobs, so they go on while the caller handles rows. Groups are read
    ahead as far as they keep all jobs of the LLM busy. Closing the generator ends the thread; jobs in progress on the
    server go on.

    Args:
        task: a loaded Task.
        row_groups: the arguments of the Task's `process` for each group.
        ordered: yield groups in the given order; with `False`, in the order in which they are finished.
        reasons: name of the column for the reason of a missing answer, in place of the column of `add_failures`.

    Raises:
        RunError: the run cannot go on.
    """
    finished: SimpleQueue[tuple[int, Rows] | None] = SimpleQueue()
    streamed = _StreamedGroups(task, task.llm.max_requests_per_job, task.llm.max_jobs, finished.put, reasons)
    with start_blocking_portal() as portal:
        running = portal.start_task_soon(streamed.run, row_groups)
        try:
            waiting: dict[int, Rows] = {}
            next_index = 0
            while (group := finished.get()) is not None:
                index, rows = group
                if ordered:
                    waiting[index] = rows
                else:
                    waiting, next_index = {index: rows}, index
                while next_index in waiting:
                    # The caller takes the last group of a job only with the first of the next → free the room before.
                    portal.start_task_soon(streamed.add_yielded, next_index)
                    yield waiting.pop(next_index)
                    next_index += 1
            running.result()
        finally:
            running.cancel()


def split_into_batches(row_lists: Iterator[Rows], size: int, offset: int = 0) -> Iterator[tuple[Rows, bool]]:
    """Split rows into batches of one size.

    Args:
        row_lists: rows, in lists of any length.
        size: number of rows in a batch.
        offset: number of rows to skip at the beginning.

    Yields:
        The rows of a batch, and whether the batch is the last one.
    """
    held: Rows = []
    for rows in row_lists:
        skipped = min(offset, len(rows))
        offset -= skipped
        held += rows[skipped:]
        # Keep at least one row back → a batch that is yielded here is not the last one.
        while len(held) > size:
            yield held[:size], False
            held = held[size:]
    yield held, True
