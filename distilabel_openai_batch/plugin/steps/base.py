"""Parts that the three steps share."""

from collections.abc import Generator, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import orjson
from anyio.from_thread import start_blocking_portal
from distilabel.errors import DistilabelUserError
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task
from pydantic import Field, field_validator

from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.hooks.row_groups import process_side_by_side
from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM

_Rows = list[dict[str, Any]]
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def batch_task(task: _Task) -> _Task:
    """Returns a Task that can be run in batch jobs.

    Raises:
        ValueError: it cannot.
    """
    name = type(task).__name__
    if task.is_generator:
        raise ValueError(f"{name} makes its own rows, and takes none. Use it as a step of its own.")
    if not isinstance(getattr(task, "llm", None), OpenAIBatchLLM):
        raise ValueError(
            f"{name} must hold an OpenAIBatchLLM, and holds {type(getattr(task, 'llm', None)).__name__}. Write"
            f" {name}(llm=OpenAIBatchLLM(model=…))."
        )
    return task


def take_out_of_pipeline(task: _Task) -> None:
    """A Task that was made within a pipeline's context is a step of it, and would be run by it."""
    if task.pipeline is not None:
        graph = task.pipeline.dag.G
        if task.name in graph and task.pipeline.dag.get_step(task.name)["step"] is task:
            graph.remove_node(task.name)
        task.pipeline = None


def check_columns(name: str, task: _Task, found: Sequence[str]) -> None:
    """Checks that rows have what a Task needs.

    Raises:
        DistilabelUserError: a column is missing.
    """
    required = [column for column, needed in task.get_inputs().items() if needed]
    if missing := [column for column in required if column not in found]:
        task_name = type(task).__name__
        raise DistilabelUserError(
            f"'{name}' runs a {task_name}, which needs the columns {required}; the rows have {list(found)}. Map them:"
            f" {task_name}(…, input_mappings={dict.fromkeys(missing, found[0])})."
        )


class _RunsATask(_Step):
    """What runs a Task that is no step of the pipeline by itself."""

    task: _Task = Field(
        description=(
            "Task to run, with an `OpenAIBatchLLM`. The Task's columns, mappings and `input_batch_size` apply. The"
            " pipeline does not run the Task as a step of its own."
        )
    )

    _is_a_batch_task = field_validator("task")(batch_task)

    def model_post_init(self, __context: Any) -> None:
        """Takes the Task out of the pipeline, which would want to run it."""
        super().model_post_init(__context)
        take_out_of_pipeline(self.task)

    def load(self) -> None:
        """Loads the Task, with its LLM."""
        super().load()
        if run := self._run():
            self.task.llm.join_submission(run)
        self.task.load()

    def unload(self) -> None:
        """Unloads the Task."""
        self.task.unload()
        super().unload()

    def _run(self) -> SubmissionRun | None:
        """The submission that the Task takes part in, if it does."""
        return None


def results(
    task: _Task,
    row_groups: Sequence[tuple[_Rows, ...]],
    ordered: bool,
    reasons: str | None = None,
) -> Generator[_Rows, None, None]:
    """Processes row groups in batch jobs, and yields each one's output rows once they are there.

    The jobs are run on a thread of their own: they go on while nobody asks for rows. Closing ends it; what is under way
    at the server goes on.

    Args:
        task: loaded.
        row_groups: the arguments of its `process`.
        ordered: whether they come in this order, rather than in that in which they were finished.
        reasons: the column that says why a row has no answer, in place of that of `add_failures`.

    Raises:
        RunError: the run cannot go on.
    """
    finished: SimpleQueue[tuple[int, _Rows] | None] = SimpleQueue()

    def is_finished(index: int, found: _Rows) -> None:
        finished.put((index, found))

    async def process() -> None:
        try:
            await process_side_by_side(task, task.llm, row_groups, is_finished, reasons)
        finally:
            finished.put(None)

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(process)
        try:
            early: dict[int, _Rows] = {}
            due = 0
            while (result := finished.get()) is not None:
                index, found = result
                if not ordered:
                    yield found
                    continue
                early[index] = found
                while due in early:
                    yield early.pop(due)
                    due += 1
            running.result()
        finally:
            running.cancel()


def in_batches(found: Iterator[_Rows], size: int, offset: int = 0) -> Iterator[tuple[_Rows, bool]]:
    """Cuts rows into batches of one size, and says which is the last one.

    Args:
        found: rows as they come.
        size: the rows of a batch.
        offset: how many rows are left out.
    """
    held: _Rows = []
    for some in found:
        left_out = min(offset, len(some))
        offset -= left_out
        held += some[left_out:]
        # One row is kept back: what is yielded before it is not the last.
        while len(held) > size:
            yield held[:size], False
            held = held[size:]
    yield held, True
