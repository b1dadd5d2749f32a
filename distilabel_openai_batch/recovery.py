"""How a pipeline that holds Tasks of ours stops, and comes back: touches of distilabel's internals, each with why.

distilabel 1.5.3 stops by waiting for its steps in ways that can last for ever, and after a `kill -9` its cache says
that rows were sent and has forgotten them. Here a pipeline stops bluntly, and the next run is built anew from what each
step is known to have finished. What was being worked on is done again; what the Batch API has answered comes from the
ledger.

Only pipelines that hold an `OpenAIBatchLLM` are concerned.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from distilabel import constants
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline.base import _STEP_UNLOADED_CODE, BasePipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager, _BatchManagerStep
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.write_buffer import _WriteBuffer
from distilabel.utils import logging, serialization

from distilabel_openai_batch import cluster, rows
from distilabel_openai_batch.errors import RunError

# In the directory of a pipeline's execution: its dataset is complete, and distilabel's cache may be believed.
_COMPLETE = "distilabel_openai_batch.complete"

# After a signal: for the steps to come to their end, for their processes to, and for the whole pipeline. Nothing is
# lost by cutting them short.
_STEPS_SECONDS = 1.0
_POOL_SECONDS = 1.0
_WIND_UP_SECONDS = 2.8
_LOG_SECONDS = 1.0

_ORPHAN_CHECK_SECONDS = 0.5

_RUN_AGAIN = (
    "Run it again: it carries on, and collects what its jobs have answered meanwhile. Until then its dataset is empty."
)

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
    **cluster.TARGETS,
}
"""What the wraps rely on: the parameters that their targets had in distilabel 1.5.3."""

_running: list[Any] = []
"""The pipeline of ours that this process runs, if it runs one."""


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
    cluster.install(holds_ours)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_end_when_orphaned)


class _Stop:
    """The stopping of one run of a pipeline.

    Args:
        pipeline: which one.
        is_ours: whether a step is a Task of ours.
        patient: whether to wait for Tasks that are still submitting.
    """

    def __init__(self, pipeline: Any, is_ours: Callable[[Any], bool], patient: bool) -> None:
        self._pipeline = pipeline
        self._is_ours = is_ours
        self._patient = patient
        # Steps on a cluster hear no signal, and so come to no end of their own.
        self._deadline = time.monotonic() + (0.0 if isinstance(pipeline, RayPipeline) else _STEPS_SECONDS)
        self._ended_steps: set[str] = set()
        self.reported = False
        self.calls = 1
        self._thread = threading.Thread(target=self._run, name="distilabel-openai-batch-stop", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Waits no longer for anybody."""
        self._patient = False
        self._deadline = time.monotonic()

    def ended(self, step_name: str) -> None:
        """A step has raised, and so come to its end."""
        self._ended_steps.add(step_name)

    def _is_busy(self, name: str) -> bool:
        pipeline, manager = self._pipeline, self._pipeline._batch_manager
        sent, received = manager._last_batch_sent.get(name), manager._last_batch_received.get(name)
        return (
            self._is_ours(pipeline.dag.get_step(name)["step"])
            and name not in self._ended_steps
            and sent is not None
            and (received is None or received.seq_no < sent.seq_no)
        )

    def _run(self) -> None:
        pipeline = self._pipeline
        if not self._patient:
            _signal_steps(pipeline, signal.SIGINT)
        while any(self._is_busy(name) for name in pipeline.dag) and (
            self._patient or time.monotonic() < self._deadline
        ):
            time.sleep(0.05)
        if not (self.reported or pipeline._exception):
            pipeline._logger.info(f"⏹️ The pipeline stopped. {_RUN_AGAIN}")
        # distilabel's loop waits until each step says that it has ended, and for queues that nobody empties any more.
        # What the steps still hold is done again by the next run, so for the loop they have ended.
        with suppress(Exception):  # on a cluster it may have died with its machine
            pipeline._load_queue.put(None)
            pipeline._load_steps_thread.join(timeout=_STEPS_SECONDS)
        with pipeline._steps_load_status_lock:
            for name in pipeline.dag:
                pipeline._steps_load_status[name] = _STEP_UNLOADED_CODE
        pipeline._output_queue.put(None)


