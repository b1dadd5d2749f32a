"""Steps that run a Task's batch jobs in other ways than blocking until all of them have ended."""

# No `from __future__ import annotations`: distilabel looks for `StepInput` in a function's annotations themselves.

import hashlib
import os
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, List  # noqa: UP035

import orjson
from anyio.from_thread import start_blocking_portal
from datasets import Dataset
from distilabel import envs
from distilabel.constants import SIGINT_HANDLER_CALLED_ENV_NAME
from distilabel.errors import DistilabelUserError
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps import GeneratorStep, GlobalStep, StepInput
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task
from pydantic import Field, PrivateAttr, field_validator, model_validator
from typing_extensions import Self

from distilabel_openai_batch.api.outcomes import OTHER_BATCH
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import Run
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks import failure_columns
from distilabel_openai_batch.hooks.row_groups import process_side_by_side
from distilabel_openai_batch.hooks.row_storage import survives_json
from distilabel_openai_batch.hooks.step_process import STOPS_THE_PIPELINE, is_dry_run, sends_nothing_more
from distilabel_openai_batch.llm import OpenAIBatchLLM
from distilabel_openai_batch.rows import columns, first, groups, load_rows

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput

FAILURE_COLUMN = "batch_failure"
"""The column of `LoadBatchResults` that says why a row has no answer; `None` where it has one."""

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


def as_json(name: str, columns: Collection[str], row: dict[str, Any]) -> bytes:
    """A row as it is kept until it is loaded.

    Args:
        name: of the step that keeps it.
        columns: those that requests are made of.
        row: which.

    Raises:
        RunError: JSON has no such values, or makes others of those that requests are made of.
    """
    for column, value in row.items():
        try:
            kept = orjson.dumps(value, option=_JSON)
        except orjson.JSONEncodeError as error:
            raise RunError(
                f"'{name}' keeps its rows as JSON, which cannot hold the column '{column}': {error}. Make it text, or"
                " drop it, in a step before. Nothing was submitted."
            ) from None
        if column in columns and not survives_json(value):
            made = orjson.loads(kept)
            raise RunError(
                f"'{name}' keeps its rows as JSON, which makes {made!r:.80} of {value!r:.80} in the column '{column}':"
                " other requests would be loaded than were submitted. Make it text in a step before. Nothing was"
                " submitted."
            )
    return orjson.dumps(row, option=_JSON)


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

    task: _Task = Field(description="The Task, with an `OpenAIBatchLLM`; it is no step of the pipeline by itself.")

    _is_a_batch_task = field_validator("task")(batch_task)

    def model_post_init(self, __context: Any) -> None:
        """Takes the Task out of the pipeline, which would want to run it."""
        super().model_post_init(__context)
        take_out_of_pipeline(self.task)

    def load(self) -> None:
        """Loads the Task, with its LLM."""
        super().load()
        if run := self._run():
            self.task.llm.takes_part_in(run)
        self.task.load()

    def unload(self) -> None:
        """Unloads the Task."""
        self.task.unload()
        super().unload()

    def _run(self) -> Run | None:
        """The submission that the Task takes part in, if it does."""
        return None


