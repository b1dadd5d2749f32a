"""How a pipeline that holds Tasks of ours stops, and comes back: touches of distilabel's internals, each with why.

distilabel 1.5.3 stops by waiting for its steps in ways that can last for ever, and after a `kill -9` its cache says
that rows were sent and has forgotten them. Here a pipeline stops bluntly, and the next run is built anew from what each
step is known to have finished. What was being worked on is done again; what the Batch API has answered comes from the
ledger.

Only pipelines that hold an `OpenAIBatchLLM` are concerned.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distilabel import constants
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch_manager import _BatchManager, _BatchManagerStep
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.write_buffer import _WriteBuffer
from distilabel.utils import serialization

from distilabel_openai_batch.hooks import ray
from distilabel_openai_batch.hooks.dataset_files import (
    _columns_of,
    _write_columns_of_one_type,
    _write_leaves,
    _write_whole_files,
)
from distilabel_openai_batch.hooks.row_storage import _rows_directory, _store_rows_as_they_are, _stored_batches
from distilabel_openai_batch.hooks.stopping import (
    _answer_signals,
    _end_pool,
    _end_when_orphaned,
    _raise_run_errors,
    _running,
    _stop_bluntly,
    _stop_logging,
)

# In the directory of a pipeline's execution: its dataset is complete, and distilabel's cache may be believed.
_COMPLETE = "distilabel_openai_batch.complete"


TARGETS: dict[tuple[Any, str], list[str]] = {
    (Pipeline, "_error_callback"): ["self", "e"],
    (Pipeline, "_set_steps_not_loaded_exception"): ["self"],
    (Pipeline, "_stop"): ["self", "acquire_lock"],
    (Pipeline, "_teardown"): ["self"],
    (RayPipeline, "_stop"): ["self"],
    (RayPipeline, "_teardown"): ["self"],
    (BasePipeline, "_handle_keyboard_interrupt"): ["self"],
    (BasePipeline, "_load_batch_manager"): ["self", "use_cache"],
    (BasePipeline, "_setup_write_buffer"): ["self", "use_cache"],
    (_BatchManager, "write_batch_data"): ["self", "batch", "steps_data_path"],
    (_BatchManagerStep, "_ready_to_create_batch"): ["self"],
    (_WriteBuffer, "_write"): ["self", "step_name"],
    (serialization, "write_json"): ["filename", "data"],
    (serialization, "write_yaml"): ["filename", "data"],
    **ray.TARGETS,
}
"""What the wraps rely on: the parameters that their targets had in distilabel 1.5.3."""


def install(is_ours: Callable[[Any], bool], own_columns: Callable[[Any], list[str]]) -> None:
    """Wraps what has to be wrapped.

    Args:
        is_ours: whether a step is a Task that holds an `OpenAIBatchLLM`, or holds one.
        own_columns: the columns that a step adds which are no Task's but ours.
    """

    def holds_ours(pipeline: Any) -> bool:
        return any(is_ours(pipeline.dag.get_step(name)["step"]) for name in pipeline.dag)

    for kind in (Pipeline, RayPipeline):
        _stop_bluntly(kind, holds_ours, is_ours)
        _remember_what_is_complete(kind)
    _raise_run_errors(holds_ours)
    _answer_signals()
    _begin_where_steps_are_complete(holds_ours, own_columns)
    _store_rows_as_they_are()
    _write_whole_files()
    _write_columns_of_one_type(holds_ours, own_columns)
    _end_without_rows()
    ray.install(holds_ours)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_end_when_orphaned)


def _remember_what_is_complete(kind: Any) -> None:
    """A dataset is complete once its last rows are on the disk, which is after distilabel's cache says so."""
    teardown = kind._teardown

    def wrapped(self: Any) -> None:
        if self not in _running:
            teardown(self)
            return
        stopped = self._openai_batch_stop is not None
        complete = not (stopped or self._exception or self._dry_run or self._batch_manager.can_generate())
        if stopped:
            if isinstance(self, Pipeline):
                _end_pool(self)
            # It was stopped while its steps were loading, which is no failure to load them.
            if isinstance(self._exception, RuntimeError) and self._exception.__cause__ is None:
                self._exception = None
        try:
            teardown(self)
            if stopped or self._exception:
                _stop_logging()
            if complete:
                (_execution_directory(self) / _COMPLETE).touch()
        finally:
            for number, handler in self._openai_batch_handlers.items():
                signal.signal(number, handler)
            _running.remove(self)

    kind._teardown = wrapped