def _signal_steps(pipeline: Any, number: int) -> None:
    pool = getattr(pipeline, "_pool", None)
    for process in list(pool._pool) if pool else []:
        if process.is_alive():
            os.kill(process.pid, number)


def _stop_bluntly(kind: Any, holds_ours: Callable[[Any], bool], is_ours: Callable[[Any], bool]) -> None:
    """Stopping waits for no lock and for no ordinary step.

    distilabel's `_stop` returns without releasing its lock when it is called a second time, and its loop, which wants
    the lock, waits for ever.
    """
    stop = kind._stop

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if not holds_ours(self):
            stop(self, *args, **kwargs)
            return
        stopping: _Stop | None = getattr(self, "_openai_batch_stop", None)
        if stopping is None:
            self._stop_called = True
            self._logger.info("🛑 Stopping pipeline. Batch jobs that were submitted go on without it.")
            self._openai_batch_stop = _Stop(self, is_ours, patient=_is_patient(self))
            return
        stopping.calls += 1
        stopping.hurry()
        if stopping.calls == 2:
            self._logger.warning("🛑 Press again to force the pipeline to stop.")
        else:
            _end_at_once(self)

    kind._stop = wrapped


def _is_patient(pipeline: Any) -> bool:
    """Whether the pipeline stops because a Task does not wait for its jobs: the others are to submit theirs too."""
    return bool(getattr(pipeline, "_openai_batch_patient", False))


def _end_at_once(pipeline: Any) -> None:
    pipeline._logger.warning("🛑 Forcing pipeline interruption.")
    _signal_steps(pipeline, signal.SIGKILL)
    if (process := getattr(getattr(pipeline, "_manager", None), "_process", None)) is not None:
        process.kill()
    os._exit(1)


def _raise_run_errors(holds_ours: Callable[[Any], bool]) -> None:
    """`pipeline.run` raises a `RunError` of a step, and a Task that does not wait stops the pipeline wherever it is.

    distilabel would log the one, stop, and return an empty Distiset; and ignore both where a step has no successors.
    """
    error_callback = Pipeline._error_callback

    def wrapped(self: Any, e: BaseException) -> None:
        error = getattr(e, "subprocess_exception", None)
        is_stop = isinstance(error, DistilabelOfflineBatchGenerationNotFinishedException)
        if isinstance(error, RunError) and e.is_load_error:  # type: ignore[attr-defined]
            # Logged, and then raised as it is, not as a step that could not be loaded. Where it was raised in the
            # step's process, which distilabel shows over hundreds of lines, helps nobody.
            error_callback(self, e)
            self._exception = error.with_traceback(None)
            return
        if not holds_ours(self) or not (is_stop or isinstance(error, RunError)) or e.is_load_error:  # type: ignore[attr-defined]
            error_callback(self, e)
            return
        name = e.step.name  # type: ignore[attr-defined]
        stopping: _Stop | None = getattr(self, "_openai_batch_stop", None)
        if is_stop:
            self._logger.info(f"⏹️ '{name}' stopped, and with it the pipeline. {_RUN_AGAIN}")
            self._openai_batch_patient = True
        else:
            self._logger.error(f"❌ Step '{name}' cannot go on: {error}")
            self._exception = self._exception or error
        if stopping is None:
            self._stop()
            stopping = self._openai_batch_stop
        stopping.reported = True
        stopping.ended(name)

    Pipeline._error_callback = wrapped
    set_exception = Pipeline._set_steps_not_loaded_exception

    def set_unless_known(self: Any) -> None:
        if not isinstance(self._exception, RunError):
            set_exception(self)

    Pipeline._set_steps_not_loaded_exception = set_unless_known


