"""Repairs of the answers of one call of a session: checks against schemas, and retries of answers that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import anyio
import anyio.to_thread

from distilabel_openai_batch.api.outcomes import Answer, Outcome
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

    async def add(self, retries: Sequence[tuple[int, int, APICall]], outcomes: Sequence[Outcome]) -> None:
        """Check the outcomes of retries.

        Args:
            retries: the calls that `retries` returned.
            outcomes: the outcome of each of these calls.
        """
        await self._checks.run(
            (schema, partial(self.by_index[index].add_outcome, choice, outcome))
            for (index, choice, _), outcome in zip(retries, outcomes, strict=True)
            if (schema := self._calls[index].schema)
        )
