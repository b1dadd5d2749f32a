"""How a Task hands over its whole dataset, and how it is processed: every touch of distilabel's internals, with why.

distilabel 1.5.3 has no seam for an LLM that waits a day, and its own offline mode loses rows. The wraps below are
installed when `OpenAIBatchLLM` is imported, in the main process and in the steps' processes alike, and act only on
Tasks that hold one; any other pipeline runs as if they were not there.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
import pickle
import random
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import anyio
import distilabel
import greenback
import numpy as np
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline._dag import DAG
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException
from distilabel.steps import GeneratorStep, GlobalStep, Step
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch import failures, recovery
from distilabel_openai_batch.engine.calls import outcomes_seen
from distilabel_openai_batch.errors import RunError

STOPS_THE_PIPELINE = (RunError, DistilabelOfflineBatchGenerationNotFinishedException)

_process_applying_mappings = Step.process_applying_mappings
_logger = logging.getLogger("distilabel.openai_batch")
_as_they_are = contextvars.ContextVar("as_they_are", default=False)
_as_ordinary_steps = contextvars.ContextVar("as_ordinary_steps", default=False)
_stopped_steps: set[int] = set()
_formatted = contextvars.ContextVar[list[int] | None]("formatted", default=None)
_reasons_column = contextvars.ContextVar[str | None]("reasons_column", default=None)
_running_step = ""
_dry_run = False

_ROWS_FILE = "rows.pickle"

# Tasks of ours that cannot have the whole dataset at once, by `id`, in the pipeline's process.
_fed_batch_by_batch: WeakValueDictionary[int, Any] = WeakValueDictionary()


def install(client_of: Callable[[Any], Any], buyer_of: Callable[[Any], Any], buys: Callable[[Any], bool]) -> None:
    """Wraps what has to be wrapped.

    Args:
        client_of: the `OpenAIBatchLLM` or `OpenAIBatchEmbeddings` that a step holds, if it does.
        buyer_of: that, or the one of the Task that it runs.
        buys: whether it has one at all, however deep.

    Raises:
        ImportError: this distilabel is not made as the wraps expect.
    """

    def is_ours(step: Any) -> bool:
        return client_of(step) is not None

    _check_targets()
    _know_the_running_step(is_ours)
    _hand_over_whole_dataset(is_ours)
    _share_a_stage(is_ours)
    _process_row_groups_side_by_side(client_of)
    _pass_rows_as_they_are(is_ours)
    _ask_for_structured_output_without_instructor(is_ours)
    _say_why_rows_failed(client_of)
    _send_rows_across_the_cluster()
    _send_nothing_after_a_stop()

    def own_columns(step: Any) -> list[str]:
        buyer = buyer_of(step)
        return [failures.column(getattr(step, "task", step).name)] if buyer and buyer.add_failures else []

    recovery.install(buys, own_columns)


def running_step() -> str:
    """The name of the step that this process runs; empty outside a pipeline."""
    return _running_step


def is_dry_run() -> bool:
    """Whether the pipeline whose step this process runs is only tried out."""
    return _dry_run


def sends_nothing_more(step: Any) -> None:
    """Says that a step was stopped, and what it has is not its result."""
    _stopped_steps.add(id(step))


# What each wrap relies on: the parameters that its target had in distilabel 1.5.3.
_TARGETS: dict[tuple[Any, str], list[str]] = {
    (DAG, "get_steps_load_stages"): ["self", "load_groups"],
    (RayPipeline, "_send_batch_to_step"): ["self", "batch"],
    (GeneratorStep, "process_applying_mappings"): ["self", "offset"],
    (Step, "process_applying_mappings"): ["self", "args"],
    (_Step, "get_outputs"): ["self"],
    (_StepWrapper, "run"): ["self"],
    (_StepWrapper, "_send_batch"): ["self", "batch"],
    (_Task, "_format_outputs"): ["self", "outputs", "input"],
    (_Task, "_set_default_structured_output"): ["self"],
    (BasePipeline, "_send_batch_to_step"): ["self", "batch"],
    (_Batch, "write_batch_data_to_fs"): ["self", "fs", "base_path"],
    (_Batch, "read_batch_data_from_fs"): ["self"],
    **recovery.TARGETS,
}


def _check_targets() -> None:
    differing = [
        f"{owner.__name__}.{name}"
        for (owner, name), parameters in _TARGETS.items()
        if not hasattr(owner, name) or list(inspect.signature(getattr(owner, name)).parameters) != parameters
    ]
    differing += [
        f"{owner.__name__}.is_global"
        for owner in (_Step, _Task)
        if not isinstance(inspect.getattr_static(owner, "is_global", None), property)
    ]
    if differing:
        raise ImportError(
            f"distilabel-openai-batch works with distilabel 1.5.3; distilabel {distilabel.__version__} differs in"
            f" {', '.join(differing)}. Install the one: pip install 'distilabel==1.5.3'."
        )


def _know_the_running_step(is_ours: Callable[[Any], bool]) -> None:
    """An LLM is not told which step holds it, and two steps that ask the same question are two buyers.

    What stops the pipeline is sent to its process without the step and its rows: they are not needed there, may be
    large, and cannot be sent at all where a step of the pipeline was defined within a function.
    """
    run = _StepWrapper.run

    # It is sent to the step's process by its name.
    @functools.wraps(run)
    def wrapped(self: Any) -> Any:
        global _running_step, _dry_run
        _running_step, _dry_run = self.step.name, self.dry_run
        if is_ours(self.step):
            _seed(self.step)
            _as_they_are.set(True)
        try:
            return run(self)
        except _StepWrapperException as error:
            if isinstance(error.subprocess_exception, STOPS_THE_PIPELINE):
                step = types.SimpleNamespace(name=self.step.name, is_global=self.step.is_global)
                bare = _StepWrapperException("", step, error.code, error.subprocess_exception)
                # It is whole already: what is passed is made longer.
                bare.message = error.message
                raise bare from None
            raise

    _StepWrapper.run = wrapped


def _hand_over_whole_dataset(is_ours: Callable[[Any], bool]) -> None:
    """A Task of ours counts as a global step, which is given all rows in one call.

    So does any step that was stopped, since only a global step's error ends the run. A generator asks for its next
    batch only when the step's output has arrived: a normal step would never have more than one batch in flight. The
    property is looked up on the class, so that the wrap reaches the user's own Tasks too, unlike one of
    `model_post_init`, which pydantic has captured in each subclass.
    """
    for owner in (_Step, _Task):
        owner.is_global = _global_for_us(owner.is_global.fget, is_ours)


def _global_for_us(is_global: Callable[[Any], Any], is_ours: Callable[[Any], bool]) -> property:
    def wrapped(self: Any) -> bool:
        if id(self) in _stopped_steps:
            return True
        if is_ours(self) and not self.is_generator and _fed_batch_by_batch.get(id(self)) is not self:
            return isinstance(self, GlobalStep) or not _as_ordinary_steps.get()
        return bool(is_global(self))

    return property(wrapped)


def _share_a_stage(is_ours: Callable[[Any], bool]) -> None:
    """A Task of ours shares its load stage with its neighbours.

    distilabel gives each global step a stage of its own, one after another: three sibling Tasks would wait three days.
    So, while the stages are arranged, ours say that they are not global.

    This is also the first call of a run that comes after the validation, where a step that joins what a
    `routing_batch_function` has parted is marked as a convergence step. It wants its batches back one by one, as they
    were routed, and would wait for ever for a Task that makes one of them all.
    """
    get_steps_load_stages = DAG.get_steps_load_stages

    def wrapped(self: Any, load_groups: Any = None) -> Any:
        for name in self:
            task = self.get_step(name)["step"]
            if is_ours(task) and any(self.is_convergence_step(follower) for follower in self.get_step_successors(name)):
                if id(task) not in _fed_batch_by_batch:
                    _logger.warning(
                        f"⚠️ '{name}' is given routed batches that another step joins again: each of them is a batch job"
                        " of its own, one after another. A larger `batch_size` before the routing makes fewer."
                    )
                _fed_batch_by_batch[id(task)] = task
        token = _as_ordinary_steps.set(True)
        try:
            return get_steps_load_stages(self, load_groups)
        finally:
            _as_ordinary_steps.reset(token)

    DAG.get_steps_load_stages = wrapped


def _send_rows_across_the_cluster() -> None:
    """A Task of ours on a Ray cluster is sent its rows as an ordinary step is.

    distilabel gives a global step a path to them, on a disk that the step's machine may not have.
    """
    send_batch_to_step = RayPipeline._send_batch_to_step

    def wrapped(self: Any, batch: Any) -> None:
        token = _as_ordinary_steps.set(True)
        try:
            send_batch_to_step(self, batch)
        finally:
            _as_ordinary_steps.reset(token)

    RayPipeline._send_batch_to_step = wrapped


def _process_row_groups_side_by_side(client_of: Callable[[Any], Any]) -> None:
    """A Task of ours processes its rows in the groups that it would have had anyway, all groups side by side.

    Another one may ask through us all the same, behind an LLM that is made of several.
    """

    def side_by_side(self: Any, client: Any, args: Any) -> list[dict[str, Any]]:
        results: dict[int, list[dict[str, Any]]] = {}
        groups = _row_groups(self, args)
        anyio.run(process_side_by_side, self, client, groups, results.__setitem__)
        return [row for index in range(len(groups)) for row in results[index]]

    def wrapped(self: Any, *args: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        client = client_of(self)
        try:
            if client is None:
                yield from _process_applying_mappings(self, *args)
            else:
                yield side_by_side(self, client, args)
        except STOPS_THE_PIPELINE:
            sends_nothing_more(self)
            raise

    Step.process_applying_mappings = wrapped


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
    column = (reasons or failures.column(task.name)) if client.add_failures else None
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


def _seed(step: Any, row_group: int | None = None) -> None:
    """A step that draws at random draws in the next run what it drew in this one, and so asks the same questions.

    distilabel's `EvolInstruct` and `Magpie` draw from generators that nobody seeds.
    """
    named = f"{step.name}/{getattr(step, 'seed', None)}/{row_group}"
    seed = zlib.crc32(named.encode())
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Whoever waits finds the random number generators as they were, whatever was drawn from them meanwhile.

    Row groups that are processed side by side draw as if each were alone, in whichever order they are answered.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


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


def _pass_rows_as_they_are(is_ours: Callable[[Any], bool]) -> None:
    """The rows of a Task of ours reach it, and come back, as they are.

    distilabel gives those of a global step through Parquet files. A column of a table has one type: dictionaries in it
    all get the same keys, `None` where they had none, and rows that do not fit the type stop the pipeline. An ordinary
    step's rows are pickled, and so are these.
    """
    send_batch_to_step = BasePipeline._send_batch_to_step
    write, read = _Batch.write_batch_data_to_fs, _Batch.read_batch_data_from_fs

    def sending(self: Any, batch: Any) -> None:
        token = _as_they_are.set(is_ours(self.dag.get_step(batch.step_name)["step"]))
        try:
            send_batch_to_step(self, batch)
        finally:
            _as_they_are.reset(token)

    def writing(self: Any, fs: Any = None, base_path: Any = None) -> None:
        data = self.data
        if _as_they_are.get():
            # What else it does is to be done all the same: it makes the directory, and says where that is.
            self.data = []
        write(self, fs, base_path)
        if _as_they_are.get():
            with self._fs.open(f"{self.data_path}/{_ROWS_FILE}", "wb") as file:
                pickle.dump(data, file, protocol=pickle.HIGHEST_PROTOCOL)

    def reading(self: Any) -> None:
        path = f"{self.data_path}/{_ROWS_FILE}"
        if not (self._fs and self._fs.exists(path)):
            read(self)
            return
        with self._fs.open(path, "rb") as file:
            self.data = pickle.load(file)  # noqa: S301  # our own, as private as the queue that names it
        self._fs.rm(self.data_path, recursive=True)

    BasePipeline._send_batch_to_step = sending
    _Batch.write_batch_data_to_fs = writing
    _Batch.read_batch_data_from_fs = reading


def _ask_for_structured_output_without_instructor(is_ours: Callable[[Any], bool]) -> None:
    """A Task of ours that asks for structured output by default does so without `instructor`.

    distilabel refuses to load it where that is not installed, and none can be beside today's openai.
    """
    set_default_structured_output = _Task._set_default_structured_output

    def wrapped(self: Any) -> None:
        if not is_ours(self):
            set_default_structured_output(self)
            return
        schema = self.get_structured_output()
        if schema and self.use_default_structured_output and not self.llm.structured_output:
            self.llm.structured_output = {"schema": schema, "format": "json"}

    _Task._set_default_structured_output = wrapped


def _say_why_rows_failed(client_of: Callable[[Any], Any]) -> None:
    """With `add_failures`, the rows of a step of ours have a column that says why they have no answer.

    distilabel has a Task make rows of each output of its LLM by `_format_outputs`: there it is known which generation
    of which row failed. A step that comes to be asked for its output columns names this one too, so that steps after
    it may ask for it.
    """
    get_outputs, format_outputs = _Step.get_outputs, _Task._format_outputs
    process_applying_mappings = GeneratorStep.process_applying_mappings

    def adds(step: Any) -> bool:
        client = client_of(step)
        return client is not None and client.add_failures

    def naming(self: Any) -> dict[str, bool]:
        outputs: dict[str, bool] = get_outputs(self)
        named_apart = _reasons_column.get() is not None
        return outputs | {failures.column(self.name): True} if adds(self) and not named_apart else outputs

    def formatting(self: Any, outputs: Any, input: Any = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = format_outputs(self, outputs, input)
        if adds(self):
            column = _reasons_column.get() or failures.column(self.name)
            for row, cell in zip(rows, failures.cells(outputs, len(rows)), strict=True):
                row[column] = cell
            if (formatted := _formatted.get()) is not None:
                formatted.append(len(rows))
        return rows

    def generating(self: Any, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        batches = process_applying_mappings(self, offset)
        if not adds(self):
            yield from batches
            return
        outcomes_seen.set([])
        _formatted.set([])
        for rows, is_last in batches:
            yield _with_reasons(self, failures.column(self.name), None, rows), is_last
            outcomes_seen.set([])
            _formatted.set([])

    _Step.get_outputs = naming
    _Task._format_outputs = formatting
    GeneratorStep.process_applying_mappings = generating


def _with_reasons(
    step: Any,
    column: str,
    given: list[dict[str, Any]] | None,
    rows: list[dict[str, Any]],
    lost: Exception | None = None,
) -> list[dict[str, Any]]:
    """Gives each row its column of failures."""
    if lost is None and _formatted.get() and all(column in row for row in rows):
        return [row | {column: failures.grouped(row[column])} for row in rows]
    made = [name for name in step.get_outputs() if name != column]
    reasons = failures.beside(given, rows, outcomes_seen.get() or [], made, lost)
    return [row | {column: reason} for row, reason in zip(rows, reasons, strict=True)]


def _send_nothing_after_a_stop() -> None:
    """A step that was stopped sends no batch.

    distilabel's loop sends in its `finally` an empty last batch even then, which is cached as the step's result: the
    next run would lose every row, or hang.
    """
    send_batch = _StepWrapper._send_batch

    def wrapped(self: Any, batch: Any) -> None:
        if id(self.step) not in _stopped_steps:
            send_batch(self, batch)

    _StepWrapper._send_batch = wrapped