def _end_after(seconds: float, pipeline: Any) -> None:
    """Ends the process if the pipeline has not ended by then: a queue's lock may have died with who held it."""

    def end() -> None:
        time.sleep(seconds)
        if pipeline in _running:
            _end_at_once(pipeline)

    threading.Thread(target=end, name="distilabel-openai-batch-end", daemon=True).start()


def _answer_signals() -> None:
    """SIGTERM stops a pipeline as SIGINT does. Both are what they were when it has ended."""
    handle_keyboard_interrupt = BasePipeline._handle_keyboard_interrupt

    def wrapped(self: Any) -> Any:
        before = handle_keyboard_interrupt(self)
        if self in _running:

            def handle(number: int, frame: Any) -> None:
                if self._openai_batch_stop is None:
                    _end_after(_WIND_UP_SECONDS, self)
                self._stop()

            signal.signal(signal.SIGINT, handle)
            terminated = signal.signal(signal.SIGTERM, handle)
            self._openai_batch_handlers = {signal.SIGINT: before, signal.SIGTERM: terminated}
        return before

    BasePipeline._handle_keyboard_interrupt = wrapped


def _end_when_orphaned() -> None:
    """Ends a child of a running pipeline when its parent is gone.

    After a `kill -9` of the main process, distilabel's steps and queues would stay for ever.
    """
    if not _running:
        return
    _running.clear()
    # A worker that is forked while the pipeline runs has its handler too.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="distilabel-openai-batch-orphan", daemon=True).start()


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


def _end_pool(pipeline: Any) -> None:
    """Ends the steps' processes, and waits for none: it could be for a lock that died with one of them."""
    pool, pipeline._pool = pipeline._pool, None
    ending = threading.Thread(target=pool.terminate, daemon=True)
    ending.start()
    ending.join(timeout=_POOL_SECONDS)
    for process in list(pool._pool):
        if process.is_alive():
            process.kill()


def _stop_logging() -> None:
    """Stops what writes the log, where distilabel does not: it does so only where it returns a dataset.

    A step whose process was ended may have died with the lock of the log's queue: nothing comes through it any more,
    and distilabel would wait for that for ever.
    """
    listener, logging.queue_listener = logging.queue_listener, None
    if listener is None:
        return
    stopping = threading.Thread(target=listener.stop, daemon=True)
    stopping.start()
    stopping.join(timeout=_LOG_SECONDS)
    if stopping.is_alive() and hasattr(listener.queue, "cancel_join_thread"):
        listener.queue.cancel_join_thread()


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


def _stored_batches(directory: Path) -> list[Any] | None:
    """A step's stored outputs, if they are all there."""
    try:
        batches = [_Batch.from_dict(orjson.loads(path.read_bytes())) for path in directory.glob("batch_*.json")]
        for batch in batches:
            if (path := _rows_file(directory, batch)).exists():
                batch.data = pickle.loads(path.read_bytes())  # noqa: S301  # our own, as private as the cache it is in
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, EOFError, pickle.UnpicklingError):
        return None
    batches.sort(key=lambda batch: batch.seq_no)
    if not batches or not batches[-1].last_batch or [batch.seq_no for batch in batches] != list(range(len(batches))):
        return None
    return batches


def _store_rows_as_they_are() -> None:
    """A step's stored rows come back as they were, so that Tasks behind it ask the same questions.

    distilabel stores them as JSON, which makes text of a date and `None` of a NaN. Rows that it would change are kept
    beside it as well: before it, since the JSON says that they are there.
    """
    write_batch_data = _BatchManager.write_batch_data

    def wrapped(self: Any, batch: Any, steps_data_path: Any) -> None:
        if _running and not all(rows.survives_json(row) for given in batch.data for row in given):
            path = _rows_file(Path(steps_data_path) / self._steps[batch.step_name].signature, batch)
            # A class may be such that nobody finds it again by its name: then JSON has to do.
            with suppress(pickle.PicklingError, AttributeError, TypeError):
                pickled = pickle.dumps(batch.data, protocol=pickle.HIGHEST_PROTOCOL)
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f".{path.name}.{os.getpid()}")
                unfinished.write_bytes(pickled)
                unfinished.replace(path)
        write_batch_data(self, batch, steps_data_path)

    _BatchManager.write_batch_data = wrapped


