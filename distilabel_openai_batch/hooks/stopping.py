"""Stop a pipeline: on signals, on errors that end the run, and when the main process is gone.

distilabel 1.5.3 stops by waiting for the steps, which can last for ever. A pipeline with a client stops without waiting
for locks or for ordinary steps: jobs continue at the server, and the next run repeats any other work.

Replaced: `_stop`; `_error_callback` and `_set_steps_not_loaded_exception`, which receive the errors of steps;
`_handle_keyboard_interrupt`, which installs signal handlers.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.managers import BaseManager
from typing import Any

from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline.base import _STEP_LOAD_FAILED_CODE, _STEP_UNLOADED_CODE, BasePipeline
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapperException
from distilabel.utils import logging

from distilabel_openai_batch.display.brief_errors import mark_brief
from distilabel_openai_batch.engine.scratch import delete_open_directories
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks.clients import pipeline_uses_batch_client, uses_batch_client
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.run_report import report_of
from distilabel_openai_batch.text import plural

# Seconds to wait after a signal: for the steps to end, then for their processes, then for the log. The whole pipeline
# is killed after `_WIND_UP_SECONDS`. A wait that is cut short loses no answer.
_STEPS_SECONDS = 1.0
_POOL_SECONDS = 1.0
_LOG_SECONDS = 1.0
_WIND_UP_SECONDS = 2.8

_ORPHAN_CHECK_SECONDS = 0.5

# Shells report a process that a signal ended as 128 and the signal's number.
_SIGNAL_EXIT_CODES = 128

LOAD_ERROR_SECONDS = 10.0
"""Seconds to wait for the error of a step that could not be loaded, after the step has reported the failed load."""

_INCOMPLETE = "Until then the dataset is incomplete."

_forking_process = 0
"""Id of the process that forked last; 0 before the first fork."""

running_pipelines: list[Any] = []
"""The pipeline with a client that this process runs: at most one."""

_is_child = False


def in_client_pipeline() -> bool:
    """Return whether this process runs a pipeline with a client, or a step of such a pipeline."""
    return _is_child or bool(running_pipelines)


def mark_child() -> None:
    """Record that this process runs a step of a pipeline with a client."""
    global _is_child
    _is_child = True


class PipelineStop:
    """A thread that ends one run of a pipeline; the steps get a signal when the object is made.

    Attributes:
        reported: whether a log line has already said why the pipeline stops.
        calls: the number of calls of `Pipeline._stop`.

    Args:
        pipeline: the running pipeline.
        waits_for_submissions: whether to wait until the other Tasks have submitted their jobs.
    """

    def __init__(self, pipeline: Any, waits_for_submissions: bool) -> None:
        self._pipeline = pipeline
        self._waits_for_submissions = waits_for_submissions
        # Steps on a Ray cluster receive no signal and so do not end by themselves: do not wait for them.
        self._deadline = time.monotonic() + (0.0 if isinstance(pipeline, RayPipeline) else _STEPS_SECONDS)
        self._ended_steps: set[str] = set()
        self.reported = False
        self.calls = 1
        self._thread = threading.Thread(target=self._run, name="distilabel-openai-batch-stop", daemon=True)
        if not waits_for_submissions:
            _signal_steps(pipeline, signal.SIGINT)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hurry(self) -> None:
        """End the pipeline now, without waiting for steps."""
        self._waits_for_submissions = False
        self._deadline = time.monotonic()

    def mark_ended(self, step_name: str) -> None:
        """Record that a step has raised and so has ended."""
        self._ended_steps.add(step_name)

    def _is_busy(self, name: str) -> bool:
        pipeline, manager = self._pipeline, self._pipeline._batch_manager
        if manager is None:  # the run has ended
            return False
        sent, received = manager._last_batch_sent.get(name), manager._last_batch_received.get(name)
        return (
            uses_batch_client(pipeline.dag.get_step(name)["step"])
            and name not in self._ended_steps
            and sent is not None
            and (received is None or received.seq_no < sent.seq_no)
            # A Task submits its last requests when it has all its rows, and gets no more rows now.
            and (sent.last_batch or not self._waits_for_submissions)
        )

    def _run(self) -> None:
        pipeline = self._pipeline
        while any(self._is_busy(name) for name in pipeline.dag) and (
            self._waits_for_submissions or time.monotonic() < self._deadline
        ):
            time.sleep(0.05)
        if not (self.reported or pipeline._exception):
            pipeline._logger.info(f"⏹️ The pipeline stopped. {_describe_next_run(pipeline)}")
        self._end_loops()

    def _end_loops(self) -> None:
        """Make distilabel's loops end.

        distilabel's loop waits until each step reports its end, and for queues that no process empties any more. The
        next run repeats the work of unfinished steps, so all steps count as unloaded here.
        """
        pipeline = self._pipeline
        with suppress(Exception):  # on a cluster the queue may have died with its machine
            pipeline._load_queue.put(None)
            pipeline._load_steps_thread.join(timeout=_STEPS_SECONDS)
        with pipeline._steps_load_status_lock:
            for name in pipeline.dag:
                pipeline._steps_load_status[name] = _STEP_UNLOADED_CODE
        with suppress(Exception):  # a run that has ended has closed its queues
            pipeline._output_queue.put(None)


@patch(Pipeline, "_stop", parameters=["self", "acquire_lock"])
@patch(RayPipeline, "_stop", parameters=["self"])
def _stop(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Stop a pipeline without waiting for a lock or for ordinary steps; kill the pipeline at the third call.

    distilabel's `_stop` returns without releasing its lock when called a second time: the main loop then waits for that
    lock for ever.
    """
    if not pipeline_uses_batch_client(self):
        original(self, *args, **kwargs)
        return
    stop: PipelineStop | None = getattr(self, "_openai_batch_stop", None)
    if stop is None:
        self._stop_called = True
        waits_for_submissions = bool(getattr(self, "_openai_batch_waits_for_submissions", False))
        # A step submits nothing after its signal → the signal comes before the line that promises so.
        self._openai_batch_stop = PipelineStop(self, waits_for_submissions)
        self._logger.info(f"🛑 Stopping pipeline. {_describe_jobs(self, waits_for_submissions)}")
        self._openai_batch_stop.start()
        return
    stop.calls += 1
    stop.hurry()
    if stop.calls == 2:
        self._logger.warning("🛑 Press again to force the pipeline to stop.")
    else:
        _kill_pipeline(self)


