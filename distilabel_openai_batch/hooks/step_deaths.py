"""End a pipeline whose step lost its process, such as for lack of memory: distilabel waits for its rows for ever.

Replaced: `_run_load_queue_loop_in_thread`, which distilabel calls when the steps' processes have started.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.local import Pipeline

from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.stopping import running_pipelines

_CHECK_SECONDS = 0.5

# A signal to the whole process group may end a step before the main process has begun to stop: on a busy machine long
# before, as a SIGTERM ends a step at once.
_GRACE_SECONDS = 2.0
_SIGTERM_GRACE_SECONDS = 10.0


@patch(BasePipeline, "_run_load_queue_loop_in_thread", parameters=["self"])
def _run_load_queue_loop_in_thread(original: Any, self: Any) -> threading.Thread:
    """Begin to watch the processes of the steps of a running pipeline with a client."""
    if isinstance(self, Pipeline) and self in running_pipelines:
        # The pool soon replaces a dead process by an idle one → keep the first processes.
        processes = list(self._pool._pool)
        name = "distilabel-openai-batch-deaths"
        threading.Thread(target=watch_steps, args=(self, processes), name=name, daemon=True).start()
    thread: threading.Thread = original(self)
    return thread


def watch_steps(pipeline: Any, processes: Sequence[Any]) -> None:
    """Stop a pipeline with a `RunError` when one of its processes has died; return when the pipeline ends.

    Args:
        pipeline: the running pipeline.
        processes: the processes of its steps, which end with exit code 0 at the end of the run.
    """
    while _is_running(pipeline):
        if codes := [process.exitcode for process in processes if process.exitcode]:
            time.sleep(_SIGTERM_GRACE_SECONDS if codes[0] == -signal.SIGTERM else _GRACE_SECONDS)
            if _is_running(pipeline):
                error = RunError(_describe_death(codes[0]))
                pipeline._logger.error(f"❌ {error}")
                pipeline._exception = pipeline._exception or error
                pipeline._stop()
            return
        time.sleep(_CHECK_SECONDS)


def _is_running(pipeline: Any) -> bool:
    """Return whether a pipeline runs, and nothing ends its processes."""
    return pipeline in running_pipelines and pipeline._openai_batch_stop is None and pipeline._pool is not None


def _describe_death(code: int) -> str:
    """Return a text about a process that ended with an exit code; the code of a signal is negative."""
    cause = f"ended with exit code {code}"
    if code < 0:
        name = signal.Signals(-code).name
        cause = f"was ended by {name}{', perhaps for lack of memory' if name == 'SIGKILL' else ''}"
    return (
        f"The process of a step {cause}. Its answers and jobs are kept: run the pipeline again to continue. Until then"
        " the dataset is incomplete."
    )
