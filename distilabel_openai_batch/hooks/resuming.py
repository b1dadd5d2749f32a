"""Continue a pipeline from the steps that an earlier run completed.

After a `kill -9`, distilabel's cache says that rows were sent to a step and no longer has these rows. A pipeline with a
client therefore starts from the steps whose whole output is cached, and repeats all other steps: answers of the Batch
API come from the ledger.

Replaced: `_load_batch_manager`, which reads the cached state; `_teardown`, which ends a run; and `get_batch` and
`_ready_to_create_batch`, which make a step's batches.
"""

from __future__ import annotations

import atexit
import gc
import shutil
import signal
from pathlib import Path
from typing import Any

from distilabel import constants
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch_manager import _BatchManager, _BatchManagerStep
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline

from distilabel_openai_batch.hooks.cached_tasks import count_rows
from distilabel_openai_batch.hooks.clients import begin_run, pipeline_uses_batch_client
from distilabel_openai_batch.hooks.dataset_files import rewrite_dataset
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_flow import RowFlow
from distilabel_openai_batch.hooks.row_storage import read_stored_batches, rows_directory
from distilabel_openai_batch.hooks.run_report import report_of
from distilabel_openai_batch.hooks.stopping import (
    end_pool,
    interruption,
    running_pipelines,
    stop_log_listener,
    terminate_pool,
)

_COMPLETE = "distilabel_openai_batch.complete"
"""A file in the directory of a pipeline's execution: the dataset is complete, and distilabel's cache can be used."""


@patch(Pipeline, "_teardown", parameters=["self"])
@patch(RayPipeline, "_teardown", parameters=["self"])
def _teardown(original: Any, self: Any) -> None:
    """Mark a complete dataset, restore the signal handlers, and make `run` raise an exception after a signal.

    distilabel's cache says that a dataset is complete before the last rows are on the disk: the mark is made after the
    original has closed the write buffer.
    """
    if self not in running_pipelines:
        original(self)
        return
    stopped = self._openai_batch_stop is not None
    complete = not (stopped or self._exception or self._dry_run or self._batch_manager.can_generate())
    if stopped:
        if isinstance(self, Pipeline):
            terminate_pool(self)
        # Steps that were stopped while loading count as steps that could not be loaded: drop that error.
        if isinstance(self._exception, RuntimeError) and self._exception.__cause__ is None:
            self._exception = None
        if self._openai_batch_signal is not None:
            # Python collects garbage among all objects of distilabel's modules when it exits, for a second or more.
            atexit.register(gc.freeze)
            self._exception = interruption(self._openai_batch_signal)
    elif isinstance(self, Pipeline):
        end_pool(self)
    if report := report_of(self):
        report.end(complete or self._dry_run)
    try:
        original(self)
        if stopped or self._exception:
            stop_log_listener()
        if complete:
            (_execution_directory(self) / _COMPLETE).touch()
    finally:
        for number, handler in self._openai_batch_handlers.items():
            signal.signal(number, handler)
        running_pipelines.remove(self)


@patch(BasePipeline, "_load_batch_manager", parameters=["self", "use_cache"])
def _load_batch_manager(original: Any, self: Any, use_cache: bool = True) -> None:
    """Begin a run with the cache from the steps whose output is cached to the last batch, and repeat the others.

    distilabel would trust its last saved state: rows that were sent to a step are lost with the step, and the first
    batches of a step's output are taken for all of them.
    """
    complete = _execution_directory(self) / _COMPLETE
    self._openai_batch_flow = None
    self._openai_batch_cached_rows = {}
    if not pipeline_uses_batch_client(self):
        original(self, use_cache)
        return
    if self._dry_run or not use_cache or complete.exists():
        original(self, use_cache)
    else:
        _rebuild_batch_manager(self)
    if isinstance(self, (Pipeline, RayPipeline)) and self._batch_manager.can_generate():
        self._openai_batch_stop = self._openai_batch_signal = None
        self._openai_batch_waits_for_submissions = False
        self._openai_batch_cache_location = self._openai_batch_load_stages = None
        self._openai_batch_flow = RowFlow(self)
        running_pipelines[:] = [self]
        begin_run(self)
        if not self._dry_run:
            complete.unlink(missing_ok=True)