def _count_open_jobs(pipeline: Any) -> int:
    """Return the number of batches in progress, as the steps reported it at most half a second ago."""
    report = report_of(pipeline)
    return report.open_jobs if report else 0


def _describe_jobs(pipeline: Any, waits_for_submissions: bool) -> str:
    if waits_for_submissions:
        return "Submitted batch jobs continue at the server."
    jobs = _count_open_jobs(pipeline)
    continues = f"; {plural(jobs, 'batch job')} continue{'s' if jobs == 1 else ''} at the server" if jobs else ""
    return f"Nothing more is submitted{continues}."


def _describe_next_run(pipeline: Any) -> str:
    collects = " and to collect the answers of its jobs" if _count_open_jobs(pipeline) else ""
    return f"Run the pipeline again to continue{collects}. {_INCOMPLETE}"


@patch(Pipeline, "_error_callback", parameters=["self", "e"])
def _error_callback(original: Any, self: Any, e: BaseException) -> None:
    """Make `pipeline.run` raise a step's `RunError`, and stop the pipeline for any Task that does not wait.

    distilabel logs a `RunError`, stops, and returns an empty Distiset. If the step has no successors and is not in the
    last level of the graph, distilabel ignores both the `RunError` and the stop of a Task with `wait=False`.
    """
    error = getattr(e, "subprocess_exception", None)
    is_load_error = getattr(e, "is_load_error", False)
    does_not_wait = isinstance(error, DistilabelOfflineBatchGenerationNotFinishedException)
    if is_load_error:
        if isinstance(error, RunError):
            # distilabel's message ends with a link to the documentation of a class.
            e.message = str(error)  # type: ignore[attr-defined]
        original(self, e)
        if isinstance(error, RunError):
            # Raise the error itself, not distilabel's "could not be loaded" error, and without the traceback of the
            # step's process, which distilabel prints over hundreds of lines.
            self._exception = error.with_traceback(None)
        self._openai_batch_load_error_received = True
        return
    if not pipeline_uses_batch_client(self) or not (does_not_wait or isinstance(error, RunError)):
        if pipeline_uses_batch_client(self) and not isinstance(e, _StepWrapperException):
            self._exception = self._exception or RunError(f"The process of a step failed unexpectedly: {e!r}")
        original(self, e)
        return
    name = e.step.name  # type: ignore[attr-defined]
    stop: PipelineStop | None = getattr(self, "_openai_batch_stop", None)
    if does_not_wait:
        self._logger.info(
            f"⏹️ Step '{name}' stopped before its requests were answered, so the pipeline stops."
            f" {_describe_next_run(self)}"
        )
        self._openai_batch_waits_for_submissions = True
    else:
        self._logger.error(f"❌ Step '{name}' cannot continue: {error}")
        self._exception = self._exception or error
    if stop is None:
        self._stop()
        stop = self._openai_batch_stop
    stop.reported = True
    stop.mark_ended(name)


