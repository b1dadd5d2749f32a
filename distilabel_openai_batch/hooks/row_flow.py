"""Let rows flow through a pipeline with a client: ask for rows early, and tell each Task when no more are on their way.

distilabel asks a generator for the next batch when the Task behind it has returned a batch, so a Task would have one
batch of rows at a time, and one small job after another. Here a generator that feeds a Task is asked as soon as its
last batch has been passed on, until a Task holds as many rows as keep all its jobs busy.

A Task holds its requests back while rows are on their way, so that rows that arrive together go into one job. A row is
on its way while a generator makes rows, while an ordinary step works, and while a Task before does anything but wait
for the server. `RowFlow` follows each step by the batches that pass, and sends `Release` to a Task that waits.

Replaced, for pipelines with a client alone: `_request_initial_batches`, `_send_batch_to_step`, `_process_batch`,
`_manage_batch_flow` and `_handle_batch_on_stop`, by which the pipeline's process moves batches; `_cache`, which saves
the pipeline's state after each batch; and `_output_queue_loop`, which calls all of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.local import Pipeline
from distilabel.steps import GlobalStep

from distilabel_openai_batch.errors import RunError, as_run_error
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.packed_batches import unpack_rows
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_storage import keeps_row_types
from distilabel_openai_batch.hooks.run_report import report_of
from distilabel_openai_batch.hooks.step_loop import Release, StepWaits
from distilabel_openai_batch.hooks.step_reports import StepReport
from distilabel_openai_batch.hooks.stopping import run_loop


@dataclass(slots=True)
class _StepState:
    """The batches of a step.

    Attributes:
        sent: number of batches that were sent to the step; for a generator, of requests for a batch.
        received: number of batches that the step has returned.
        has_all: whether the last batch was sent to the step; for a generator, whether the step has returned it.
        waits: whether the step has read all its batches, and waits.
        is_released: whether the step knows that no more rows are on their way for now.
        rows: number of input rows by the `seq_no` of each batch that was sent and not returned.
        rows_in_progress: sum of `rows`.
        rows_in, rows_out: number of rows that the step was sent and has returned.
    """

    sent: int = 0
    received: int = 0
    has_all: bool = False
    waits: bool = False
    is_released: bool = False
    rows: dict[int, int] = field(default_factory=dict)
    rows_in_progress: int = 0
    rows_in: int = 0
    rows_out: int = 0

    @property
    def has_batches(self) -> bool:
        """Return whether a batch was sent to the step and not returned."""
        return self.sent > self.received


class RowFlow:
    """The flow of rows through one run of a pipeline.

    Args:
        pipeline: the pipeline, with its batch manager.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        dag = pipeline.dag
        steps = {name: dag.get_step(name)["step"] for name in dag}
        self._states = {name: _StepState() for name in steps}
        self._generators = {name for name, step in steps.items() if step.is_generator}
        clients = {name: batch_client(step) for name, step in steps.items() if name not in self._generators}
        tasks = [name for name, client in clients.items() if client is not None]
        self._ancestors = {name: _find_ancestors(dag, name) for name in tasks}
        # A Task before another has fewer ancestors, and is released first.
        self._tasks = sorted(tasks, key=lambda name: len(self._ancestors[name]))
        self._max_rows = {
            name: clients[name].max_requests_per_job * clients[name].max_jobs
            for name in self._tasks
            if not isinstance(steps[name], GlobalStep)
        }
        self._eager_generators = {
            name
            for name in self._generators
            if any(follower in self._tasks or steps[follower].is_global for follower in dag.get_step_successors(name))
        }
        self._paused_generators: set[str] = set()
        for name in self._generators:
            last_batch = pipeline._batch_manager.get_last_batch(name)
            self._states[name].has_all = bool(last_batch and last_batch.last_batch)

    def admit(self, batch: Any) -> bool:
        """Count a batch that is about to be sent to a step; return whether the batch may be sent.

        A generator gets one request at a time, and none while a Task behind has enough rows.
        """
        name = batch.step_name
        state = self._states[name]
        if name in self._generators:
            if state.has_all or state.has_batches:
                return False
            if self._has_enough_rows(name):
                self._paused_generators.add(name)
                return False
        else:
            state.has_all = state.has_all or batch.last_batch
            state.rows[batch.seq_no] = rows = max(map(len, batch.data), default=0)
            state.rows_in_progress += rows
            state.rows_in += rows
        state.sent += 1
        state.waits = state.is_released = False
        return True

    def add_received(self, batch: Any) -> None:
        """Count a batch that a step has returned."""
        state = self._states[batch.step_name]
        state.received += 1
        state.waits = state.is_released = False
        state.rows_in_progress -= state.rows.pop(batch.seq_no, 0)
        state.rows_out += sum(map(len, batch.data))
        if batch.step_name in self._generators:
            state.has_all = batch.last_batch

    def rows_of(self, name: str) -> tuple[int, int]:
        """Return the number of rows that a step was sent, and the number that the step has returned."""
        state = self._states[name]
        return state.rows_in, state.rows_out

    def add_waiting(self, message: StepWaits) -> None:
        """Note that a step waits, unless more batches have been sent to the step since."""
        state = self._states[message.step_name]
        state.waits = message.batches == state.sent

    def go_on(self, batch: Any = None) -> None:
        """Ask generators for rows, and release the Tasks that no rows are on their way to.

        Args:
            batch: the batch that was handled last; `None` for a message.
        """
        if batch is not None and batch.step_name in self._eager_generators and not batch.last_batch:
            self._pipeline._request_batch_from_generator(batch.step_name)
        for name in [name for name in self._paused_generators if not self._has_enough_rows(name)]:
            self._paused_generators.remove(name)
            self._pipeline._request_batch_from_generator(name)
        for name in self._tasks:
            state = self._states[name]
            if state.waits and not state.is_released and not any(map(self._has_rows_to_come, self._ancestors[name])):
                state.is_released = True
                # A Task that has all its rows has released itself.
                if not state.has_all:
                    self._pipeline._send_to_step(name, Release(state.sent))

    def _has_enough_rows(self, generator: str) -> bool:
        return any(
            self._states[name].rows_in_progress >= max_rows
            for name, max_rows in self._max_rows.items()
            if generator in self._ancestors[name]
        )

    def _has_rows_to_come(self, name: str) -> bool:
        """Return whether a step is about to return rows."""
        state = self._states[name]
        if name in self._generators:
            return not state.has_all and name not in self._paused_generators
        return state.has_batches and not (state.waits and (state.is_released or state.has_all))


