"""Dispatch of requests: answered from the ledger, waited for in jobs in progress, or submitted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.client import NoSuchEndpointError
from distilabel_openai_batch.api.failure_codes import NOT_SUBMITTED
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, OVERDUE, Deliver, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.engine.adoption import Adoption
from distilabel_openai_batch.engine.delivery import deliver_answers, deliver_until
from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.job_runner import Ended, Ending, Jobs
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import DispatchSettings
from distilabel_openai_batch.engine.sync_runner import Synchronous
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import OPEN_STATES, Job, JobState
from distilabel_openai_batch.pricing.budget import NO_BUDGET, NoBudget

_NOT_SUBMITTED = Failure(
    "No job of this run holds the request: the Task, model, parameters or rows differ from the submitted ones.",
    code=NOT_SUBMITTED,
)

# Equal refusals in a preflight after which all requests of a model count as refused.
_TRIALS = 3

_LOOK_UP_CHUNK = 5_000

# Deadlines, in seconds since the epoch.
_NEVER = float("inf")
_PASSED = float("-inf")

_POLL_OF_ANOTHER_PROCESS_SECONDS = 1.0


@dataclass(slots=True)
class _LookUp:
    """Requests, sorted by their entries in the ledger.

    Attributes:
        to_submit: requests without an outcome that are in no job in progress.
        failures: failures of some of these in an earlier run, by `custom_id`.
        in_jobs: requests in jobs in progress, by the id of the job.
        answered: number of requests with an outcome.
    """

    to_submit: list[Request] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    in_jobs: dict[int, list[Request]] = field(default_factory=dict)
    answered: int = 0

    def merge(self, second: _LookUp) -> None:
        """Merge the second look-up of `to_submit`."""
        self.to_submit, self.failures = second.to_submit, second.failures
        self.answered += second.answered
        for job_id, requests in second.in_jobs.items():
            self.in_jobs.setdefault(job_id, []).extend(requests)


class Dispatcher:
    """Answer requests, and submit each of them once.

    Args:
        settings: the rules of the dispatch.
        ledger: holds the outcomes of earlier runs.
        jobs: runs jobs.
        limit: the learned limit of enqueued requests.
        adoption: adds the jobs of other machines to the ledger.
        sync_runner: submits requests synchronously.
        cut: cuts requests into shards.
        observer: receives the events of the run.
        budget: the limit of spending.
    """

    def __init__(
        self,
        settings: DispatchSettings,
        ledger: Ledger,
        jobs: Jobs,
        limit: Room,
        adoption: Adoption,
        sync_runner: Synchronous,
        cut: Callable[[Iterable[Request]], Iterable[Shard]],
        observer: Observer,
        budget: NoBudget = NO_BUDGET,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._jobs = jobs
        self._limit = limit
        self._adoption = adoption
        self._sync_runner = sync_runner
        self._cut = cut
        self._observer = observer
        self._budget = budget
        self._capacity = anyio.CapacityLimiter(settings.max_jobs)
        self._tried_models: set[tuple[str, str]] = set()
        self._running: dict[int, anyio.Event] = {}
        self._look_up_lock = anyio.Lock()

    @property
    def is_crowded(self) -> bool:
        """Whether jobs wait for others to end before they are created."""
        return self._capacity.statistics().tasks_waiting > 0

    async def answer(self, requests: Sequence[Request], deliver: Deliver, since: float | None) -> list[str]:
        """Answer requests from the ledger or by the server.

        Args:
            requests: requests with different `custom_id`s.
            deliver: receives outcomes as they arrive.
            since: the time of the first call, in seconds since the epoch, from which the deadline counts; `None` if the
                deadline has passed.

        Returns:
            Ids of the batches that are in progress and not waited for; empty if jobs are waited for.

        Raises:
            RunError: the run cannot go on.
        """
        deliver = self._budget.settle_on_delivery(deliver)
        try:
            if self._settings.only_batches:
                requests = await self._select_members(requests, deliver)
            deadline = _PASSED if since is None else since + self._settings.deadline
            return await self._answer(requests, deliver, deadline, is_first=True)
        except OSError as error:
            raise errors.RunError(f"A file of a job could not be written or read: {error}") from None

    async def _select_members(self, requests: Sequence[Request], deliver: Deliver) -> Sequence[Request]:
        """Return the requests that are, or were, in one of the selected batches; fail the others."""
        only = self._settings.only_batches
        custom_ids = [request.custom_id for request in requests]
        batches = await anyio.to_thread.run_sync(self._ledger.requests.batch_ids, custom_ids)
        if not only.issubset(chain.from_iterable(batches.values())) and await self._adoption.adopt():
            batches = await anyio.to_thread.run_sync(self._ledger.requests.batch_ids, custom_ids)
        others = {custom_id: OTHER_BATCH for custom_id in custom_ids if only.isdisjoint(batches.get(custom_id, ()))}
        deliver(others)
        return [request for request in requests if request.custom_id not in others]

    async def _answer(
        self, requests: Sequence[Request], deliver: Deliver, deadline: float, is_first: bool
    ) -> list[str]:
        """Answer requests.

        Args:
            requests: the requests.
            deliver: receives outcomes as they arrive.
            deadline: the time after which no batch is waited for, in seconds since the epoch.
            is_first: whether this is the first attempt of the run. If not, a failure in the ledger is the outcome of a
                job that was just waited for, and is delivered; if so, the request is submitted again.

        Returns:
            Ids of the batches that are in progress and not waited for.
        """
        # One look-up at a time, so that jobs are created in the order of their requests.
        async with self._look_up_lock:
            found = await self._look_up(requests, deliver, is_first)
            if is_first and found.to_submit and await self._adoption.adopt():
                found.merge(await self._look_up(found.to_submit, deliver, is_first))
        if is_first and found.answered:
            self._observer.on_reused(found.answered)
        to_submit = found.to_submit
        if not self._settings.submits:
            deliver(await anyio.to_thread.run_sync(self._explain, to_submit, found.failures))
            to_submit = []
        is_sync = len(to_submit) < self._settings.sync_below or time.time() >= deadline
        await self._budget.reserve(to_submit, is_sync=is_sync)
        if self._settings.preflight and not is_sync:
            to_submit = await self._try_models(to_submit, deliver)
        waits = [partial(self._wait_for_job, job, members, deliver, deadline) for job, members in found.in_jobs.items()]
        submissions = [
            partial(self._submit_sync, shard, deliver) if is_sync else partial(self._submit, shard, deliver, deadline)
            for shard in self._cut(to_submit)
        ]
        return await _run_concurrently([*waits, *submissions])

    async def _look_up(self, requests: Sequence[Request], deliver: Deliver, is_first: bool) -> _LookUp:
        """Sort requests by their entries in the ledger, and deliver known outcomes in chunks."""
        found = _LookUp()
        for start in range(0, len(requests), _LOOK_UP_CHUNK):
            chunk = requests[start : start + _LOOK_UP_CHUNK]
            known = await anyio.to_thread.run_sync(
                self._ledger.requests.look_up, [request.custom_id for request in chunk]
            )
            outcomes: dict[str, Outcome] = {}
            for request in chunk:
                entry = known.get(request.custom_id)
                if entry is None:
                    found.to_submit.append(request)
                elif entry.outcome is None:
                    found.in_jobs.setdefault(entry.job, []).append(request)
                elif is_first and isinstance(entry.outcome, Failure):
                    found.to_submit.append(request)
                    found.failures[request.custom_id] = entry.outcome
                else:
                    outcomes[request.custom_id] = entry.outcome
            found.answered += len(outcomes)
            deliver(outcomes)
        return found

    def _explain(self, requests: Sequence[Request], failures: Mapping[str, Failure]) -> dict[str, Outcome]:
        """Return the reason why each request has no answer, for a run that submits nothing."""
        custom_ids = [request.custom_id for request in requests]
        dropped = self._ledger.requests.find_dropped(custom_ids)
        return {
            custom_id: failures.get(custom_id) or dropped.get(custom_id, _NOT_SUBMITTED) for custom_id in custom_ids
        }

    async def _try_models(self, requests: Sequence[Request], deliver: Deliver) -> list[Request]:
        """Submit one request of each model synchronously, and a few more if the first ones are refused.

        Returns:
            The requests without an outcome.

        Raises:
            RequestsFailedError: the server refuses all tried requests of a model alike.
        """
        by_model: dict[tuple[str, str], list[Request]] = {}
        for request in requests:
            by_model.setdefault((request.endpoint, request.model), []).append(request)
        outcomes: dict[str, Outcome] = {}
        for model in by_model.keys() - self._tried_models:
            self._tried_models.add(model)
            await self._try_model(by_model[model], outcomes)
        deliver(outcomes)
        return [request for request in requests if request.custom_id not in outcomes]

    async def _try_model(self, requests: Sequence[Request], outcomes: dict[str, Outcome]) -> None:
        """Submit the first requests of a model synchronously, and add their outcomes to `outcomes`."""
        refusals: list[Failure] = []
        for request in requests[:_TRIALS]:
            await self._budget.reserve([request], is_sync=True)
            try:
                await self._run_sync(Shard.of([request]), outcomes.update)
            except (NoSuchEndpointError, errors.AuthenticationError) as error:
                # A key may be restricted to batches.
                self._observer.on_preflight_skipped(str(error))
                return
            outcome = outcomes.get(request.custom_id)
            if not isinstance(outcome, Failure) or errors.is_transient(outcome.status_code, outcome.code):
                return
            refusals.append(outcome)
        if len(refusals) == _TRIALS and len({(refusal.status_code, refusal.code) for refusal in refusals}) == 1:
            raise errors.RequestsFailedError(
                f"The preflight tried the first {_TRIALS} of {len(requests):,} requests, and all failed: {refusals[0]}"
                " Nothing was submitted.",
                status_code=refusals[0].status_code,
                code=refusals[0].code,
            )

    async def _submit_sync(self, shard: Shard, deliver: Deliver) -> list[str]:
        """Submit a shard synchronously, or in a batch if the server has no synchronous endpoint."""
        try:
            others = await self._run_sync(shard, deliver)
        except NoSuchEndpointError as error:
            self._observer.on_sync_unavailable(str(error))
            await self._budget.reserve(shard.requests, is_sync=False)
            return await self._submit(shard, deliver, _NEVER)
        return await self._answer(others, deliver, _PASSED, is_first=False)

    async def _run_sync(self, shard: Shard, deliver: Deliver) -> Sequence[Request]:
        """Submit a shard synchronously.

        Returns:
            The requests that another process has submitted.

        Raises:
            NoSuchEndpointError: the server has no synchronous endpoint.
        """
        job, claimed = await anyio.to_thread.run_sync(self._ledger.jobs.plan, shard, JobState.SYNCHRONOUS)
        mine, others = shard.split_by_ids(set(claimed))
        if mine:
            with self._mark_running(job.id):
                await self._sync_runner.run(job, mine, deliver)
        else:
            await self._drop(job)
        return self._release(others)

    async def _submit(self, shard: Shard, deliver: Deliver, deadline: float) -> list[str]:
        """Submit a shard in a batch."""
        others: Shard | None = None
        async with AsyncExitStack() as places:
            with anyio.move_on_after(deadline - time.time()) as waiting:
                await places.enter_async_context(self._capacity)
                tried = await places.enter_async_context(self._limit.trial())
            if waiting.cancelled_caught:
                return self._deliver_overdue(shard, deliver)
            if self._limit.is_too_large(len(shard.requests)):
                ended = None
            else:
                failpoints.reached(Failpoint.BEFORE_INTENT)
                job, claimed = await anyio.to_thread.run_sync(self._ledger.jobs.plan, shard)
                mine, others = shard.split_by_ids(set(claimed))
                if mine:
                    shard = mine
                    with self._mark_running(job.id):
                        ended = await self._jobs.run(job, deliver_until(deadline, deliver), shard, deadline, tried)
                else:
                    ended = await self._drop(job)
        in_progress: list[str] = []
        if ended is None or ended.ending is Ending.TOO_LARGE:
            assert self._limit.size
            parts = shard.split(self._limit.size)
            in_progress += await _run_concurrently([partial(self._submit, part, deliver, deadline) for part in parts])
        elif ended.ending is Ending.OVERDUE:
            self._deliver_overdue(shard, deliver)
        else:
            in_progress += _batch_ids(ended)
        if left := self._release(others):
            in_progress += await self._answer(left, deliver, deadline, is_first=False)
        return in_progress

    def _release(self, others: Shard | None) -> Sequence[Request]:
        """Return the requests of a shard that another process submits, and release their share of the budget."""
        requests = others.requests if others else []
        self._budget.release(requests)
        return requests

    def _deliver_overdue(self, shard: Shard, deliver: Deliver) -> list[str]:
        """Deliver `OVERDUE` for a shard whose deadline passed before the server accepted its batch."""
        self._observer.on_deadline_passed(len(shard.requests))
        deliver({request.custom_id: OVERDUE for request in shard.requests})
        return []

    async def _drop(self, job: Job) -> Ended:
        """Drop a job whose requests are all in jobs of another process."""
        return Ended(Ending.DROPPED, await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job))

    @contextmanager
    def _mark_running(self, job_id: int) -> Iterator[None]:
        """Let one task run a job, and the other tasks of this session wait for its end."""
        self._running[job_id] = anyio.Event()
        try:
            yield
        finally:
            self._running.pop(job_id).set()

    async def _wait_for_job(
        self, job_id: int, requests: Sequence[Request], deliver: Deliver, deadline: float
    ) -> list[str]:
        """Wait for a job that this session, another process, or a process that died has begun."""
        while (job := await anyio.to_thread.run_sync(self._ledger.jobs.get, job_id)).state in OPEN_STATES:
            if job_id in self._running:
                await self._running[job_id].wait()
                continue
            with self._mark_running(job_id):
                mine = await anyio.to_thread.run_sync(self._ledger.jobs.take_over, job)
                # The deadline of a job counts from its intent, perhaps in an earlier run.
                deadline = min(deadline, job.intended_at + self._settings.deadline)
                if mine:
                    await self._budget.expect(requests)
                ended = None
                if mine and mine.state in OPEN_STATES:
                    ended = await self._jobs.run(mine, deliver_answers(deliver), deadline=deadline)
            if ended and ended.ending is Ending.UNDER_WAY:
                return _batch_ids(ended)
            if mine:
                continue
            if not self._jobs.waits and job.batch_id:
                return [job.batch_id]
            self._observer.on_job_of_another_process(job.batch_id)
            await anyio.sleep(_POLL_OF_ANOTHER_PROCESS_SECONDS)
        return await self._answer(requests, deliver_until(deadline, deliver), deadline, is_first=False)


def _batch_ids(ended: Ended) -> list[str]:
    return [ended.job.batch_id] if ended.ending is Ending.UNDER_WAY and ended.job.batch_id else []


async def _run_concurrently(calls: Sequence[Callable[[], Awaitable[list[str]]]]) -> list[str]:
    """Run calls concurrently, and join their results; the first error cancels the others and is raised alone."""
    results: list[str] = []
    failures: list[Exception] = []

    async def run(call: Callable[[], Awaitable[list[str]]]) -> None:
        try:
            results.extend(await call())
        except Exception as error:
            failures.append(error)
            task_group.cancel_scope.cancel()

    async with anyio.create_task_group() as task_group:
        for call in calls:
            task_group.start_soon(run, call)
    if failures:
        raise failures[0]
    return results