@patch(Pipeline, "_set_steps_not_loaded_exception", parameters=["self"])
def _set_steps_not_loaded_exception(original: Any, self: Any) -> None:
    """Keep a `RunError` that `_error_callback` has set: distilabel would overwrite the error with a general one.

    A step reports that it was not loaded through a queue, and its error through the pool. The report may arrive first,
    so wait for the error.
    """
    if pipeline_uses_batch_client(self) and _STEP_LOAD_FAILED_CODE in self._steps_load_status.values():
        deadline = time.monotonic() + LOAD_ERROR_SECONDS
        while not getattr(self, "_openai_batch_load_error_received", False) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._openai_batch_load_error_received = False
    if not isinstance(self._exception, RunError):
        original(self)


@patch(BasePipeline, "_handle_keyboard_interrupt", parameters=["self"])
def _handle_keyboard_interrupt(original: Any, self: Any) -> Any:
    """Stop a pipeline on SIGTERM as on SIGINT; `resuming` restores both handlers when the pipeline has ended."""
    sigint_handler = original(self)
    if self in running_pipelines:

        def handle(number: int, frame: Any) -> None:
            if self._exception is None:
                self._openai_batch_signal = number
            if self._openai_batch_stop is None:
                _kill_after(_WIND_UP_SECONDS, self)
            self._stop()

        signal.signal(signal.SIGINT, handle)
        sigterm_handler = signal.signal(signal.SIGTERM, handle)
        self._openai_batch_handlers = {signal.SIGINT: sigint_handler, signal.SIGTERM: sigterm_handler}
    return sigint_handler


def interruption(number: int) -> BaseException:
    """Return the exception that `pipeline.run` raises after a signal has stopped the pipeline.

    A script must not go on with an incomplete dataset, and must not end with exit code 0.

    Args:
        number: the signal.

    Returns:
        `KeyboardInterrupt` for SIGINT, with which Python exits as after any Ctrl+C (130 in a shell). `SystemExit` with
        143 for SIGTERM.
    """
    if number == signal.SIGINT:
        return mark_brief(KeyboardInterrupt("The pipeline was stopped before its dataset was complete."))
    return SystemExit(_SIGNAL_EXIT_CODES + number)


def run_loop(pipeline: Any, loop: Callable[[Any], None], as_error: Callable[[Exception], RunError]) -> bool:
    """Run a loop of distilabel, and make `pipeline.run` raise an error of the loop.

    distilabel would return the rows written so far as if the dataset were complete, or wait for ever.

    Args:
        pipeline: the pipeline. Without a client, the loop's error is raised here.
        loop: distilabel's method.
        as_error: returns the error of the run, given the error of the loop.

    Returns:
        Whether the loop ended without an error.
    """
    try:
        loop(pipeline)
    except Exception as error:
        if not pipeline_uses_batch_client(pipeline):
            raise
        pipeline._exception = pipeline._exception or as_error(error)
        return False
    return True