def _find_ancestors(dag: Any, name: str) -> set[str]:
    """Return the names of all steps before a step."""
    ancestors: set[str] = set()
    unvisited = [name]
    while unvisited:
        found = set(dag.get_step_predecessors(unvisited.pop())) - ancestors
        ancestors |= found
        unvisited += found
    return ancestors


def _flow_of(pipeline: Any) -> RowFlow | None:
    flow: RowFlow | None = getattr(pipeline, "_openai_batch_flow", None)
    return flow


@patch(BasePipeline, "_request_initial_batches", parameters=["self"])
def _request_initial_batches(original: Any, self: Any) -> None:
    """Send each step all batches that the cached outputs of its predecessors make, not only the first."""
    original(self)
    if _flow_of(self) is None:
        return
    if report := report_of(self):
        report.start()
    for name in self.dag:
        if self._is_step_running(name) and name not in self.dag.root_steps:
            while batch := self._batch_manager.get_batch(name):
                self._send_batch_to_step(batch)


@patch(BasePipeline, "_send_batch_to_step", parameters=["self", "batch"])
def _send_batch_to_step(original: Any, self: Any, batch: Any) -> None:
    """Send a batch, unless a generator is to wait, see `RowFlow.admit`; keep the types of rows for a client's step."""
    flow = _flow_of(self)
    if flow is not None and not flow.admit(batch):
        return
    token = keeps_row_types.set(batch_client(self.dag.get_step(batch.step_name)["step"]) is not None)
    try:
        original(self, batch)
    finally:
        keeps_row_types.reset(token)


@patch(BasePipeline, "_process_batch", parameters=["self", "batch", "send_last_batch_flag"])
def _process_batch(original: Any, self: Any, batch: Any, send_last_batch_flag: bool = True) -> None:
    """Show the numbers that a step reports, and pass the other messages of steps on to `_manage_batch_flow`.

    The batches of a step with a client arrive packed, see `packed_batches`.
    """
    if isinstance(batch, StepReport):
        if report := report_of(self):
            report.add(batch)
    elif not isinstance(batch, StepWaits):
        unpack_rows(batch)
        original(self, batch, send_last_batch_flag)


@patch(BasePipeline, "_manage_batch_flow", parameters=["self", "batch"])
def _manage_batch_flow(original: Any, self: Any, batch: Any) -> None:
    """Pass a batch on to the next steps, then ask for more rows and release Tasks."""
    flow = _flow_of(self)
    if flow is None:
        original(self, batch)
    elif isinstance(batch, StepReport):
        return
    elif isinstance(batch, StepWaits):
        flow.add_waiting(batch)
        flow.go_on()
    else:
        flow.add_received(batch)
        with _caching_deferred(self):
            original(self, batch)
        flow.go_on(batch)


@contextmanager
def _caching_deferred(pipeline: Any) -> Iterator[None]:
    pipeline._openai_batch_defers_caching = True
    try:
        yield
    finally:
        pipeline._openai_batch_defers_caching = False


@patch(BasePipeline, "_cache", parameters=["self"])
def _cache(original: Any, self: Any) -> None:
    """Save a pipeline's state at the end of a run alone.

    distilabel saves the state after each batch, which takes most of the time of a long run: pipeline and signatures are
    dumped, with a list that grows by each batch. A run that is killed continues from the cached batches instead, see
    `resuming`.
    """
    if not getattr(self, "_openai_batch_defers_caching", False):
        original(self)


@patch(BasePipeline, "_handle_batch_on_stop", parameters=["self", "batch"])
def _handle_batch_on_stop(original: Any, self: Any, batch: Any) -> None:
    """Drop messages of steps when the pipeline stops."""
    if not isinstance(batch, (StepReport, StepWaits)):
        original(self, batch)


@patch(Pipeline, "_output_queue_loop", parameters=["self"])
def _output_queue_loop(original: Any, self: Any) -> None:
    """Make `pipeline.run` raise an error of the loop, such as a full disk."""

    def log_and_convert(error: Exception) -> RunError:
        self._logger.exception("The pipeline failed unexpectedly.")
        return as_run_error(error)

    run_loop(self, original, log_and_convert)
