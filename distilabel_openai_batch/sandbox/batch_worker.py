"""Worker threads that validate batches and answer their requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .batch_store import BatchStore
from .batches import StoredBatch
from .results import StoredResults
from .state import SandboxState
from .validation import Problem, file_not_found, validate_file

_THREADS = 8
# Maximum wait for callers per pause; a pause comes every few hundred lines, which take a hundredth of a second.
_YIELD_SECONDS = 0.05
_YIELD_STEP_SECONDS = 0.001


class BatchWorker:
    """Pool of threads that work on batches.

    Attributes:
        active_calls: number of API calls that are being answered; the threads let them go first.
    """

    def __init__(self, state: SandboxState, batches: BatchStore) -> None:
        self._state = state
        self._batches = batches
        self.active_calls = 0
        self._closed = threading.Event()
        self._pending: set[Future[None]] = set()
        # A long batch must not delay the validation of short ones, so use several threads.
        self._threads = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="batch")
        # Threads that compute side by side only slow each other down, so answer one batch at a time.
        self._answering = threading.Lock()

    def close(self) -> None:
        """Stop all work and wait for the threads to end."""
        self._closed.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, batch: StoredBatch) -> None:
        """Queue a batch for validation and answers."""
        work = self._threads.submit(self._work, batch)
        with self._state.lock:
            self._pending.add(work)
        work.add_done_callback(self._finish)

    def pending_work(self) -> Iterable[Future[None]]:
        """Return a future for each batch that is not finished."""
        with self._state.lock:
            return list(self._pending)

    def _finish(self, work: Future[None]) -> None:
        with self._state.lock:
            self._pending.discard(work)
        if not work.cancelled():
            # Raise a defect of the sandbox, rather than leave the batch unfinished without a trace.
            work.result()

    def _work(self, batch: StoredBatch) -> None:
        """Validate a batch and answer its requests."""
        settings = self._state.settings
        if batch.input_file is None:
            self._record_validation(batch, [file_not_found(batch.input_file_id)])
            return
        try:
            batch.validation = validate_file(batch.input_file.path, batch.endpoint, settings, self._pause)
        except FileNotFoundError:
            self._record_validation(batch, [file_not_found(batch.input_file_id)])
            return
        if self._closed.is_set() or not self._record_validation(batch, list(batch.validation.problems)):
            return
        results = batch.results
        if results is None:
            raise AssertionError("a valid batch has results")
        with self._answering:
            cache = self._state.prompt_cache if settings.prompt_cache else None
            results.write(batch.input_file.path, settings, self._state.schedule, self._pause, cache)
        with self._state.lock:
            batch.answered_at = self._state.clock()

    def _pause(self) -> bool:
        """Wait, at most `_YIELD_SECONDS`, until no call is being answered; return `True` if the sandbox is closed."""
        deadline = time.monotonic() + _YIELD_SECONDS
        while self.active_calls and time.monotonic() < deadline and not self._closed.is_set():
            time.sleep(_YIELD_STEP_SECONDS)
        return self._closed.is_set()

    def _record_validation(self, batch: StoredBatch, problems: list[Problem]) -> bool:
        """Record the result of a validation, and return `True` if the requests are to be answered."""
        with self._state.lock:
            failure = batch.scripted_failure()
            scripted = [] if failure is None else [_scripted_problem(failure)]
            if failure is not None and "done" not in failure:
                problems = scripted
            if not problems:
                problems = self._batches.check_token_limit(batch)
            batch.is_valid = not problems
            # A batch that is to fail later passes validation; `problems` holds the scripted problem until then.
            batch.problems = problems if problems else scripted
            if batch.is_valid and batch.validation is not None:
                batch.results = StoredResults(
                    batch.id, batch.endpoint, batch.validation, self._state.directory, batch.dialect
                )
            batch.read_at = self._state.clock()
            return batch.is_valid


def _scripted_problem(failure: dict[str, Any]) -> Problem:
    """Return the problem of a batch that a fault lets fail."""
    default: dict[str, Any] = {"code": "invalid_request", "message": "The sandbox was told to fail this batch."}
    ordered = {name: failure[name] for name in ("code", "message", "param", "line") if name in failure}
    return Problem(**default | ordered)