def _rows_directory(directory: Path) -> Path:
    """Where rows are that JSON would change: not among the stored outputs, all of which distilabel may read."""
    return directory.with_name(f"{directory.name}.rows")


def _rows_file(directory: Path, batch: Any) -> Path:
    return _rows_directory(directory) / f"{batch.data_hash}.pickle"


def _write_leaves(pipeline: Any, stored: dict[str, list[Any]], own_columns: list[str]) -> None:
    """Writes the dataset's files anew: a kill may have lost their last rows, or have had some written twice."""
    path = pipeline._cache_location["data"] / constants.STEPS_OUTPUTS_PATH
    shutil.rmtree(path, ignore_errors=True)
    leaves = pipeline.dag.leaf_steps
    buffer = _WriteBuffer(path, leaves, steps_cached=dict.fromkeys(pipeline.dag, True))
    buffer._openai_batch_columns = own_columns
    for name in leaves:
        for batch in stored.get(name, []):
            buffer.add_batch(batch)
    buffer.close()


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


def _write_whole_files() -> None:
    """What distilabel writes about a pipeline of ours is there as a whole or not at all, whenever it dies."""
    for name in ("write_json", "write_yaml"):
        _write_whole(name, getattr(serialization, name))


def _columns_of(pipeline: Any, own_columns: Callable[[Any], list[str]]) -> list[str]:
    """The columns of ours that a pipeline's steps add."""
    each = (own_columns(pipeline.dag.get_step(name)["step"]) for name in pipeline.dag)
    return list(dict.fromkeys(column for columns in each for column in columns))


def _write_columns_of_one_type(holds_ours: Callable[[Any], bool], own_columns: Callable[[Any], list[str]]) -> None:
    """A dataset can be written whose first rows have nothing in a column, or not all of its columns.

    distilabel writes a leaf's rows some at a time, and takes the types of the first for those of all: a column that is
    `None` fifty times and a text then ends the pipeline with an error of Arrow's. Failures are rare, and so are their
    columns' values; of routed rows each has the columns of those Tasks alone that it went through.
    """
    setup_write_buffer, write_rows = BasePipeline._setup_write_buffer, _WriteBuffer._write

    def setting_up(self: Any, use_cache: bool = True) -> None:
        setup_write_buffer(self, use_cache)
        if holds_ours(self):
            self._write_buffer._openai_batch_columns = _columns_of(self, own_columns)

    def writing(self: Any, step_name: str) -> None:
        columns: list[str] | None = getattr(self, "_openai_batch_columns", None)
        if columns is None:
            write_rows(self, step_name)
            return
        buffered, schemas = self._buffers[step_name], self._buffer_last_schema
        before = schemas.get(step_name)
        known = {name for row in buffered for name in columns if name in row}.union(before.names if before else ())
        for row in buffered:
            for name in columns:
                if name in known:
                    row.setdefault(name, None)
        if before is not None:
            for name in columns:
                if name in known and name not in before.names:
                    before = before.append(pa.field(name, pa.null()))
            schemas[step_name] = before
        write_rows(self, step_name)
        file = self._path / step_name / f"{self._buffers_last_file[step_name] - 1:05}.parquet"
        written = pq.read_schema(file)
        if before is not None and set(before.names) == set(written.names):
            schemas[step_name] = pa.unify_schemas([before, written], promote_options="permissive")

    BasePipeline._setup_write_buffer = setting_up
    _WriteBuffer._write = writing


def _write_whole(name: str, write: Callable[[Path, Any], None]) -> None:
    def wrapped(filename: Path, data: Any) -> None:
        if not _running:
            write(filename, data)
            return
        unfinished = filename.with_name(f".{filename.name}.{os.getpid()}")
        write(unfinished, data)
        unfinished.replace(filename)

    setattr(serialization, name, wrapped)
