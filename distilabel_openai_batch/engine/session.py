"""Puts the parts together for one event loop: the server's client, the jobs, and the buffer in front of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import Call, _Scope, outcomes_seen
from distilabel_openai_batch.engine.scratch import Spool
from distilabel_openai_batch.engine.settings import SessionSettings
from distilabel_openai_batch.engine.submission import Submission
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.structured_output.repair import Exchange


class Session:
    """Answers calls through the Batch API.

    Args:
        buffer: what the calls wait in.
        ledger: what was asked before.
        progress: is told of calls that cannot be written.
        scope: who asks, in this process.
        base_url: the server's address.
        settings: the limits that calls have to keep.
        submission: the rows and jobs that are kept for a later run.
        spool: where the requests' bodies are kept.
    """

    def __init__(
        self,
        buffer: CallBuffer,
        ledger: Ledger,
        progress: Progress,
        scope: _Scope,
        base_url: str,
        settings: SessionSettings,
        submission: Submission,
        spool: Spool,
    ) -> None:
        self.submission = submission
        self._spool = spool
        self._buffer = buffer
        self._ledger = ledger
        self._progress = progress
        self._scope = scope
        self.base_url = base_url
        self._settings = settings
        self.was_broken_off = False
        """Whether one of its users was cancelled, or ended with an error."""

    async def ask(self, calls: Iterable[Call | Failure]) -> list[Outcome]:
        """Waits until each call has an outcome.

        Where the answer to a call has to look like something, and does not, it is asked for again.

        Args:
            calls: a failure among them is its own outcome.

        Returns:
            An outcome for each, in their order.

        Raises:
            RunError: the run cannot go on.
        """
        asked: list[Request | Failure] = []
        wanted: dict[int, Call] = {}
        try:
            outcomes = await self._ask_once(_noting(calls, wanted), asked)
            exchanges = {
                index: Exchange(call.wanted, call.body, outcome)
                for index, call in wanted.items()
                if call.wanted and isinstance(outcome := outcomes[index], Answer)
            }
            while due := [
                (exchange, place, Call(wanted[index].endpoint, body))
                for index, exchange in exchanges.items()
                for place, body in exchange.due()
            ]:
                again = await self._ask_once([call for _, _, call in due], asked)
                for (exchange, place, _), outcome in zip(due, again, strict=True):
                    exchange.take(place, outcome)
        except BaseException:
            for request in reversed(asked):
                if isinstance(request, Request):
                    self._scope.give_back(request.custom_id)
            raise
        for index, outcome in enumerate(outcomes):
            request = asked[index]
            if isinstance(outcome, Failure) and isinstance(request, Request):
                outcomes[index] = replace(outcome, custom_id=request.custom_id)
        reasons = list(outcomes)
        for index, exchange in exchanges.items():
            outcomes[index] = outcome = exchange.outcome
            if failure := exchange.failure:
                request = asked[index]
                assert isinstance(request, Request)
                self._progress.rejected(failure, request.custom_id)
                reasons[index] = failure = replace(failure, custom_id=request.custom_id)
                if isinstance(outcome, Failure):
                    outcomes[index] = failure
                else:
                    outcome.choice_failures = {
                        place: replace(rejected, custom_id=request.custom_id)
                        for place, rejected in (outcome.choice_failures or {}).items()
                    }
        if (seen := outcomes_seen.get()) is not None:
            seen.append(reasons)
        return outcomes

    async def _ask_once(self, calls: Iterable[Call | Failure], asked: list[Request | Failure]) -> list[Outcome]:
        """Waits until each call has an outcome, and adds to `asked` what was asked."""
        these = [call if isinstance(call, Failure) else self._request(call) for call in calls]
        asked += these
        for request in these:
            if isinstance(request, Failure):
                self._progress.asked(1)
                self._progress.gave_up(request)
        outcomes = iter(await self._buffer.ask([request for request in these if isinstance(request, Request)]))
        return [request if isinstance(request, Failure) else next(outcomes) for request in these]

    def _request(self, call: Call) -> Request | Failure:
        try:
            body = call.encode()
        except ValueError as error:
            return Failure(str(error))
        endpoint = self._settings.endpoint(call.endpoint)
        digest = call.digest(self.base_url, endpoint, body)
        custom_id = self._scope.custom_id(digest, lambda: self._first_number(digest))
        model = sys.intern(str(call.body["model"]))
        request = Request(custom_id, endpoint, model, self._spool.add(body))
        if request.size > self._settings.max_bytes:
            return Failure(
                f"The request is too large: {request.size:,} bytes, and an input file holds"
                f" {self._settings.max_bytes:,}"
            )
        return request

    def _first_number(self, digest: str) -> int:
        """What earlier runs were given is asked anew where it is not to be used again."""
        return 0 if self._settings.reuse_answers else self._ledger.handed_over(digest)


def _noting(calls: Iterable[Call | Failure], wanted: dict[int, Call]) -> Iterator[Call | Failure]:
    """Passes calls on, and notes those whose answers have to look like something: the others need not be kept."""
    for index, call in enumerate(calls):
        if isinstance(call, Call) and call.wanted:
            wanted[index] = call
        yield call
