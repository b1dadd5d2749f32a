"""Answers of earlier runs to calls whose requests the ledger has all answered.

Such a call needs no request: a look-up takes a fraction of the time that a request takes on its way through the buffer
and the dispatcher.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.to_thread

from distilabel_openai_batch.api.outcomes import Outcome
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import ScopeMemory
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.packs import FirstOccurrences

MIN_REQUESTS = 500
"""Requests of a call that are worth a look-up of their own; fewer are looked up with those of other calls."""


class KnownAnswers:
    """Find the answers to whole calls in the ledger.

    Args:
        ledger: has the answers of earlier runs.
        buffer: counts the answers that callers received.
        activity: the local work of the session.
        observer: receives the events of the run.
        memory: the memory of the process for the scope.
    """

    def __init__(
        self, ledger: Ledger, buffer: CallBuffer, activity: Activity, observer: Observer, memory: ScopeMemory
    ) -> None:
        self._ledger = ledger
        self._buffer = buffer
        self._activity = activity
        self._observer = observer
        self._memory = memory
        self._reported_jobs: set[int] = set()
        self._unreported = 0
        # Two look-ups would wait for each other in two threads.
        self._lock = anyio.Lock()
        activity.call_when_idle(self._report)

    async def find(self, custom_ids: Sequence[str]) -> Sequence[Outcome] | None:
        """Return the answers to the requests of a call, and report the requests as answered.

        Args:
            custom_ids: the requests.

        Returns:
            The answer to each request; `None` if the requests are few, or if any is unanswered, or if they stand in
            another order than in the ledger. Nothing is reported then.

        Raises:
            RunError: the run cannot go on.
        """
        # Requests of another form are repeated in this run.
        firsts = custom_ids if isinstance(custom_ids, FirstOccurrences) and len(custom_ids) >= MIN_REQUESTS else None
        # Calls reach the buffer in their order → a call also waits for the look-ups before it.
        if firsts is None and not self._lock.statistics().locked:
            return None
        with self._activity.busy():
            async with self._lock:
                found = await anyio.to_thread.run_sync(self._look_up, firsts) if firsts else None
            if found is None:
                return None
            answers, batch_ids = found
            if batch_ids:
                self._observer.on_batches_reused(batch_ids)
            self._buffer.count_delivered(custom_ids)
            self._unreported += len(custom_ids)
            # The requests of the process match earlier answers, as `UnmatchedAnswers` would find.
            self._memory.has_compared = True
            return answers

    def _look_up(self, custom_ids: FirstOccurrences) -> tuple[Sequence[Outcome], Sequence[str]] | None:
        """Return the answers, and the ids of the batches that no earlier call named."""
        found = self._ledger.requests.find_answers(custom_ids)
        if found is None:
            return None
        answers, jobs = found
        new_jobs = jobs - self._reported_jobs
        self._reported_jobs |= new_jobs
        return answers, self._ledger.jobs.batch_ids(new_jobs) if new_jobs else ()

    def _report(self) -> None:
        """Report the answers of all calls that were looked up at the same time."""
        if self._unreported:
            count, self._unreported = self._unreported, 0
            self._observer.on_reused(count)
