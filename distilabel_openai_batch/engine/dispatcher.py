"""Dispatch of requests: answered from the ledger, waited for in jobs in progress, or submitted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import anyio
import anyio.to_thread

from distilabel_openai_batch.api.failure_codes import NOT_SUBMITTED
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, OVERDUE, Deliver, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.sync_api import NoSuchEndpointError
from distilabel_openai_batch.engine.adoption import Adopter
from distilabel_openai_batch.engine.answer_reuse import AnswerReuse
from distilabel_openai_batch.engine.cut_answers import is_spent
from distilabel_openai_batch.engine.delivery import deliver_answers, deliver_until
from distilabel_openai_batch.engine.job_runner import MAX_UPLOADS, JobEnd, JobEnding, JobRunner
from distilabel_openai_batch.engine.lanes import LaneChoice, Route
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.preflight import Preflight
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.settings import DispatchSettings
from distilabel_openai_batch.engine.sync_runner import SyncRunner
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import OPEN_STATES
from distilabel_openai_batch.pricing.budget import NO_BUDGET, NoBudget

_NOT_SUBMITTED = Failure(
    "No job of this run holds the request: the Task, model, parameters or rows differ from the submitted ones.",
    code=NOT_SUBMITTED,
)

_LOOK_UP_CHUNK = 5_000

# Deadlines, in seconds of the monotonic clock.
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
        in_other_scopes: requests in jobs in progress of other scopes, by the id of the job.
        answered: number of requests with an outcome.
        empty: the part of `answered` whose outcome is an answer without text.
    """

    to_submit: list[Request] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    in_jobs: dict[int, list[Request]] = field(default_factory=dict)
    in_other_scopes: dict[int, list[Request]] = field(default_factory=dict)
    answered: int = 0
    empty: int = 0

    def merge(self, second: _LookUp) -> None:
        """Merge the second look-up of `to_submit`."""
        self.to_submit, self.failures = second.to_submit, second.failures
        self.answered += second.answered
        self.empty += second.empty
        for job_id, requests in second.in_jobs.items():
            self.in_jobs.setdefault(job_id, []).extend(requests)


