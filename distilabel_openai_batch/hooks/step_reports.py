"""Report the numbers of a step's sessions to the pipeline's process.

The LLM of a Task lives in the process of its step. A thread of that process looks at the sessions' numbers twice a
second, and puts changed numbers into the queue by which the step returns batches. Nothing is done for each request.

Replaced: `_StepWrapper._notify_unload`, by which a step says that it has ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from distilabel.pipeline.step_wrapper import _StepWrapper

from distilabel_openai_batch.display.task_counts import TaskCounts, sum_counts
from distilabel_openai_batch.hooks.dataset_card import FollowedSession, save_origin
from distilabel_openai_batch.hooks.registry import patch

_REPORT_SECONDS = 0.5

_logger = logging.getLogger("distilabel.openai_batch")


@dataclass(frozen=True, slots=True)
class StepReport:
    """Message of a step to the pipeline: the numbers of the step's sessions so far.

    Attributes:
        step_name: the step's name.
        counts: the sum of the sessions' numbers.
        scopes: names of the sessions' scopes on the command line.
    """

    step_name: str
    counts: TaskCounts
    scopes: tuple[str, ...] = ()

    @property
    def seq_no(self) -> int:
        """Return 0: distilabel logs the `seq_no` of all that it receives."""
        return 0


class StepReporter:
    """Thread of a step's process that sends a `StepReport` whenever the numbers have changed.

    Args:
        step: the step.
        queue: the queue by which the step returns batches.
    """

    def __init__(self, step: Any, queue: Any) -> None:
        self._step = step
        self._queue = queue
        self._sessions: list[FollowedSession] = []
        self._sent = TaskCounts()
        self._ended = threading.Event()
        self._is_over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="distilabel-openai-batch-report", daemon=True)

    def follow(self, session: FollowedSession) -> None:
        """Report the numbers of a further session."""
        self._sessions.append(session)
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def send(self, is_last: bool = False) -> None:
        """Send the numbers if others than the durations have changed; an error of the queue ends the reports.

        Args:
            is_last: whether to send the durations too.
        """
        try:
            with self._lock:
                sessions = list(self._sessions)
                counts = sum_counts([session.progress.counts() for session in sessions])
                numbers = replace(counts, seconds=0.0, seconds_left=None)
                if is_last or numbers != self._sent:
                    scopes = dict.fromkeys(session.scope.label for session in sessions if session.scope.pipeline)
                    self._queue.put(StepReport(self._step.name, counts, tuple(scopes)))
                    self._sent = numbers
        except RuntimeError:
            # The event loop has changed a dictionary meanwhile → the next report has the numbers.
            return
        except Exception:
            self._ended.set()
            _logger.debug("The numbers of a step cannot be reported any more.", exc_info=True)

    def end(self) -> None:
        """Send the last numbers, end the thread, and store the origin of the answers."""
        if not self._sessions or self._is_over:
            return
        self._is_over = True
        if not self._ended.is_set():
            self._ended.set()
            self.send(is_last=True)
        try:
            save_origin(self._step, self._sessions)
        except Exception:
            _logger.debug("The origin of the answers cannot be stored.", exc_info=True)

    def _run(self) -> None:
        while not self._ended.wait(_REPORT_SECONDS):
            self.send()


_reporter: StepReporter | None = None


def follow_session(session: FollowedSession) -> None:
    """Report the numbers of a session, if this process runs a step of a pipeline."""
    if _reporter:
        _reporter.follow(session)


@contextmanager
def reporting(wrapper: Any) -> Iterator[None]:
    """Report the numbers of the sessions that a step opens within the block.

    Args:
        wrapper: distilabel's wrapper of the step.
    """
    global _reporter
    _reporter = StepReporter(wrapper.step, wrapper.output_queue)
    try:
        yield
    finally:
        _reporter.end()
        _reporter = None


@patch(_StepWrapper, "_notify_unload", parameters=["self"])
def _notify_unload(original: Any, self: Any) -> None:
    """Send a step's last numbers before the pipeline counts the step as ended."""
    if _reporter:
        _reporter.end()
    original(self)
