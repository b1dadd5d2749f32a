"""Report that no earlier answer matches the requests of a run, before the requests are submitted and billed."""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread

from distilabel_openai_batch.api.body_outline import ONLY_PROMPTS_DIFFER, describe_difference, outline_body
from distilabel_openai_batch.api.requests import Request, sample_evenly
from distilabel_openai_batch.engine.calls import ScopeMemory
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.text import plural

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

    async def compare(self, requests: Sequence[Request], known: int) -> str:
        """Compare the first requests of the process with the answers that the ledger had before.

        Args:
            requests: the requests that are about to be submitted.
            known: the number of requests of the same flush that an earlier run has submitted.

        Returns:
            The reason of a warning; empty if answers match, or if new rows may be the reason.
        """
        # The calls of a script need not be alike → compare a Task only.
        if self._memory.has_compared or not self._ledger.scope.task:
            return ""
        self._memory.has_compared = True
        return await anyio.to_thread.run_sync(self._report, requests) if requests and not known else ""

    def _report(self, requests: Sequence[Request]) -> str:
        began_at = self._memory.began_at
        answers = self._ledger.outlines.count_answers(began_at)
        if not answers:
            return ""
        sample = sample_evenly(requests, _SAMPLE)
        difference = describe_difference(
            self._ledger.outlines.list_outlines(began_at), [outline_body(bytes(request.body)) for request in sample]
        )
        are_new_rows = difference == ONLY_PROMPTS_DIFFER
        self._observer.on_answers_unmatched(answers, difference, len(requests))
        if are_new_rows:
            return ""
        return f"{plural(answers, 'earlier answer')} of this Task match no request ({difference or 'reason unknown'})."
