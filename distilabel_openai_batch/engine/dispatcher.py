"""Decides what has to be bought: takes what the ledger has, waits for what is under way, and buys the rest."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.client import NoSuchEndpointError
from distilabel_openai_batch.api.failure_codes import NOT_SUBMITTED
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, OVERDUE, Answer, Deliver, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.adoption import Adoption
from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.job_runner import Ended, Ending, Jobs
from distilabel_openai_batch.engine.sync_runner import Synchronous
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import OPEN_STATES, Job, JobState
from distilabel_openai_batch.pricing.budget import UNLIMITED, Unlimited

_NOT_SUBMITTED = Failure(
    "No job of this run asked it: what was submitted is another Task, model or parameter, or other rows.",
    code=NOT_SUBMITTED,
)

# Requests that are refused before it is said that all would be.
_TRIALS = 3

_LOOKED_UP_AT_ONCE = 5_000

# Deadlines, in seconds since the epoch.
_NEVER = float("inf")
_PASSED = float("-inf")

# How often a job is looked up that another process runs.
_ANOTHERS_JOB_SECONDS = 1.0


@dataclass(slots=True)
class _Found:
    """What the ledger knows of requests.

    Attributes:
        to_buy: those that have to be bought.
        failed: what became of some of these in an earlier run.
        waiting: those in jobs under way, by the job's number.
        known: how many had an outcome.
    """

    to_buy: list[Request] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    waiting: dict[int, list[Request]] = field(default_factory=dict)
    known: int = 0

    def add(self, again: _Found) -> None:
        """What was to be bought was looked up once more."""
        self.to_buy, self.failed = again.to_buy, again.failed
        self.known += again.known
        for job_id, requests in again.waiting.items():
            self.waiting.setdefault(job_id, []).extend(requests)


class Broker:
    """Answers requests, each bought once.

    Args:
        ledger: what is known.
        jobs: what buys.
        room: what the server has room for.
        adoption: knows of jobs that the ledger does not know.
        cut: cuts requests into shards.
        max_jobs: jobs of one's own in flight at once.
        progress: is told what was found.
        synchronous: asks what no batch is waited for.
        deadline: seconds after which no batch is waited for.
        sync_below: fewer requests than these are not worth a batch.
        preflight: whether a request is tried out before the others are submitted.
        buys: whether anything is bought. Otherwise what no job has answered is a failure, and says why.
        only: ids of the batches whose requests are answered; the others fail as `OTHER_BATCH`.
        budget: what may be spent.
    """

    def __init__(
        self,
        ledger: Ledger,
        jobs: Jobs,
        room: Room,
        adoption: Adoption,
        cut: Callable[[Iterable[Request]], Iterable[Shard]],
        max_jobs: int,
        progress: Progress,
        synchronous: Synchronous,
        deadline: float | None = None,
        sync_below: float = 0,
        preflight: bool = False,
        buys: bool = True,
        only: Collection[str] = (),
        budget: Unlimited = UNLIMITED,
    ) -> None:
        self._budget = budget
        self._buys = buys
        self._only = frozenset(only)
        self._ledger = ledger
        self._jobs = jobs
        self._room = room
        self._adoption = adoption
        self._cut = cut
        self._capacity = anyio.CapacityLimiter(max_jobs)
        self._progress = progress
        self._synchronous = synchronous
        self._deadline = _NEVER if deadline is None else deadline
        self._sync_below = sync_below
        self._preflight = preflight
        self._tried_out: set[tuple[str, str]] = set()
        self._running: dict[int, anyio.Event] = {}
        self._sorting = anyio.Lock()

    @property
    def is_crowded(self) -> bool:
        """Whether jobs wait for others to end before they are made."""
        return self._capacity.statistics().tasks_waiting > 0

    async def answer(self, requests: Sequence[Request], take: Deliver, since: float | None) -> list[str]:
        """Has requests answered, from the ledger or by the server.

        Args:
            requests: each with a `custom_id` of its own.
            take: is given their outcomes as they come.
            since: when the first of them was asked, in seconds since the epoch, from which the deadline counts; `None`
                where it has passed.

        Returns:
            Ids of the batches that are under way and not waited for; none where jobs are waited for.

        Raises:
            RunError: the run cannot go on.
        """
        take = self._budget.settling(take)
        try:
            if self._only:
                requests = await self._members(requests, take)
            deadline = _PASSED if since is None else since + self._deadline
            return await self._answer(requests, take, deadline, new=True)
        except OSError as error:
            raise errors.RunError(f"A file of a job could not be written or read: {error}") from None

    async def _members(self, requests: Sequence[Request], take: Deliver) -> Sequence[Request]:
        """Those of the requests that are, or were, in one of the batches asked for."""
        custom_ids = [request.custom_id for request in requests]
        batches = await anyio.to_thread.run_sync(self._ledger.batches_of, custom_ids)
        if not self._only.issubset(chain.from_iterable(batches.values())) and await self._adoption.adopt():
            batches = await anyio.to_thread.run_sync(self._ledger.batches_of, custom_ids)
        others = {
            custom_id: OTHER_BATCH for custom_id in custom_ids if self._only.isdisjoint(batches.get(custom_id, ()))
        }
        take(others)
        return [request for request in requests if request.custom_id not in others]

    async def _answer(self, requests: Sequence[Request], take: Deliver, deadline: float, new: bool) -> list[str]:
        """As `answer`. Where they are not `new`, a failure is what their job has just come to, not an earlier run."""
        # One after another, so that jobs are made in the order in which their requests were asked.
        async with self._sorting:
            found = await self._look_up(requests, take, new)
            if new and found.to_buy and await self._adoption.adopt():
                found.add(await self._look_up(found.to_buy, take, new))
        if new:
            self._progress.reused(found.known)
        to_buy = found.to_buy
        if not self._buys:
            take(await anyio.to_thread.run_sync(self._why_not, to_buy, found.failed))
            to_buy = []
        is_urgent = len(to_buy) < self._sync_below or time.time() >= deadline
        await self._budget.reserve(to_buy, at_once=is_urgent)
        if self._preflight and not is_urgent:
            to_buy = await self._try_out(to_buy, take)
        return await _side_by_side(
            [partial(self._wait_for, job_id, members, take, deadline) for job_id, members in found.waiting.items()]
            + [
                partial(self._ask_now, shard, take) if is_urgent else partial(self._buy, shard, take, deadline)
                for shard in self._cut(to_buy)
            ]
        )

    async def _try_out(self, requests: Sequence[Request], take: Deliver) -> list[Request]:
        """Tries one request of each model at the synchronous endpoint, a few where the first ones are refused.

        Returns:
            Those that have no outcome yet.

        Raises:
            RequestsFailedError: all that were tried are refused alike, as they would be in a batch.
        """
        kinds: dict[tuple[str, str], list[Request]] = {}
        for request in requests:
            kinds.setdefault((request.endpoint, request.model), []).append(request)
        outcomes: dict[str, Outcome] = {}
        for kind in kinds.keys() - self._tried_out:
            self._tried_out.add(kind)
            refusals: list[Failure] = []
            for request in kinds[kind][:_TRIALS]:
                await self._budget.reserve([request], at_once=True)
                try:
                    await self._at_once(Shard.of([request]), outcomes.update)
                except (NoSuchEndpointError, errors.AuthenticationError) as error:
                    # Keys can be restricted to batches.
                    self._progress.not_tried_out(str(error))
                    break
                outcome = outcomes.get(request.custom_id)
                if not isinstance(outcome, Failure) or errors.is_transient(outcome.status_code, outcome.code):
                    break
                refusals.append(outcome)
            if len(refusals) == _TRIALS and len({(refusal.status_code, refusal.code) for refusal in refusals}) == 1:
                raise errors.RequestsFailedError(
                    f"The first {_TRIALS} of {len(kinds[kind]):,} requests were tried out, and failed: {refusals[0]}"
                    " Nothing was submitted.",
                    status_code=refusals[0].status_code,
                    code=refusals[0].code,
                )
        take(outcomes)
        return [request for request in requests if request.custom_id not in outcomes]

    async def _ask_now(self, shard: Shard, take: Deliver) -> list[str]:
        """Asks requests at the synchronous endpoint; in a batch where the server has none."""
        try:
            others = await self._at_once(shard, take)
        except NoSuchEndpointError as error:
            self._progress.not_asked_now(str(error))
            await self._budget.reserve(shard.requests, at_once=False)
            return await self._buy(shard, take, _NEVER)
        return await self._answer(others, take, _PASSED, new=False)

    async def _at_once(self, shard: Shard, take: Deliver) -> Sequence[Request]:
        """Asks requests at the synchronous endpoint.

        Returns:
            Those that another process is asking.

        Raises:
            NoSuchEndpointError: there is none.
        """
        job, claimed = await anyio.to_thread.run_sync(self._ledger.plan, shard, JobState.SYNCHRONOUS)
        mine, others = shard.split_by_ids(set(claimed))
        if mine:
            with self._reserved(job.id):
                await self._synchronous.run(job, mine, take)
        else:
            await self._dropped(job)
        return self._left_to(others)

    def _left_to(self, others: Shard | None) -> Sequence[Request]:
        """The requests of a shard that another process buys."""
        requests = others.requests if others else []
        self._budget.let_go(requests)
        return requests

    async def _look_up(self, requests: Sequence[Request], take: Deliver, new: bool) -> _Found:
        """Sorts requests by what the ledger knows of them, and hands over the outcomes, a few thousand at a time."""
        found = _Found()
        for start in range(0, len(requests), _LOOKED_UP_AT_ONCE):
            some = requests[start : start + _LOOKED_UP_AT_ONCE]
            known = await anyio.to_thread.run_sync(self._ledger.look_up, [request.custom_id for request in some])
            outcomes: dict[str, Outcome] = {}
            for request in some:
                fact = known.get(request.custom_id)
                if fact is None:
                    found.to_buy.append(request)
                elif fact.outcome is None:
                    found.waiting.setdefault(fact.job, []).append(request)
                elif new and isinstance(fact.outcome, Failure):
                    found.to_buy.append(request)
                    found.failed[request.custom_id] = fact.outcome
                else:
                    outcomes[request.custom_id] = fact.outcome
            found.known += len(outcomes)
            take(outcomes)
        return found

    def _why_not(self, requests: Sequence[Request], failed: Mapping[str, Failure]) -> dict[str, Outcome]:
        """Why requests have no answer that could be had without buying it."""
        custom_ids = [request.custom_id for request in requests]
        dropped = self._ledger.came_to_nothing(custom_ids)
        return {custom_id: failed.get(custom_id) or dropped.get(custom_id, _NOT_SUBMITTED) for custom_id in custom_ids}

    async def _buy(self, shard: Shard, take: Deliver, deadline: float) -> list[str]:
        others: Shard | None = None
        async with AsyncExitStack() as places:
            with anyio.move_on_after(deadline - time.time()) as waiting:
                await places.enter_async_context(self._capacity)
                tried = await places.enter_async_context(self._room.trial())
            if waiting.cancelled_caught:
                return self._late(shard, take)
            if self._room.is_too_large(len(shard.requests)):
                ended = None
            else:
                failpoints.reached(Failpoint.BEFORE_INTENT)
                job, claimed = await anyio.to_thread.run_sync(self._ledger.plan, shard)
                mine, others = shard.split_by_ids(set(claimed))
                if mine:
                    shard = mine
                ended = await self._run(job, shard, take, deadline, tried) if mine else await self._dropped(job)
        under_way: list[str] = []
        if ended is None or ended.ending is Ending.TOO_LARGE:
            assert self._room.size
            parts = shard.split(self._room.size)
            under_way += await _side_by_side([partial(self._buy, part, take, deadline) for part in parts])
        elif ended.ending is Ending.OVERDUE:
            self._late(shard, take)
        else:
            under_way += _batch_ids(ended)
        if left := self._left_to(others):
            under_way += await self._answer(left, take, deadline, new=False)
        return under_way

    def _late(self, shard: Shard, take: Deliver) -> list[str]:
        """The deadline has passed before the server took a job."""
        self._progress.overdue(len(shard.requests))
        take({request.custom_id: OVERDUE for request in shard.requests})
        return []

    async def _dropped(self, job: Job) -> Ended:
        """A job for which another process left nothing to do."""
        return Ended(Ending.DROPPED, await anyio.to_thread.run_sync(self._ledger.dropped, job))

    async def _run(self, job: Job, shard: Shard, take: Deliver, deadline: float, tried: Callable[[], None]) -> Ended:
        with self._reserved(job.id):
            return await self._jobs.run(
                job, lambda outcomes: take(_overdue(outcomes, deadline)), shard, deadline, tried
            )

    @contextmanager
    def _reserved(self, job_id: int) -> Iterator[None]:
        """A job is run by one task at a time; the others of this session wait for it."""
        self._running[job_id] = anyio.Event()
        try:
            yield
        finally:
            self._running.pop(job_id).set()

    async def _wait_for(self, job_id: int, requests: Sequence[Request], take: Deliver, deadline: float) -> list[str]:
        """Waits for a job that was begun before: by this session, by another process, or by one that died."""
        while (job := await anyio.to_thread.run_sync(self._ledger.job, job_id)).state in OPEN_STATES:
            if job_id in self._running:
                await self._running[job_id].wait()
                continue
            with self._reserved(job_id):
                mine = await anyio.to_thread.run_sync(self._ledger.take_over, job)
                # Its time began when it was planned, perhaps in an earlier run.
                deadline = min(deadline, job.intended_at + self._deadline)
                is_open = mine and mine.state in OPEN_STATES
                if mine:
                    await self._budget.expect(requests)
                ended = await self._jobs.run(mine, _only_answers(take), deadline=deadline) if mine and is_open else None
            if ended and ended.ending is Ending.UNDER_WAY:
                return _batch_ids(ended)
            if mine:
                continue
            if not self._jobs.waits and job.batch_id:
                return [job.batch_id]
            self._progress.waits_for_another(job.batch_id)
            await anyio.sleep(_ANOTHERS_JOB_SECONDS)
        return await self._answer(requests, lambda outcomes: take(_overdue(outcomes, deadline)), deadline, new=False)


def _overdue(outcomes: Mapping[str, Outcome], deadline: float) -> Mapping[str, Outcome]:
    """What became of requests, where another job is not to be waited for."""
    if time.time() < deadline:
        return outcomes
    return {
        custom_id: OVERDUE
        if isinstance(outcome, Failure) and errors.is_transient(outcome.status_code, outcome.code)
        else outcome
        for custom_id, outcome in outcomes.items()
    }


def _only_answers(take: Deliver) -> Deliver:
    """Hands over answers; what else becomes of requests is to be looked up."""
    return lambda outcomes: take({name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Answer)})


def _batch_ids(ended: Ended) -> list[str]:
    return [ended.job.batch_id] if ended.ending is Ending.UNDER_WAY and ended.job.batch_id else []


async def _side_by_side(calls: Sequence[Callable[[], Awaitable[list[str]]]]) -> list[str]:
    """Runs calls side by side; the first error ends them all, and is raised as it is, not as a group."""
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
