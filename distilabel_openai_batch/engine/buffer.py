"""Buffer of the calls of many callers, which are flushed together.

The buffer flushes when a job is full, or when no caller is left that could add to the flush: every other task of the
event loop is blocked, no local work is in progress, and the buffer is not held. A pipeline's step holds the buffer
while more rows are on their way. The buffer knows neither the callers nor the means by which requests are answered.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import cast

import anyio
import msgspec
from anyio.abc import TaskGroup

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.deployments import DEPLOYMENT_ADVICE, lacks_deployment
from distilabel_openai_batch.api.failure_codes import BATCH_FAILED, NOT_SUBMITTED
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, OVERDUE, Answer, Deliver, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, total_size
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.compact_ids import CustomIdList
from distilabel_openai_batch.engine.cut_answers import is_spent
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.text import plural

# An input file has requests of one kind.
_KIND = attrgetter("endpoint", "model")

_SUBMITTED_AT = attrgetter("submitted_at")


@dataclass(slots=True, eq=False)
class _Caller:
    """A caller that waits, and the outcomes of its requests so far."""

    outcomes: list[Outcome | None]
    open_requests: int
    done: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None


class _PendingRequest(msgspec.Struct, gc=False, eq=False):
    """A request for which a caller waits.

    Attributes:
        request: the request.
        caller: its caller.
        index: its place among the requests of the caller.
        submitted_at: the time of the call, in seconds of the monotonic clock.
        attempts: outcomes that were delivered for the request so far.
        overdue: whether its deadline has passed, so that no batch is waited for.
        flush: number of the last flush that contained the request.
        is_waiting: whether the caller waits for the outcome.
    """

    request: Request
    caller: _Caller
    index: int
    submitted_at: float
    attempts: int = 0
    overdue: bool = False
    flush: int = 0
    is_waiting: bool = True


@dataclass(slots=True)
class _PendingShard:
    """Pending requests of one endpoint and one model, which fit into one job.

    Attributes:
        requests: the requests, in the order of their calls.
        size: bytes of their input file.
        has_only_retries: whether each request was submitted before, and may wait for a slot.
    """

    requests: list[_PendingRequest] = field(default_factory=list)
    size: int = 0
    has_only_retries: bool = True


class CallBuffer:
    """Answer the requests of all callers in as few jobs as possible.

    Args:
        answer: answers requests, passes their outcomes to its second argument as they arrive, and returns the ids of
            the batches in progress that are not waited for. Its third argument is the time of the first call, in
            seconds of the monotonic clock; `None` if no batch is to be waited for.
        max_requests: requests in a job, at most.
        max_bytes: bytes of a job's input file, at most.
        max_attempts: jobs that one request is put into, at most.
        not_finished: returns the error to raise when batches are in progress and not waited for.
        task_group: runs the flushes; it outlives the callers.
        observer: receives the events of the run.
        all_may_fail: whether the run goes on although all submitted requests fail alike.
        is_crowded: whether jobs wait for others to end before they are created.
        activity: the local work of the session; the end of the work may flush the buffer.
        revise: returns a failed request with other parameters, under which the server may answer; `None` if there are
            none.
        retries_spent: whether callers request an answer again whose limit was spent before its text began; such an
            answer is not reported as a failure.

    Attributes:
        error: the error of `fail`, which every caller gets; `None` while the run goes on.
        delivered: the `custom_id`s of the answers that callers received.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Request], Deliver, float | None], Awaitable[Sequence[str]]],
        max_requests: int,
        max_bytes: int,
        max_attempts: int,
        not_finished: Callable[[Sequence[str]], Exception],
        task_group: TaskGroup,
        observer: Observer,
        all_may_fail: bool = False,
        is_crowded: Callable[[], bool] = lambda: False,
        activity: Activity | None = None,
        revise: Callable[[Request, Failure], Request | None] = lambda request, failure: None,
        retries_spent: bool = False,
    ) -> None:
        self._answer = answer
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._max_attempts = max_attempts
        self._not_finished = not_finished
        self._task_group = task_group
        self._observer = observer
        self._all_may_fail = all_may_fail
        self._is_crowded = is_crowded
        self._activity = activity or Activity()
        self._activity.call_when_idle(self._schedule_flush)
        self._is_held = False
        self._revise = revise
        self._retries_spent = retries_spent
        self._callers: set[_Caller] = set()
        self._pending: dict[tuple[str, str], _PendingShard] = {}
        self._flush_scheduled = False
        self._flushes = 0
        # The requests of each running flush by `custom_id`.
        self._running: dict[int, dict[str, _PendingRequest]] = {}
        self._batches_in_progress: list[str] = []
        self.error: Exception | None = None
        self._failed: list[tuple[_PendingRequest, Failure]] = []
        self._answers = 0
        self.delivered = CustomIdList()

    async def submit(self, requests: Sequence[Request]) -> list[Outcome]:
        """Wait until each request has an outcome.

        Args:
            requests: requests whose `custom_id`s no waiting caller uses.

        Returns:
            One outcome for each request, in the order of the requests.

        Raises:
            RunError: the run cannot go on.
        """
        if self.error:
            raise self.error
        if not requests:
            return []
        caller = _Caller([None] * len(requests), len(requests))
        self._observer.on_requested(len(requests))
        now = time.monotonic()
        with gc_paused():
            pending = [*map(_PendingRequest, requests, repeat(caller), range(len(requests)), repeat(now))]
            self._add_all(requests, pending)
        self._callers.add(caller)
        try:
            await caller.done.wait()
        except BaseException:
            # A cancelled caller releases its `custom_id`s: the next equal call may use the same `custom_id`s while the
            # cancelled requests are in progress.
            for each in pending:
                each.is_waiting = False
            raise
        finally:
            self._callers.discard(caller)
        if caller.error:
            raise caller.error
        # Each outcome is there.
        return cast("list[Outcome]", caller.outcomes)

    def count_delivered(self, custom_ids: Sequence[str]) -> None:
        """Count requests that no caller submits, since an earlier run answered them.

        Args:
            custom_ids: the requests.

        Raises:
            RunError: the run cannot go on.
        """
        if self.error:
            raise self.error
        self._observer.on_requested(len(custom_ids))
        self.delivered.extend(custom_ids)
        self._answers += len(custom_ids)
        self._observer.on_answered(len(custom_ids))

    def fail(self, error: Exception) -> None:
        """Raise an error in every waiting and every later caller."""
        self.error = error
        for caller in self._callers:
            # A caller may have all its outcomes, and not have run since.
            if caller.open_requests:
                caller.error = error
                caller.done.set()
        self._pending.clear()
        for requests in self._running.values():
            requests.clear()
        self._failed.clear()

    def hold(self) -> None:
        """Flush full jobs alone until `release`: more calls are on their way."""
        self._is_held = True

    def release(self) -> None:
        """Flush when every caller waits: no more calls are on their way for now."""
        self._is_held = False
        self._schedule_flush()
        self._end_if_idle()

    def _add_all(self, requests: Sequence[Request], pending: Sequence[_PendingRequest]) -> None:
        """Add requests that were not submitted yet."""
        kinds = set(map(_KIND, requests))
        if len(kinds) == 1:
            [kind] = kinds
            size = total_size(requests)
            shard = self._pending.get(kind) or _PendingShard()
            if len(shard.requests) + len(pending) < self._max_requests and shard.size + size < self._max_bytes:
                shard.requests += pending
                shard.size += size
                shard.has_only_retries = False
                self._pending[kind] = shard
                self._schedule_flush()
                return
        for each in pending:
            self._add(each)

    def _add(self, pending: _PendingRequest) -> None:
        request = pending.request
        size, kind = request.size, (request.endpoint, request.model)
        shard = self._pending.get(kind)
        # A job takes requests of one kind. Flush exactly one job: the request that exceeds its bytes begins the next.
        if shard and shard.size + size > self._max_bytes:
            self._flush(self._pending.pop(kind).requests)
            shard = None
        if shard is None:
            shard = self._pending[kind] = _PendingShard()
        shard.requests.append(pending)
        shard.size += size
        # Retries may wait to be batched together: a small job occupies a slot as long as a large one.
        shard.has_only_retries = shard.has_only_retries and pending.attempts > 0 and not pending.overdue
        if len(shard.requests) >= self._max_requests or shard.size >= self._max_bytes:
            self._flush(self._pending.pop(kind).requests)
        else:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._pending and not self._flush_scheduled and not self._is_held:
            self._flush_scheduled = True
            self._task_group.start_soon(self._flush_when_all_wait)

    async def _flush_when_all_wait(self) -> None:
        await anyio.wait_all_tasks_blocked()
        self._flush_scheduled = False
        if self._is_held or self._activity.is_busy:
            return
        shards = self._pending.values()
        if all(shard.has_only_retries for shard in shards) and self._is_crowded():
            return
        pending = [each for shard in shards for each in shard.requests]
        self._pending.clear()
        self._flush(pending)

    def _flush(self, pending: Sequence[_PendingRequest]) -> None:
        overdue = [each for each in pending if each.overdue and each.is_waiting]
        in_time = [each for each in pending if each.is_waiting and not each.overdue]
        if in_time:
            self._start_flush(in_time, min(map(_SUBMITTED_AT, in_time)))
        if overdue:
            self._start_flush(overdue, None)
        if pending and not (in_time or overdue):
            self._end_if_idle()

    def _start_flush(self, pending: Sequence[_PendingRequest], since: float | None) -> None:
        self._flushes += 1
        requests: list[Request] = []
        running: dict[str, _PendingRequest] = {}
        # One loop: the requests of a large job do not fit into a processor's cache.
        for each in pending:
            each.flush = self._flushes
            request = each.request
            requests.append(request)
            running[request.custom_id] = each
        self._running[self._flushes] = running
        self._task_group.start_soon(self._run_flush, self._flushes, requests, since)

    async def _run_flush(self, flush: int, requests: Sequence[Request], since: float | None) -> None:
        try:
            answering = self._answer(requests, partial(self._deliver, flush), since)
            # Hours may pass until the last outcome, and the memory of answered requests is needed before.
            del requests
            self._batches_in_progress += await answering
        except Exception as error:
            self.fail(errors.as_run_error(error))
            return
        finally:
            del self._running[flush]
        self._schedule_flush()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        self._settle_failed()
        if self._batches_in_progress and self._is_idle:
            self.fail(self._not_finished(self._batches_in_progress))

    @property
    def _is_idle(self) -> bool:
        """State of the buffer: no request is being answered, and no call is on its way."""
        return not (self._running or self._pending or self._is_held)

    def _deliver(self, flush: int, outcomes: Mapping[str, Outcome]) -> None:
        delivered: list[str] = []
        retries = 0
        requests = self._running.get(flush, {})
        for custom_id, outcome in outcomes.items():
            # An answer serves the callers of every flush. A failure serves the callers of this flush: a request that
            # was submitted again after its first caller had left gets the failure of its own flush.
            if isinstance(outcome, Answer):
                pending = requests.pop(custom_id, None)
                if pending is None or not pending.is_waiting:
                    pending = self._find_waiting(custom_id)
                if pending:
                    delivered.append(custom_id)
                    _settle(pending, outcome)
                continue
            pending = requests.get(custom_id)
            if pending is None or pending.flush != flush or not pending.is_waiting:
                continue
            pending.attempts += 1
            if errors.is_out_of_quota(outcome.code):
                self.fail(errors.QuotaError(str(outcome), status_code=outcome.status_code, code=outcome.code))
                break
            if outcome == OVERDUE or (outcome.is_transient and pending.attempts < self._max_attempts):
                retries += 1
                pending.overdue = pending.overdue or outcome == OVERDUE
                if outcome != OVERDUE:
                    pending.request = msgspec.structs.replace(pending.request, retry_of="failed request")
                self._add(pending)
            elif revised := self._revise(pending.request, outcome):
                retries += 1
                pending.request = msgspec.structs.replace(revised, retry_of="failed request")
                self._add(pending)
            else:
                self._failed.append((pending, outcome))
        self.delivered.extend(delivered)
        self._answers += len(delivered)
        if delivered:
            self._observer.on_answered(len(delivered))
        if retries:
            self._observer.on_retried(retries)
        self._schedule_flush()

    def _find_waiting(self, custom_id: str) -> _PendingRequest | None:
        """Return the request with a `custom_id` that waits in any running flush."""
        found = filter(None, [requests.get(custom_id) for requests in self._running.values()])
        return next((pending for pending in found if pending.is_waiting), None)

    def _settle_failed(self) -> None:
        """Deliver failures to their callers, unless all outcomes so far are permanent failures of one kind.

        If all outcomes are permanent failures of one kind after the last flush too, the run fails, and so does a load
        whose batches the server all rejected. A batch in progress that is not waited for may yet have answers, so such
        a batch keeps the run from failing.
        """
        self._failed = [(pending, failure) for pending, failure in self._failed if pending.is_waiting]
        kinds = {(failure.status_code, failure.code) for _, failure in self._failed if failure != OTHER_BATCH}
        only_failures = not self._answers and not self._batches_in_progress and len(kinds) == 1
        # An answer without text was billed → its row fails, and not the run.
        is_permanent = not any(failure.is_billed or failure.is_transient for _, failure in self._failed)
        # `LoadBatchResults` with another Task finds no request. Raise the error; otherwise the log would advise to
        # submit, and so bill, every request again.
        ends_run = is_permanent and (not self._all_may_fail or kinds == {(None, NOT_SUBMITTED)})
        is_rejected = self._all_may_fail and kinds == {(None, BATCH_FAILED)}
        if only_failures and (ends_run or is_rejected):
            if self._is_idle:
                failures = [failure for _, failure in self._failed if failure != OTHER_BATCH]
                self.fail(_rejection(failures) if is_rejected else _common_failure(failures))
            return
        failed, self._failed = self._failed, []
        for pending, failure in failed:
            # A request may fail in two flushes; settle it only the first time.
            if pending.is_waiting:
                if self._retries_spent and is_spent(failure):
                    self._observer.on_answered(1)
                else:
                    self._observer.on_failed(failure, pending.request.custom_id)
                _settle(pending, failure)


