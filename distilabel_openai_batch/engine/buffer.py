"""Gathers the calls of many callers and has them answered together, once nobody is left to wait for.

Which callers there are, and what answering means, is not its business: it flushes when every other task of the event
loop is blocked, or a job is full.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.abc import TaskGroup

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.failure_codes import NOT_SUBMITTED
from distilabel_openai_batch.api.outcomes import OVERDUE, Answer, Deliver, Failure, Outcome
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.gc_pause import gc_paused


@dataclass(slots=True, eq=False)
class _Slot:
    """One caller's requests, and what became of them so far."""

    outcomes: list[Outcome | None]
    open: int
    done: anyio.Event = field(default_factory=anyio.Event)
    error: BaseException | None = None


@dataclass(slots=True)
class _Asked:
    """A request that a caller waits for."""

    request: Request
    slot: _Slot
    index: int
    since: float
    attempts: int = 0
    overdue: bool = False
    flush: int = 0
    """The last one that it went into."""


class CallBuffer:
    """Answers callers' requests in as few jobs as may be.

    Args:
        answer: has requests answered, gives their outcomes to its second argument as they come, and returns the batches
            that are under way and not waited for. Its third argument says when the first of them was asked, in seconds
            since the epoch; `None` where no batch is to be waited for.
        is_full: whether so many requests, of so many bytes, are enough for a job.
        max_attempts: how often one request is asked before it is given up.
        not_finished: what to raise when batches are under way and not waited for.
        task_group: where requests are answered; it must outlive the callers.
        progress: is told what became of the requests.
        all_may_fail: whether it is no error of the run that all requests fail alike, if they were submitted.
        is_crowded: whether jobs wait for others to end before they are made.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Request], Deliver, float | None], Awaitable[Sequence[str]]],
        is_full: Callable[[int, int], bool],
        max_attempts: int,
        not_finished: Callable[[Sequence[str]], Exception],
        task_group: TaskGroup,
        progress: Progress,
        all_may_fail: bool = False,
        is_crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answer = answer
        self._is_full = is_full
        self._max_attempts = max_attempts
        self._not_finished = not_finished
        self._task_group = task_group
        self._progress = progress
        self._all_may_fail = all_may_fail
        self._is_crowded = is_crowded
        self._waiting: dict[str, _Asked] = {}
        self._pending: list[_Asked] = []
        self._pending_bytes = 0
        self._pending_may_wait = True
        self._flush_due = False
        self._flushes = 0
        self._flushes_out = 0
        self._under_way: list[str] = []
        self._error: BaseException | None = None
        self._rejected: list[tuple[_Asked, Failure]] = []

    @property
    def failed(self) -> bool:
        """Whether it was given an error for everybody."""
        return self._error is not None

    async def ask(self, requests: Sequence[Request]) -> list[Outcome]:
        """Waits until each request has an outcome.

        Args:
            requests: with `custom_id`s that no caller has used yet, or none but those who have left.

        Returns:
            An outcome for each, in their order.

        Raises:
            RunError: the run cannot go on.
        """
        if self._error:
            raise self._error
        if not requests:
            return []
        slot = _Slot([None] * len(requests), len(requests))
        self._progress.asked(len(requests))
        now = time.time()
        with gc_paused():
            for index, request in enumerate(requests):
                asked = _Asked(request, slot, index, now)
                self._waiting[request.custom_id] = asked
                self._add(asked)
        try:
            await slot.done.wait()
        except BaseException:
            # The numbers are given back: the next who asks the same may do so while these are under way.
            for request in requests:
                self._waiting.pop(request.custom_id, None)
            raise
        if slot.error:
            raise slot.error
        return [outcome for outcome in slot.outcomes if outcome is not None]

    def fail(self, error: BaseException) -> None:
        """Gives an error to everybody who waits or will ask."""
        self._error = error
        for asked in self._waiting.values():
            asked.slot.error = error
            asked.slot.done.set()
        self._waiting.clear()
        self._pending.clear()

    def _add(self, asked: _Asked) -> None:
        self._pending.append(asked)
        self._pending_bytes += len(asked.request.body)
        # What is asked again may: each job leaves a few, and a job of few takes as long, and a place, as one of many.
        self._pending_may_wait = self._pending_may_wait and asked.attempts > 0 and not asked.overdue
        if self._is_full(len(self._pending), self._pending_bytes):
            self._flush()
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._pending and not self._flush_due:
            self._flush_due = True
            self._task_group.start_soon(self._flush_when_all_wait)

    async def _flush_when_all_wait(self) -> None:
        await anyio.wait_all_tasks_blocked()
        self._flush_due = False
        if not (self._pending_may_wait and self._is_crowded()):
            self._flush()

    def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        self._pending_may_wait = True
        due = [asked for asked in pending if self._is_waited_for(asked)]
        waiting = [asked for asked in due if not asked.overdue]
        overdue = [asked for asked in due if asked.overdue]
        if waiting:
            self._start(waiting, min(asked.since for asked in waiting))
        if overdue:
            self._start(overdue, None)
        if pending and not due:
            self._end_if_all_is_said()

    def _is_waited_for(self, asked: _Asked) -> bool:
        """Whether its caller has neither an outcome for it nor left."""
        return self._waiting.get(asked.request.custom_id) is asked

    def _start(self, pending: Sequence[_Asked], since: float | None) -> None:
        self._flushes += 1
        self._flushes_out += 1
        for asked in pending:
            asked.flush = self._flushes
        self._task_group.start_soon(self._run, self._flushes, [asked.request for asked in pending], since)

    async def _run(self, flush: int, requests: Sequence[Request], since: float | None) -> None:
        try:
            self._under_way += await self._answer(requests, partial(self._take, flush), since)
        except Exception as error:
            self.fail(error)
            return
        finally:
            self._flushes_out -= 1
        self._flush_soon()
        self._end_if_all_is_said()

    def _end_if_all_is_said(self) -> None:
        self._settle_rejected()
        if self._under_way and not self._flushes_out and not self._pending:
            self.fail(self._not_finished(self._under_way))

    def _take(self, flush: int, outcomes: Mapping[str, Outcome]) -> None:
        again = 0
        for custom_id, outcome in outcomes.items():
            asked = self._waiting.get(custom_id)
            # An answer is for everybody. A failure is for who asked in this flush: whoever asked since, after another
            # has left, is told by one of their own.
            if asked is None or (isinstance(outcome, Failure) and asked.flush != flush):
                continue
            asked.attempts += 1
            if isinstance(outcome, Answer):
                self._progress.answered()
                self._settle(asked, outcome)
            elif errors.is_out_of_quota(outcome.code):
                self.fail(errors.QuotaError(str(outcome), status_code=outcome.status_code, code=outcome.code))
                return
            elif outcome == OVERDUE or (
                errors.is_transient(outcome.status_code, outcome.code) and asked.attempts < self._max_attempts
            ):
                again += 1
                asked.overdue = asked.overdue or outcome == OVERDUE
                self._add(asked)
            else:
                self._rejected.append((asked, outcome))
        self._progress.asking_again(again)
        self._flush_soon()

    def _settle_rejected(self) -> None:
        """Hands over failures, unless it turns out that there is nothing else.

        While nothing at all was answered and all failures are of one kind that does not pass, they are kept back, and
        if it stays so until the last flush is answered, they are an error of the run. Batches that are not waited for
        may yet have answers.
        """
        self._rejected = [(asked, failure) for asked, failure in self._rejected if self._is_waited_for(asked)]
        kinds = {(failure.status_code, failure.code) for _, failure in self._rejected}
        nothing_else = not self._progress.answers and not self._under_way and len(kinds) == 1
        hopeless = nothing_else and not errors.is_transient(*next(iter(kinds)))
        # Who loads what another Task submitted would be told to buy it all again.
        if hopeless and (not self._all_may_fail or kinds == {(None, NOT_SUBMITTED)}):
            if not self._flushes_out and not self._pending:
                failure = self._rejected[0][1]
                self.fail(
                    errors.RequestsFailedError(
                        f"All {len(self._rejected):,} requests failed: {failure}",
                        status_code=failure.status_code,
                        code=failure.code,
                    )
                )
            return
        rejected, self._rejected = self._rejected, []
        for asked, failure in rejected:
            # What was told twice is settled once.
            if self._is_waited_for(asked):
                self._progress.gave_up(failure, asked.request.custom_id)
                self._settle(asked, failure)

    def _settle(self, asked: _Asked, outcome: Outcome) -> None:
        slot = asked.slot
        slot.outcomes[asked.index] = outcome
        slot.open -= 1
        del self._waiting[asked.request.custom_id]
        if not slot.open:
            slot.done.set()