class StreamBatchResults(_RunsATask, GeneratorStep):
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

    # Excluded, as distilabel takes from a new pipeline what its cache leaves out.
    data: Any = Field(
        default=None, exclude=True, description="The rows, their file's path, or their dataset's id on the Hub."
    )
    config: RuntimeParameter[str] | None = Field(default=None, description="The configuration of a dataset on the Hub.")
    split: RuntimeParameter[str] = Field(default="train", description="The split of a dataset on the Hub.")
    ordered: RuntimeParameter[bool] = Field(
        default=True, description="Whether rows come in the order of `data`; else as they are answered."
    )

    _loaded_rows: Sequence[dict[str, Any]] | None = PrivateAttr(None)

    @property
    def outputs(self) -> list[str]:
        """The columns of the rows, and those that the Task adds.

        Raises:
            DistilabelUserError: a column that the Task needs is missing, or there are no rows.
        """
        found = columns(self._rows())
        check_columns(str(self.name), self.task, found)
        return list(dict.fromkeys([*found, *self.task.get_outputs()]))

    @property
    def signature(self) -> str:
        """As distilabel's, and of the rows too: another list is another dataset."""
        if self.data is None or isinstance(self.data, str):
            return str(super().signature)
        return hashlib.sha1(f"{super().signature}{_digest(self._rows())}".encode(), usedforsecurity=False).hexdigest()

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        """Yields the rows with the Task's output columns.

        Args:
            offset: how many rows are left out. With `ordered=False` only `0` says which.

        Yields:
            Rows, and whether they are the last ones.

        Raises:
            RunError: the run cannot go on.
        """
        source = self._rows()
        if is_dry_run():
            source = first(source, self.batch_size)
        # A group's rows come together, when the last of its jobs has ended.
        size = min(self.task.input_batch_size, self.task.llm.max_requests_per_job)
        with closing(results(self.task, groups(source, size), self.ordered)) as found:
            yield from in_batches(found, self.batch_size, offset)

    def _rows(self) -> Sequence[dict[str, Any]]:
        if self._loaded_rows is None:
            self._loaded_rows = load_rows(self.data if self.data is not None else [], self.config, self.split)
        return self._loaded_rows

    def _model_dump(self, obj: Any, **kwargs: Any) -> dict[str, Any]:
        dump: dict[str, Any] = super()._model_dump(obj, **kwargs)
        return dump | {"data": self.data} if isinstance(self.data, str) else dump


class SubmitBatch(_RunsATask, GlobalStep):
    """Submits a Task's batch jobs for its rows, and returns at once.

    Nobody waits for them: `LoadBatchResults` collects what they answer, in another pipeline, on another day, on another
    machine. Submitting the same rows again submits nothing that was submitted before. The rows are kept in the ledger,
    and on the server beside the jobs' input files.

    Attributes:
        task: the Task, with an `OpenAIBatchLLM`. One that asks its LLM in several rounds is submitted round by round:
            run it again when its jobs have ended. It is no step of the pipeline by itself.
        run_name: the name by which the results are loaded. Defaults to the pipeline's and the step's names with a slash
            between them.

    Runtime parameters:
        - `run_name`: the name by which the results are loaded.

    Input columns:
        - dynamic (those that the Task needs; the others are kept too).

    Output columns:
        - run_name (`str`): the name by which the results are loaded, and the scope's on the command line.
        - batch_id (`str`): the server's id of a job.
        - requests (`int`): the requests in it.
        - bytes (`int`): the size of its input file.
        - status (`str`): what the server said of it.
        - base_url (`str`): the server's address.

    Categories:
        - text-generation

    Examples:
        Submit now:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import LoadDataFromDicts
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import OpenAIBatchLLM, SubmitBatch

        with Pipeline(name="submitting") as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
            load >> SubmitBatch(task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini")), run_name="sky")

        if __name__ == "__main__":
            jobs = pipeline.run()
        ```
    """

    run_name: RuntimeParameter[str] | None = Field(
        default=None, description="The name by which the results are loaded; else the pipeline's and the step's."
    )

    @property
    def inputs(self) -> dict[str, bool]:
        """The columns that the Task needs."""
        return dict(self.task.get_inputs())

    @property
    def outputs(self) -> list[str]:
        """What is told of each job."""
        return ["run_name", "batch_id", "requests", "bytes", "status", "base_url"]

    def _run(self) -> Run:
        return Run(self._name(), waits=False, buys=True)

    def process(self, inputs: StepInput) -> "StepOutput":
        """Submits jobs.

        Args:
            inputs: the rows.

        Yields:
            A row for each job.

        Raises:
            RunError: the run cannot go on, or a row cannot be kept as it is.
        """
        try:
            with start_blocking_portal() as portal:
                yield portal.call(self._submit, list(inputs))
        except STOPS_THE_PIPELINE:
            sends_nothing_more(self)
            raise

    async def _submit(self, given: _Rows) -> _Rows:
        lines = [as_json(str(self.name), self.inputs, row) for row in given]
        session: Session
        async with self.task.llm.session() as session:
            await session.submission.keep_rows(lines, replace=not is_dry_run())
            try:
                await process_side_by_side(
                    self.task, self.task.llm, groups(given, self.task.input_batch_size), lambda *_: None
                )
            except DistilabelOfflineBatchGenerationNotFinishedException:
                if SIGINT_HANDLER_CALLED_ENV_NAME in os.environ:
                    raise
            return [
                {
                    "run_name": self._name(),
                    "batch_id": job.batch_id,
                    "requests": job.requests,
                    "bytes": job.bytes,
                    "status": job.status,
                    "base_url": session.base_url,
                }
                for job in await session.submission.jobs()
            ]

    def _name(self) -> str:
        pipeline = envs.DISTILABEL_PIPELINE_NAME
        return self.run_name or (f"{pipeline}/{self.name}" if pipeline else str(self.name))