class Dispatcher:
    """Answer requests, and submit each of them once.

    Args:
        settings: the rules of the dispatch.
        ledger: holds the outcomes of earlier runs.
        job_runner: runs jobs.
        running_jobs: the jobs that tasks of this session run.
        adopter: adds the jobs of other machines to the ledger.
        sync_runner: submits requests synchronously.
        cut: cuts requests into shards.
        observer: receives the events of the run.
        traits: traits of the server's models.
        lanes: chooses the way of the requests.
        budget: the limit of spending.
        reuse: takes the answers of other scopes; `None` for no other scope.
        before_submission: receives the requests of each flush that are about to be submitted, and the number of its
            requests that an earlier run has submitted, and may wait or raise; `None` to receive nothing.
    """

    def __init__(
        self,
        settings: DispatchSettings,
        ledger: Ledger,
        job_runner: JobRunner,
        running_jobs: RunningJobs,
        adopter: Adopter,
        sync_runner: SyncRunner,
        cut: Callable[[Iterable[Request]], Iterable[Shard]],
        observer: Observer,
        traits: LearnedTraits,
        lanes: LaneChoice,
        budget: NoBudget = NO_BUDGET,
        reuse: AnswerReuse | None = None,
        before_submission: Callable[[Sequence[Request], int], Awaitable[None]] | None = None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._job_runner = job_runner
        self._running_jobs = running_jobs
        self._adopter = adopter
        self._sync_runner = sync_runner
        self._cut = cut
        self._observer = observer
        self._lanes = lanes
        self._budget = budget
        self._reuse = reuse
        self._before_submission = before_submission
        self._traits = traits
        self._preflight = Preflight(sync_runner, lanes, traits, budget, observer)
        self._look_up_lock = anyio.Lock()
        self._submission_lock = anyio.Lock()

    async def answer(self, requests: Sequence[Request], deliver: Deliver, since: float | None) -> list[str]:
        """Answer requests from the ledger or by the server.

        Args:
            requests: requests with different `custom_id`s.
            deliver: receives outcomes as they arrive.
            since: the time of the first call, in seconds of the monotonic clock, from which the deadline counts; `None`
                if the deadline has passed.

        Returns:
            Ids of the batches that are in progress and not waited for; empty if jobs are waited for.

        Raises:
            RunError: the run cannot go on.
        """
        deliver = self._budget.settle_on_delivery(deliver)
        if self._settings.only_batches:
            requests = await self._select_members(requests, deliver)
        deadline = _PASSED if since is None else self._settings.deadline.moment(since)
        answering = self._answer(requests, deliver, deadline, is_first=True)
        # The jobs hold the requests until they are answered.
        del requests
        return await answering

    async def _select_members(self, requests: Sequence[Request], deliver: Deliver) -> Sequence[Request]:
        """Return the requests that are, or were, in one of the selected batches; fail the others."""
        only = self._settings.only_batches
        custom_ids = [request.custom_id for request in requests]
        batches = await anyio.to_thread.run_sync(self._ledger.requests.batch_ids, custom_ids)
        if not only.issubset(chain.from_iterable(batches.values())) and await self._adopter.adopt(custom_ids):
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
            deadline: the time after which no batch is waited for, in seconds of the monotonic clock.
            is_first: whether this is the first attempt of the run. If not, a failure in the ledger is the outcome of a
                job that was just waited for, and is delivered; if so, the request is submitted again.

        Returns:
            Ids of the batches that are in progress and not waited for.
        """
        with self._running_jobs.activity.busy():
            calls = await self._plan(requests, deliver, deadline, is_first)
        del requests
        return await _run_concurrently(calls)

    async def _plan(
        self, requests: Sequence[Request], deliver: Deliver, deadline: float, is_first: bool
    ) -> list[Callable[[], Awaitable[list[str]]]]:
        """Deliver the outcomes in the ledger; return a call for each job that answers other requests, see `_answer`."""
        # One look-up at a time, so that jobs are created in the order of their requests.
        async with self._look_up_lock:
            found = await self._look_up(requests, deliver, is_first)
            if is_first and found.to_submit and await self._adopt_for(found.to_submit):
                found.merge(await self._look_up(found.to_submit, deliver, is_first))
            if self._reuse and found.to_submit:
                await self._take_from_other_scopes(self._reuse, found, deliver, is_first)
        if is_first and found.answered > found.empty:
            self._observer.on_reused(found.answered - found.empty)
        if is_first and found.empty:
            self._observer.on_empty_reused(found.empty)
        to_submit: Sequence[Request] = found.to_submit
        if not self._settings.submits:
            deliver(await anyio.to_thread.run_sync(self._explain, to_submit, found.failures))
            to_submit = []
        # A later flush waits for the checks and the preflight of an earlier flush → jobs keep the order of requests.
        async with self._submission_lock:
            if self._before_submission and is_first:
                await self._before_submission(to_submit, found.answered + sum(map(len, found.in_jobs.values())))
            to_submit = self._traits.revise_known(to_submit, found.failures)
            routes = self._choose_routes(to_submit, deadline)
            prepared = await self._prepare(to_submit, routes, deliver)
        waits = [
            partial(self._wait_for_job, job, members, deliver, deadline, is_own=jobs is found.in_jobs)
            for jobs in (found.in_jobs, found.in_other_scopes)
            for job, members in jobs.items()
        ]
        submissions = [
            partial(self._submit_sync, shard, deliver, route, deadline)
            if (route := routes[shard.endpoint, shard.requests[0].model]).is_synchronous
            else partial(self._submit, shard, deliver, deadline)
            for shard in self._cut(prepared)
        ]
        return [*waits, *submissions]

    async def _adopt_for(self, requests: Sequence[Request]) -> bool:
        """Add the scope's batches on the server to the ledger; return whether there may be answers to requests."""
        return self._adopter.is_due and await self._adopter.adopt([request.custom_id for request in requests])

    async def _take_from_other_scopes(
        self, reuse: AnswerReuse, found: _LookUp, deliver: Deliver, is_first: bool
    ) -> None:
        """Deliver answers of other scopes, and let requests wait that are in jobs in progress there."""
        if await reuse.take(found.to_submit):
            found.merge(await self._look_up(found.to_submit, deliver, is_first))
        found.in_other_scopes = await reuse.find_pending(found.to_submit)
        pending = {request.custom_id for members in found.in_other_scopes.values() for request in members}
        found.to_submit = [request for request in found.to_submit if request.custom_id not in pending]

    def _choose_routes(self, requests: Sequence[Request], deadline: float) -> dict[tuple[str, str], Route]:
        """Return the way of the requests of each endpoint and model."""
        is_late = time.monotonic() >= deadline
        kinds = {(request.endpoint, request.model) for request in requests}
        return {kind: self._lanes.choose(*kind, len(requests), is_late=is_late) for kind in kinds}

    async def _prepare(
        self, requests: Sequence[Request], routes: Mapping[tuple[str, str], Route], deliver: Deliver
    ) -> Sequence[Request]:
        """Reserve the cost of requests, and try their models; return the requests that are still to be submitted."""
        for may_cost_full_price in {route.may_cost_full_price for route in routes.values()} or {False}:
            alike = {kind for kind, route in routes.items() if route.may_cost_full_price is may_cost_full_price}
            chosen = _select(requests, alike, len(routes))
            await self._budget.reserve(chosen, is_sync=may_cost_full_price)
        if not self._settings.preflight:
            return requests
        batched = {kind for kind, route in routes.items() if not route.is_synchronous}
        tried = await self._preflight.try_models(_select(requests, batched, len(routes)), deliver)
        return [*tried, *(request for request in requests if (request.endpoint, request.model) not in batched)]

    async def _look_up(self, requests: Sequence[Request], deliver: Deliver, is_first: bool) -> _LookUp:
        """Sort requests by their entries in the ledger, and deliver known outcomes in chunks."""
        # The callers build outputs between two chunks → one pause for all, see `ResultCollector.collect`.
        with gc_paused():
            return await self._look_up_in_chunks(requests, deliver, is_first)

    async def _look_up_in_chunks(self, requests: Sequence[Request], deliver: Deliver, is_first: bool) -> _LookUp:
        found = _LookUp()
        reported_jobs: set[int] = set()
        for start in range(0, len(requests), _LOOK_UP_CHUNK):
            chunk = requests[start : start + _LOOK_UP_CHUNK]
            known = await anyio.to_thread.run_sync(
                self._ledger.requests.look_up_jobs, [request.custom_id for request in chunk]
            )
            outcomes: dict[str, Outcome] = {}
            pending: dict[str, int] = {}
            answered_jobs: set[int] = set()
            for group in known:
                if group.outcomes is None:
                    pending |= dict.fromkeys(group.custom_ids, group.job)
                    continue
                ended: Iterable[tuple[str, Outcome]] = zip(group.custom_ids, group.outcomes, strict=True)
                if is_first and Failure in set(map(type, group.outcomes)):
                    ended = self._select_final(ended, found.failures)
                known_before = len(outcomes)
                outcomes.update(ended)
                if len(outcomes) > known_before:
                    answered_jobs.add(group.job)
            if len(outcomes) < len(chunk):
                _sort_unanswered(found, chunk, outcomes, pending)
            found.answered += len(outcomes)
            if self._settings.keeps_spent:
                found.empty += sum(isinstance(outcome, Failure) for outcome in outcomes.values())
            if is_first and not answered_jobs <= reported_jobs:
                # The delivery of the last outcomes may end the run → report before.
                await self._report_reused_batches(answered_jobs - reported_jobs)
                reported_jobs |= answered_jobs
            deliver(outcomes)
        return found

    def _select_final(
        self, outcomes: Iterable[tuple[str, Outcome]], failures: dict[str, Failure]
    ) -> Iterator[tuple[str, Outcome]]:
        """Yield the outcomes that an earlier run leaves to this run, and add the other failures to `failures`."""
        for custom_id, outcome in outcomes:
            if isinstance(outcome, Failure) and not self._is_final(outcome):
                failures[custom_id] = outcome
            else:
                yield custom_id, outcome

    async def _report_reused_batches(self, job_ids: Set[int]) -> None:
        """Report the batches that outcomes of earlier runs come from."""
        self._observer.on_batches_reused(await anyio.to_thread.run_sync(self._ledger.jobs.batch_ids, job_ids))

    def _is_final(self, failure: Failure) -> bool:
        """Return whether a failure of an earlier run is the outcome of its request."""
        return self._settings.keeps_spent and is_spent(failure)

    def _explain(self, requests: Sequence[Request], failures: Mapping[str, Failure]) -> dict[str, Outcome]:
        """Return the reason why each request has no answer, and record the reasons of dropped jobs as failures.

        Only a run that submits nothing needs the reasons: any other run puts the requests into a further job.
        """
        custom_ids = [request.custom_id for request in requests]
        if dropped := self._ledger.requests.find_dropped(custom_ids):
            self._ledger.requests.fail_dropped(dropped)
        return {
            custom_id: failures.get(custom_id) or dropped.get(custom_id, _NOT_SUBMITTED) for custom_id in custom_ids
        }

    async def _submit_sync(self, shard: Shard, deliver: Deliver, route: Route, deadline: float) -> list[str]:
        """Submit a shard synchronously, or in a batch if the server has no such endpoint, or flex cannot answer."""
        deliver_sync = deliver_until(deadline, deliver) if route.by_lane else deliver
        try:
            end = await self._sync_runner.submit(shard, deliver_sync, route, deadline)
        except NoSuchEndpointError as error:
            return await self._submit_instead(shard, deliver, str(error), _NEVER)
        in_progress: list[str] = []
        if end.unsent:
            in_progress += await self._submit_instead(end.unsent, deliver, end.reason, deadline)
        if others := self._release(end.others):
            in_progress += await self._answer(others, deliver, deadline, is_first=False)
        return in_progress

    async def _submit_instead(self, shard: Shard, deliver: Deliver, reason: str, deadline: float) -> list[str]:
        """Submit requests in a batch that should be synchronous."""
        self._observer.on_sync_unavailable(reason)
        await self._budget.reserve(shard.requests, is_sync=False)
        return await self._submit(shard, deliver, deadline)

    async def _submit(
        self, shard: Shard, deliver: Deliver, deadline: float, uploads_left: int = MAX_UPLOADS - 1
    ) -> list[str]:
        """Submit a shard in a batch, or in several batches if it is too large for the server."""
        end = await self._job_runner.submit(shard, deliver_until(deadline, deliver), deadline, uploads_left)
        in_progress = [end.batch_id] if end.batch_id else []
        if end.ending is JobEnding.TOO_LARGE:
            parts = self._job_runner.split(end.shard)
            in_progress += await _run_concurrently([partial(self._submit, part, deliver, deadline) for part in parts])
        elif end.ending is JobEnding.FILE_GONE:
            in_progress += await self._submit(end.shard, deliver, deadline, uploads_left - 1)
        elif end.ending is JobEnding.OVERDUE:
            self._deliver_overdue(end.shard, deliver)
        if others := self._release(end.others):
            in_progress += await self._answer(others, deliver, deadline, is_first=False)
        return in_progress

    def _release(self, others: Shard | None) -> Sequence[Request]:
        """Return the requests of a shard that another process submits, and release their share of the budget."""
        requests = others.requests if others else []
        self._budget.release(requests)
        return requests

    def _deliver_overdue(self, shard: Shard, deliver: Deliver) -> None:
        """Deliver `OVERDUE` for a shard whose deadline passed before the server accepted its batch."""
        self._observer.on_deadline_passed(len(shard.requests))
        deliver({request.custom_id: OVERDUE for request in shard.requests})

    async def _wait_for_job(
        self, job_id: int, requests: Sequence[Request], deliver: Deliver, deadline: float, *, is_own: bool = True
    ) -> list[str]:
        """Wait for a job that this session, another process, or a process that died has begun.

        Args:
            job_id: the id of the job.
            requests: the requests that wait for the job.
            deliver: receives the outcomes of the requests.
            deadline: the time after which no batch is waited for, in seconds of the monotonic clock.
            is_own: whether the job belongs to the session's scope. The outcomes of any other job have other
                `custom_id`s: they are recorded in their own scope, and then taken from there.

        Returns:
            Ids of the batches that are in progress and not waited for.
        """
        deliver_recorded = deliver_answers(deliver) if is_own else _ignore
        job_deadline: float | None = None
        while (job := await anyio.to_thread.run_sync(self._ledger.jobs.get, job_id)).state in OPEN_STATES:
            if job_id in self._running_jobs:
                await self._running_jobs.wait_for(job_id)
                continue
            end: JobEnd | None = None
            with self._running_jobs.running(job_id):
                owned_job = await anyio.to_thread.run_sync(self._ledger.jobs.take_over, job)
                # The deadline of a job counts from its intent, perhaps in an earlier run, whose time only the wall
                # clock has. The wall clock may be set while the job is waited for → read the wall clock once.
                if job_deadline is None:
                    age = max(0.0, time.time() - job.intended_at)
                    job_deadline = self._settings.deadline.moment(time.monotonic() - age)
                    deadline = min(deadline, job_deadline)
                if owned_job:
                    await self._budget.expect(requests)
                if owned_job and owned_job.state in OPEN_STATES:
                    end = await self._job_runner.resume(owned_job, deliver_recorded, deadline)
            if end and end.ending is JobEnding.IN_PROGRESS and end.job.batch_id:
                return [end.job.batch_id]
            if owned_job:
                continue
            if not self._job_runner.waits and job.batch_id:
                return [job.batch_id]
            self._observer.on_job_of_another_process(job.batch_id)
            await anyio.sleep(_POLL_OF_ANOTHER_PROCESS_SECONDS)
        # A request that no job of this scope had yet is submitted if the other scope's job left the request unanswered.
        return await self._answer(requests, deliver_until(deadline, deliver), deadline, is_first=not is_own)


def _sort_unanswered(
    found: _LookUp, requests: Sequence[Request], outcomes: Mapping[str, Outcome], pending: Mapping[str, int]
) -> None:
    """Add the requests without an outcome to a look-up, in their order.

    Args:
        found: the look-up.
        requests: the requests of a chunk.
        outcomes: the outcomes of requests by `custom_id`.
        pending: the jobs of pending requests by `custom_id`.
    """
    for request in requests:
        if request.custom_id in outcomes:
            continue
        job_id = pending.get(request.custom_id)
        if job_id is None:
            found.to_submit.append(request)
        else:
            found.in_jobs.setdefault(job_id, []).append(request)


def _ignore(outcomes: Mapping[str, Outcome]) -> None:
    """Drop outcomes."""


def _select(requests: Sequence[Request], kinds: Set[tuple[str, str]], number_of_kinds: int) -> Sequence[Request]:
    """Return the requests of some endpoints and models.

    Args:
        requests: the requests.
        kinds: pairs of an endpoint and a model.
        number_of_kinds: number of such pairs among the requests; nearly every run has one.
    """
    if len(kinds) == number_of_kinds:
        return requests
    return [request for request in requests if (request.endpoint, request.model) in kinds] if kinds else []


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
