"""Steps that run a Task's batch jobs in other ways than blocking until all of them have ended."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import orjson
from anyio.from_thread import start_blocking_portal
from datasets import Dataset
from distilabel.errors import DistilabelUserError
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps import GeneratorStep
from distilabel.steps.tasks.base import _Task
from pydantic import Field, PrivateAttr, field_validator

from distilabel_openai_batch import hooks, rows
from distilabel_openai_batch.llm import OpenAIBatchLLM, holds_one

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput

_Rows = list[dict[str, Any]]


class StreamBatchResults(GeneratorStep):
    """Runs a Task over rows in batch jobs, and yields the results of each job as soon as it has ended.

    The steps after it work while other jobs are still under way. `max_requests_per_job` of the Task's LLM sets how many
    rows come at once. Whatever dies, the next run takes what was answered from the ledger, as with `OpenAIBatchLLM`.

    Attributes:
        task: the Task, with an `OpenAIBatchLLM`. Its columns, mappings and `input_batch_size` apply. It is no step of
            the pipeline by itself.
        data: the rows: a list of dictionaries, a `datasets.Dataset`, the path of a JSONL, CSV or Parquet file, or the
            id of a dataset on the Hub. Only a path or an id is written to a pipeline's YAML.
        config: the configuration of a dataset on the Hub. Defaults to `None`.
        split: the split of a dataset on the Hub. Defaults to `"train"`.
        ordered: whether rows come in the order of `data`. Otherwise those that are there first come first. Defaults to
            `True`.

    Runtime parameters:
        - `batch_size`: the number of rows that are yielded at once. Defaults to `50`.
        - `config`: the configuration of a dataset on the Hub.
        - `split`: the split of a dataset on the Hub. Defaults to `"train"`.
        - `ordered`: whether rows come in the order of `data`. Defaults to `True`.

    Output columns:
        - dynamic (the columns of `data`, and the Task's output columns).

    Categories:
        - load
        - text-generation

    Examples:
        Measure generations while later jobs are still running:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import KeepColumns
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults

        with Pipeline(name="streaming") as pipeline:
            stream = StreamBatchResults(
                task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini", max_requests_per_job=1_000)),
                data="instructions.jsonl",
            )
            stream >> KeepColumns(columns=["instruction", "generation"])

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    task: _Task
    data: Any = Field(default=None, description="The rows, their file's path, or their dataset's id on the Hub.")
    config: RuntimeParameter[str] | None = Field(default=None, description="The configuration of a dataset on the Hub.")
    split: RuntimeParameter[str] = Field(default="train", description="The split of a dataset on the Hub.")
    ordered: RuntimeParameter[bool] = Field(default=True, description="Whether rows come in the order of `data`.")

    _loaded_rows: Sequence[dict[str, Any]] | None = PrivateAttr(None)

    @field_validator("task")
    @classmethod
    def _is_a_batch_task(cls, task: _Task) -> _Task:
        return batch_task(task)

    def model_post_init(self, __context: Any) -> None:
        """Takes the Task out of the pipeline, which would want to run it by itself."""
        super().model_post_init(__context)
        take_out_of_pipeline(self.task)

    @property
    def outputs(self) -> list[str]:
        """The columns of the rows, and those that the Task adds.

        Raises:
            DistilabelUserError: a column that the Task needs is missing, or there are no rows.
        """
        found = rows.columns(self._rows())
        required = [column for column, needed in self.task.get_inputs().items() if needed]
        if missing := [column for column in required if column not in found]:
            raise DistilabelUserError(
                f"'{self.name}' runs a {type(self.task).__name__}, which needs the columns {required}; `data` has"
                f" {found}. Map them: `task={type(self.task).__name__}(…, input_mappings="
                f"{dict.fromkeys(missing, found[0])})`."
            )
        return list(dict.fromkeys([*found, *self.task.get_outputs()]))

    @property
    def signature(self) -> str:
        """As distilabel's, and of the rows too: another list is another dataset."""
        if self.data is None or isinstance(self.data, str):
            return str(super().signature)
        return hashlib.sha1(f"{super().signature}{_digest(self._rows())}".encode(), usedforsecurity=False).hexdigest()

    def load(self) -> None:
        """Loads the Task, with its LLM."""
        super().load()
        self.task.load()

    def unload(self) -> None:
        """Unloads the Task."""
        self.task.unload()
        super().unload()

    def process(self, offset: int = 0) -> GeneratorStepOutput:
        """Yields the rows with the Task's output columns.

        Args:
            offset: how many rows are left out. With `ordered=False` only `0` says which.

        Yields:
            Rows, and whether they are the last ones.

        Raises:
            RunError: the run cannot go on.
        """
        source = self._rows()
        if hooks.is_dry_run():
            source = [source[index] for index in range(min(self.batch_size, len(source)))]
        # A group's rows come together, when the last of its jobs has ended.
        size = min(self.task.input_batch_size, self.task.llm.max_requests_per_job)
        with closing(results(self.task, rows.groups(source, size), self.ordered)) as found:
            yield from in_batches(found, self.batch_size, offset)

    def _rows(self) -> Sequence[dict[str, Any]]:
        if self._loaded_rows is None:
            self._loaded_rows = rows.load_rows(self.data if self.data is not None else [], self.config, self.split)
        return self._loaded_rows

    def _model_dump(self, obj: Any, **kwargs: Any) -> dict[str, Any]:
        dump: dict[str, Any] = super()._model_dump(obj, **kwargs)
        if not isinstance(self.data, str):
            del dump["data"]
        return dump


def batch_task(task: _Task) -> _Task:
    """Returns a Task that can be run in batch jobs.

    Raises:
        ValueError: it cannot.
    """
    name = type(task).__name__
    if task.is_generator:
        raise ValueError(f"{name} makes its own rows, and takes none. Use it as a step of its own.")
    if not holds_one(task):
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


def results(task: _Task, row_groups: Sequence[tuple[_Rows, ...]], ordered: bool) -> Generator[_Rows, None, None]:
    """Processes row groups in batch jobs, and yields each one's output rows once they are there.

    The jobs are run on a thread of their own: they go on while nobody asks for rows. Closing ends it; what is under way
    at the server goes on.

    Args:
        task: loaded.
        row_groups: the arguments of its `process`.
        ordered: whether they come in this order, rather than in that in which they were finished.

    Raises:
        RunError: the run cannot go on.
    """
    finished: SimpleQueue[tuple[int, _Rows] | None] = SimpleQueue()

    async def process() -> None:
        try:
            await hooks.process_side_by_side(task, row_groups, lambda index, found: finished.put((index, found)))
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


def _digest(source: Sequence[dict[str, Any]]) -> str:
    if isinstance(source, Dataset):
        return str(source._fingerprint)
    digest = hashlib.sha256()
    for row in source:
        digest.update(orjson.dumps(row, default=repr, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS))
    return digest.hexdigest()


# YAML names a class by its module: this is where they stay, wherever they are defined.
StreamBatchResults.__module__ = OpenAIBatchLLM.__module__
