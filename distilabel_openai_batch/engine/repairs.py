"""Repairs of the answers of one call of a session: checks against schemas, and retries of answers that do not fit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread

from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.structured_output.repair import Repair
from distilabel_openai_batch.structured_output.schema import StructuredOutput


class SchemaChecks:
    """Checks of answers, of which those that may block run in a thread, so that the event loop never waits.

    Args:
        activity: the local work of the session.
    """

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._limiter: anyio.CapacityLimiter | None = None

    async def run(self, checks: Iterable[tuple[StructuredOutput, Callable[[], None]]]) -> None:
        """Run checks, each with the schema of its answer."""
        blocking = []
        for schema, check in checks:
            if schema.may_block:
                blocking.append(check)
            else:
                check()
        if blocking:
            # One process checks one answer at a time: more threads would only wait.
            self._limiter = self._limiter or anyio.CapacityLimiter(1)
            with self._activity.busy():
                await anyio.to_thread.run_sync(_call_all, blocking, limiter=self._limiter)


def _call_all(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        function()


class Repairs:
    """Repairs of the answers of one call.

    Args:
        checks: runs the checks of answers.
        calls: the calls with a schema, by their index.

    Attributes:
        by_index: the repair of each answer, by the index of its call.
    """

    def __init__(self, checks: SchemaChecks, calls: Mapping[int, APICall]) -> None:
        self._checks = checks
        self._calls = calls
        self.by_index: dict[int, Repair] = {}
        # The `custom_id`s of the retries so far, by the index of the call and of the choice.
        self._retries: defaultdict[tuple[int, int], list[str | None]] = defaultdict(list)

    async def start(self, outcomes: Sequence[Outcome]) -> None:
        """Check the answers to the calls.

        Args:
            outcomes: the outcome of each call, with or without a schema.
        """
        await self._checks.run(
            (call.schema, partial(self._start, index, call.schema, call.body, outcome))
            for index, call in self._calls.items()
            if call.schema and isinstance(outcome := outcomes[index], Answer)
        )

    def _start(self, index: int, schema: StructuredOutput, body: Mapping[str, object], answer: Answer) -> None:
        self.by_index[index] = Repair(schema, body, answer)

    def retries(self) -> list[tuple[int, int, APICall]]:
        """Return the calls to make next, with the index of the first call and of the choice."""
        return [
            (index, choice, self._calls[index].with_messages(body))
            for index, repair in self.by_index.items()
            for choice, body in repair.retries()
        ]

    async def add(
        self,
        retries: Sequence[tuple[int, int, APICall]],
        outcomes: Sequence[Outcome],
        requests: Sequence[Request | Failure],
    ) -> None:
        """Check the outcomes of retries.

        Args:
            retries: the calls that `retries` returned.
            outcomes: the outcome of each of these calls.
            requests: the request of each of these calls; a failure for a call that was not sent.
        """
        for (index, choice, _), request in zip(retries, requests, strict=True):
            self._retries[index, choice].append(request.custom_id)
        await self._checks.run(
            (schema, partial(self.by_index[index].add_outcome, choice, outcome))
            for (index, choice, _), outcome in zip(retries, outcomes, strict=True)
            if (schema := self._calls[index].schema)
        )

    def replaced(self, requests: Sequence[Request | Failure]) -> Iterator[str]:
        """Yield the requests of which no choice is part of the row's answer.

        A first request is replaced if retries repaired all its choices. A retry is replaced if a later retry follows,
        or if no retry repaired the choice: then the failure of the first request counts.

        Args:
            requests: the first request of each call.
        """
        repaired: Counter[int] = Counter()
        for (index, choice), retries in self._retries.items():
            is_fit = self.by_index[index].is_fit(choice)
            repaired[index] += is_fit
            yield from filter(None, retries[:-1] if is_fit else retries)
        for index, number in repaired.items():
            if number == self.by_index[index].choices and (custom_id := requests[index].custom_id):
                yield custom_id