def _settle(pending: _PendingRequest, outcome: Outcome) -> None:
    """Hand an outcome to the caller of a request."""
    pending.is_waiting = False
    caller = pending.caller
    caller.outcomes[pending.index] = outcome
    caller.open_requests -= 1
    if not caller.open_requests:
        caller.done.set()


def _common_failure(failures: Sequence[Failure]) -> errors.RunError:
    """Return the error of a run whose requests all failed alike."""
    failure = failures[0]
    advice = f". {DEPLOYMENT_ADVICE}" if lacks_deployment(failure.code, failure.message) else ""
    return errors.RequestsFailedError(
        f"{_name_all(failures)} failed: {failure}{advice}", status_code=failure.status_code, code=failure.code
    )


def _rejection(failures: Sequence[Failure]) -> errors.RunError:
    """Return the error of a load whose batches the server all rejected."""
    first, *others = dict.fromkeys(failure.message for failure in failures)
    more = f" {plural(len(others), 'other job')} failed too." if others else ""
    return errors.BatchFailedError(
        f"{_name_all(failures)} failed, because the server accepted no batch. {first.rstrip('.')}.{more} When the cause"
        " is removed, load with `resubmit=True`.",
        code=BATCH_FAILED,
    )


def _name_all(failures: Sequence[Failure]) -> str:
    return f"All {len(failures):,} requests" if len(failures) > 1 else "The only request"
