"""The end of a pipeline: signals, errors of the run, orphaned processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline.base import _STEP_UNLOADED_CODE, BasePipeline
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.utils import logging

from distilabel_openai_batch.errors import RunError

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


_running: list[Any] = []
"""The pipeline of ours that this process runs, if it runs one."""


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