def _execution_directory(pipeline: Any) -> Path:
    directory: Path = pipeline._cache_location["batch_manager"].parent
    return directory


def _rebuild_batch_manager(pipeline: Any) -> None:
    """Give a pipeline a new batch manager that knows the completed steps and their cached batches."""
    manager = _BatchManager.from_dag(dag=pipeline.dag, use_cache=False)
    stored = _completed_steps(pipeline, manager)
    for name, batches in stored.items():
        manager._last_batch_received[name] = manager._last_batch_sent[name] = batches[-1]
        manager._received_batch_seq_nos[name] = [batch.seq_no for batch in batches]
        manager._last_batch_flag_sent_to.append(name)
    for name in pipeline.dag:
        if name in stored:
            continue
        for predecessor in pipeline.dag.get_step_predecessors(name):
            for batch in stored.get(predecessor, []):
                manager.add_batch(name, batch.copy())
    pipeline._batch_manager = manager
    stages, last_steps = pipeline._get_steps_load_stages()
    unfinished_stages = [stage for stage, steps in enumerate(stages) if any(name not in stored for name in steps)]
    pipeline._current_stage = unfinished_stages[0] if unfinished_stages else len(stages) - 1
    pipeline._stages_last_batch = [sorted(name for name in steps if name in stored) for steps in last_steps]
    pipeline._openai_batch_cached_rows = {name: count_rows(batches) for name, batches in stored.items()}
    rewrite_dataset(pipeline, stored)
    if stored:
        pipeline._logger.info(f"💾 Continuing from the cached outputs of: {', '.join(stored)}.")


def _completed_steps(pipeline: Any, manager: Any) -> dict[str, list[Any]]:
    """Return the cached batches of each completed step, and delete the cached batches of all other steps."""
    stored: dict[str, list[Any]] = {}
    for name in pipeline.dag:
        directory = Path(pipeline._cache_location["steps_data"]) / manager._steps[name].signature
        batches = read_stored_batches(directory) if _may_be_complete(pipeline.dag, name, stored) else None
        if batches is not None:
            stored[name] = batches
            continue
        # Otherwise the old batches would be mixed with the batches of this run.
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(rows_directory(directory), ignore_errors=True)
    return stored


def _may_be_complete(dag: Any, name: str, stored: dict[str, list[Any]]) -> bool:
    """Return whether the cached output of a step may be used.

    The step has `use_cache`, all predecessors are complete, and no batch was routed: a cached batch does not say which
    of several steps the batch was routed to.
    """
    predecessors = list(dag.get_step_predecessors(name))
    return (
        dag.get_step(name)["step"].use_cache
        and all(predecessor in stored for predecessor in predecessors)
        and not dag.get_step(name).get(constants.ROUTING_BATCH_FUNCTION_ATTR_NAME)
        and not any(dag.get_step(p).get(constants.ROUTING_BATCH_FUNCTION_ATTR_NAME) for p in predecessors)
    )


@patch(_BatchManagerStep, "_ready_to_create_batch", parameters=["self"])
def _ready_to_create_batch(original: Any, self: Any) -> bool:
    """Give a step an empty last batch if all its predecessors have ended, and their last rows were sent before.

    distilabel would send such a step no last batch, with any LLM, and the pipeline would wait for the step for ever.
    """
    is_complete = getattr(self, "_openai_batch_is_complete", False)
    if running_pipelines and not self.convergence_step and self.data and not is_complete:
        has_rows = any(batch.data[0] for batches in self.data.values() for batch in batches)
        if not has_rows and all(name in self.last_batch_received for name in self.data):
            return True
    return bool(original(self))


@patch(_BatchManagerStep, "get_batch", parameters=["self"])
def _get_batch(original: Any, self: Any) -> Any:
    """Note a step's last batch, see `_ready_to_create_batch`."""
    batch = original(self)
    if batch is not None and batch.last_batch:
        self._openai_batch_is_complete = True
    return batch