class LoadBatchResults(_RunsATask, GeneratorStep):
    """Yields the rows that `SubmitBatch` submitted, with the Task's output columns, as their jobs end.

    The rows and answers come from the ledger, and from the server where the ledger does not know them: on another
    machine. Nothing is bought. Loading again yields the same rows.

    Attributes:
        task: the Task that the rows were submitted for, with an `OpenAIBatchLLM`. It has to be the same one.
        run_name: the `run_name` of `SubmitBatch`. Defaults to `None`.
        batch_ids: the ids of some of its jobs, instead: only their rows are yielded. Defaults to `None`.
        resubmit: whether requests without an answer are asked again, in new jobs that are waited for. Otherwise their
            rows have `None`s. Defaults to `False`.
        ordered: whether rows come in the order in which they were submitted. Otherwise those that are there first come
            first. Defaults to `True`.

    Runtime parameters:
        - `batch_size`: the number of rows that are yielded at once. Defaults to `50`.
        - `run_name`: the `run_name` of `SubmitBatch`.
        - `batch_ids`: the ids of some of its jobs.
        - `resubmit`: whether requests without an answer are asked again. Defaults to `False`.
        - `ordered`: whether rows come in the order in which they were submitted. Defaults to `True`.

    Output columns:
        - dynamic (the columns of the rows, and the Task's output columns).
        - batch_failure (`str`): why a row has no answer; `None` where it has one.

    Categories:
        - load
        - text-generation

    Examples:
        Load what was submitted:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import KeepColumns
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import LoadBatchResults, OpenAIBatchLLM

        with Pipeline(name="loading") as pipeline:
            load = LoadBatchResults(task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini")), run_name="sky")
            load >> KeepColumns(columns=["instruction", "generation", "batch_failure"])

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    run_name: RuntimeParameter[str] | None = Field(default=None, description="The `run_name` of `SubmitBatch`.")
    # distilabel takes `list[str]` for a class on Python 3.10.
    batch_ids: RuntimeParameter[List[str]] | None = Field(  # noqa: UP006
        default=None, description="The ids of some of its jobs, instead of `run_name`."
    )
    resubmit: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether requests without an answer are asked again, and waited for; else their rows have `None`s.",
    )
    ordered: RuntimeParameter[bool] = Field(
        default=True,
        description="Whether rows come in the order in which they were submitted; else as they are answered.",
    )

    _loaded_rows: _Rows | None = PrivateAttr(None)
    _found_name: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _names_one_submission(self) -> Self:
        if self.run_name and self.batch_ids:
            raise ValueError("LoadBatchResults takes a `run_name` or `batch_ids`, not both: leave one of them out.")
        if self.batch_ids is not None and not self.batch_ids:
            raise ValueError("`batch_ids` is empty: name at least one job, or pass `run_name=…`.")
        return self

    @property
    def outputs(self) -> list[str]:
        """The columns of the rows, those that the Task adds, and why a row has no answer.

        Raises:
            DistilabelUserError: neither a run nor batches are named, or the Task is not the one that was submitted.
            RunError: the rows are not to be found.
        """
        found = columns(self._rows())
        check_columns(str(self.name), self.task, found)
        return list(dict.fromkeys([*found, *self.task.get_outputs(), FAILURE_COLUMN]))

    def _run(self) -> Run:
        return Run(self._name(), waits=True, buys=self.resubmit, only=tuple(self.batch_ids or ()))

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        """Yields the rows that were submitted, with the Task's output columns.

        Args:
            offset: how many rows are left out. With `ordered=False` only `0` says which.

        Yields:
            Rows, and whether they are the last ones.

        Raises:
            RunError: the run cannot go on.
        """
        source: Sequence[dict[str, Any]] = self._rows()
        # Which rows are of the batches that were named is seen when they are looked up, and that costs nothing.
        if is_dry_run() and (self.resubmit or not self.batch_ids):
            source = first(source, self.batch_size)
        row_groups = groups(source, self.task.input_batch_size)
        # The column of `add_failures` is the user's to ask for; this one is always there.
        saying_why = self.task.llm.model_copy(update={"add_failures": True})
        task = self.task.model_copy(update={"llm": saying_why})
        with closing(results(task, row_groups, self.ordered, FAILURE_COLUMN)) as found:
            yield from in_batches(map(self._with_texts, found), self.batch_size, offset)

    def _with_texts(self, found: _Rows) -> _Rows:
        """Makes a text of why each row has no answer, and leaves out the rows of other batches."""
        column = failure_columns.column(self.task.name) if self.task.llm.add_failures else None
        return [
            row
            | ({column: row[FAILURE_COLUMN]} if column else {})
            | {FAILURE_COLUMN: failure_columns.text(row[FAILURE_COLUMN])}
            for row in found
            if not (row[FAILURE_COLUMN] and row[FAILURE_COLUMN]["code"] == OTHER_BATCH.code)
        ]

    def _name(self) -> str:
        if self._found_name is None:
            if not (self.run_name or self.batch_ids):
                raise DistilabelUserError(
                    f"'{self.name}' does not know what to load. Pass `run_name=…`, which SubmitBatch was given, or"
                    " `batch_ids=[…]`, which it yielded."
                )
            ids = self.batch_ids or []
            self._found_name = self.run_name or str(self._ask("", lambda session: session.submission.name_of(ids[0])))
        return self._found_name

    def _rows(self) -> _Rows:
        if self._loaded_rows is None:
            lines = self._ask(self._name(), lambda session: session.submission.rows())
            self._loaded_rows = [orjson.loads(line) for line in lines]
        return self._loaded_rows

    def _ask(self, run_name: str, question: Callable[[Session], Any]) -> Any:
        """Asks a session of one's own: the columns are wanted before anything is loaded."""
        llm = self.task.llm.model_copy()
        llm.takes_part_in(Run(run_name, waits=False, buys=False, only=tuple(self.batch_ids or ())))
        llm.load()

        async def ask() -> Any:
            async with llm.session() as session:
                return await question(session)

        with start_blocking_portal() as portal:
            return portal.call(ask)


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


def _digest(source: Sequence[dict[str, Any]]) -> str:
    if isinstance(source, Dataset):
        return str(source._fingerprint)
    digest = hashlib.sha256()
    for row in source:
        digest.update(orjson.dumps(row, default=repr, option=_JSON))
    return digest.hexdigest()


# YAML names a class by its module: this is where they stay, wherever they are defined.
for _step in (LoadBatchResults, StreamBatchResults, SubmitBatch):
    _step.__module__ = OpenAIBatchLLM.__module__
