"""Report that no earlier answer matches the requests of a run, before the requests are submitted and billed."""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread

from distilabel_openai_batch.api.body_outline import describe_difference, outline_body
from distilabel_openai_batch.api.requests import Request, sample_evenly
from distilabel_openai_batch.engine.calls import ScopeMemory
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.ledger import Ledger

# Requests that are compared with earlier requests: some of them may be rows of the earlier run.
_SAMPLE = 20


class UnmatchedAnswers:
    """Comparison of the first requests of a Task with the answers of its earlier runs.

    Args:
        ledger: the ledger of the session.
        observer: receives the number of answers that no request matches.
        memory: the memory of the process for the scope, of which each Task is compared once.
    """

    def __init__(self, ledger: Ledger, observer: Observer, memory: ScopeMemory) -> None:
        self._ledger = ledger
        self._observer = observer
        self._memory = memory

    async def compare(self, requests: Sequence[Request], known: int) -> None:
        """Compare the first requests of the process with the answers that the ledger had before.

        Args:
            requests: the requests that are about to be submitted.
            known: the number of requests of the same flush that an earlier run has submitted.
        """
        # The calls of a script need not be alike → compare a Task only.
        if self._memory.has_compared or not self._ledger.scope.task:
            return
        self._memory.has_compared = True
        if requests and not known:
            await anyio.to_thread.run_sync(self._report, requests)

    def _report(self, requests: Sequence[Request]) -> None:
        began_at = self._memory.began_at
        if answers := self._ledger.outlines.count_answers(began_at):
            difference = describe_difference(
                self._ledger.outlines.list_outlines(began_at),
                [outline_body(bytes(request.body)) for request in sample_evenly(requests, _SAMPLE)],
            )
            self._observer.on_answers_unmatched(answers, difference, len(requests))