def _execution_directory(pipeline: Any) -> Path:
    directory: Path = pipeline._cache_location["batch_manager"].parent
    return directory


def _begin_where_steps_are_complete(holds_ours: Callable[[Any], bool], own_columns: Callable[[Any], list[str]]) -> None:
    """A run with the cache begins with the steps whose outputs are stored to the last batch, and does the others anew.

    distilabel would believe its last state, in which rows that were sent to a step are lost with the step, or take the
    first few of a step's outputs for all of them.
    """
    load_batch_manager = BasePipeline._load_batch_manager

    def wrapped(self: Any, use_cache: bool = True) -> None:
        complete = _execution_directory(self) / _COMPLETE
        if not holds_ours(self) or self._dry_run or not use_cache or complete.exists():
            load_batch_manager(self, use_cache)
        else:
            _rebuild(self, _columns_of(self, own_columns))
        if holds_ours(self) and isinstance(self, (Pipeline, RayPipeline)) and self._batch_manager.can_generate():
            self._openai_batch_stop = None
            self._openai_batch_patient = False
            _running[:] = [self]
            if not self._dry_run:
                complete.unlink(missing_ok=True)

    BasePipeline._load_batch_manager = wrapped


def _rebuild(pipeline: Any, own_columns: list[str]) -> None:
    dag, steps_data = pipeline.dag, Path(pipeline._cache_location["steps_data"])
    manager = _BatchManager.from_dag(dag=dag, use_cache=False)
    stored: dict[str, list[Any]] = {}
    for name in dag:
        directory = steps_data / manager._steps[name].signature
        batches = _stored_batches(directory) if _may_be_complete(dag, name, stored) else None
        if batches is None:
            # What is there of it would be mixed with what comes now.
            shutil.rmtree(directory, ignore_errors=True)
            shutil.rmtree(_rows_directory(directory), ignore_errors=True)
            continue
        stored[name] = batches
        manager._last_batch_received[name] = manager._last_batch_sent[name] = batches[-1]
        manager._received_batch_seq_nos[name] = [batch.seq_no for batch in batches]
        manager._last_batch_flag_sent_to.append(name)
    for name in dag:
        if name in stored:
            continue
        for predecessor in dag.get_step_predecessors(name):
            for batch in stored.get(predecessor, []):
                manager.add_batch(name, batch.copy())
    pipeline._batch_manager = manager
    stages, last_steps = pipeline._get_steps_load_stages()
    begun = [stage for stage, steps in enumerate(stages) if any(name not in stored for name in steps)]
    pipeline._current_stage = begun[0] if begun else len(stages) - 1
    pipeline._stages_last_batch = [sorted(name for name in steps if name in stored) for steps in last_steps]
    _write_leaves(pipeline, stored, own_columns)
    if stored:
        pipeline._logger.info(f"💾 Carrying on from the stored outputs of: {', '.join(stored)}.")


def _may_be_complete(dag: Any, name: str, stored: dict[str, list[Any]]) -> bool:
    """Whether a step's stored outputs count: its predecessors' do, and nothing says that they must not be used.

    Where batches were routed, their files do not say to whom.
    """
    predecessors = list(dag.get_step_predecessors(name))
    return (
        dag.get_step(name)["step"].use_cache
        and all(predecessor in stored for predecessor in predecessors)
        and not dag.get_step(name).get(constants.ROUTING_BATCH_FUNCTION_ATTR_NAME)
        and not any(dag.get_step(p).get(constants.ROUTING_BATCH_FUNCTION_ATTR_NAME) for p in predecessors)
    )


def _end_without_rows() -> None:
    """A step whose predecessors yielded no rows is given none, and the pipeline comes to its end.

    distilabel never gives it anything, and waits for it for ever, whatever the LLM is.
    """
    ready_to_create_batch = _BatchManagerStep._ready_to_create_batch

    def wrapped(self: Any) -> bool:
        if _running and not self.convergence_step and self.data and self.seq_no == 0:
            no_rows = not any(batch.data[0] for batches in self.data.values() for batch in batches)
            if no_rows and all(name in self.last_batch_received for name in self.data):
                return True
        return bool(ready_to_create_batch(self))

    _BatchManagerStep._ready_to_create_batch = wrapped