def _signal_steps(pipeline: Any, number: int) -> None:
    pool = getattr(pipeline, "_pool", None)
    for process in list(pool._pool) if pool else []:
        if process.is_alive():
            os.kill(process.pid, number)


def _kill_pipeline(pipeline: Any) -> None:
    """Kill the steps' processes and the queues' process, and exit."""
    pipeline._logger.warning("🛑 Forcing pipeline interruption.")
    _signal_steps(pipeline, signal.SIGKILL)
    if (process := getattr(getattr(pipeline, "_manager", None), "_process", None)) is not None:
        process.kill()
    number = getattr(pipeline, "_openai_batch_signal", None)
    os._exit(1 if number is None else _SIGNAL_EXIT_CODES + number)


def _kill_after(seconds: float, pipeline: Any) -> None:
    """Kill the pipeline if still running after some seconds: a process that died may have held a queue's lock."""

    def kill() -> None:
        time.sleep(seconds)
        if pipeline in running_pipelines:
            _kill_pipeline(pipeline)

    threading.Thread(target=kill, name="distilabel-openai-batch-end", daemon=True).start()


@functools.cache
def watch_forks() -> None:
    """Let `exit_when_orphaned` run in each process that is forked from this one, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_note_forking_process, after_in_child=exit_when_orphaned)


def _note_forking_process() -> None:
    # The parent may end before its child calls `getppid` → the child inherits the id.
    global _forking_process
    _forking_process = os.getpid()


def exit_when_orphaned() -> None:
    """Start a thread that exits this child of a running pipeline when the parent process is gone.

    After a `kill -9` of the main process, distilabel's steps and queues would run for ever.
    """
    if not running_pipelines:
        return
    running_pipelines.clear()
    mark_child()
    # A worker that is forked while the pipeline runs inherits the pipeline's handler. The pipeline stops by messages
    # through its queues → a SIGTERM to the whole process group must not end the queues' process.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if _is_queues_process() else _end_step)
    parent = _forking_process or os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_SECONDS)
        delete_open_directories()
        os._exit(1)

    threading.Thread(target=watch, name="distilabel-openai-batch-orphan", daemon=True).start()


def _end_step(number: int, frame: types.FrameType | None) -> None:
    """End the process of a step on a signal as by default, without its prompts and answers on the disk."""
    delete_open_directories()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _is_queues_process() -> bool:
    """Return whether this process was just forked by the start of a `multiprocessing` manager."""
    frame: types.FrameType | None = sys._getframe()
    while frame:
        if frame.f_code is BaseManager.start.__code__:
            return True
        frame = frame.f_back
    return False


def terminate_pool(pipeline: Any) -> None:
    """End the steps' processes, and kill each that has not ended after a second.

    `pool.terminate` may wait for ever for a lock that died with one of the processes, so the call runs in a thread.
    """
    pool, pipeline._pool = pipeline._pool, None
    terminating = threading.Thread(target=pool.terminate, daemon=True)
    terminating.start()
    terminating.join(timeout=_POOL_SECONDS)
    for process in list(pool._pool):
        if process.is_alive():
            process.kill()


def end_pool(pipeline: Any) -> None:
    """Let the steps' processes end by themselves, for a second at most.

    distilabel terminates them as soon as the steps have ended: a process that is writing its last log lines dies with
    the lock of the log's queue, and the pipeline waits for that queue for ever.
    """
    if pipeline._pool is None:
        return
    pipeline._pool.close()
    deadline = time.monotonic() + _POOL_SECONDS
    for process in list(pipeline._pool._pool):
        process.join(timeout=max(0.0, deadline - time.monotonic()))


def stop_log_listener() -> None:
    """Stop distilabel's log listener, which distilabel stops only where `run` returns a dataset.

    A killed process may have died with the lock of the log's queue: no record passes the queue any more, and
    `listener.stop` waits for ever, so the call runs in a thread.
    """
    listener, logging.queue_listener = logging.queue_listener, None
    if listener is None:
        return
    stopping = threading.Thread(target=listener.stop, daemon=True)
    stopping.start()
    stopping.join(timeout=_LOG_SECONDS)
    if stopping.is_alive() and hasattr(listener.queue, "cancel_join_thread"):
        listener.queue.cancel_join_thread()
