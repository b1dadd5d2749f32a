"""Adaptive limit for the enqueued-token quota, learned from the batches that the server refused.

A server limits the tokens that are enqueued for a model, and does not say how many tokens a job has.
The quota: https://platform.openai.com/docs/guides/batch#rate-limits
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from math import inf

import anyio

from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.ledger.states import Job

# Failed batches count against the quota for a while → a job that was refused alone is created again this often before
# it counts as too large.
_RETRIES_ALONE = 3

# Jobs on trial at once, in the beginning: the server may refuse all of them.
_FIRST_TRIALS = 8

# Number of equal jobs that fill the quota: the part of the quota that stays empty is smaller than one of the jobs.
_JOBS_THAT_FILL_THE_QUOTA = 32

# The smallest size that a job is cut to, as a share of `max_requests`: other runs may occupy most of the quota, so a
# refusal of a small job does not prove a small quota.
_SMALLEST_SHARE = 1 / 50


async def _find_none(job_id: int) -> Set[int]:
    return frozenset()


class EnqueueLimit:
    """Limit of the jobs that are in progress at once, and of the requests in a job.

    Args:
        schedule: the poll intervals.
        max_requests: requests in a job, at most.
        max_jobs: jobs in progress at once, at most.
        find_sharing: returns the ids of other processes' jobs that share the quota with a job, given the job's id.
    """

    def __init__(
        self,
        schedule: PollSchedule,
        max_requests: int,
        max_jobs: float = inf,
        find_sharing: Callable[[int], Awaitable[Set[int]]] = _find_none,
    ) -> None:
        self._schedule = schedule
        self._find_sharing = find_sharing
        self._smallest = max_requests * _SMALLEST_SHARE
        self._fitting_requests = inf
        self._enqueued: dict[Admission, int] = {}
        self._capacity_changed = anyio.Event()
        self._was_capacity_freed = False
        self._first_in_line = anyio.Lock()
        self._places = anyio.CapacityLimiter(max_jobs)
        self._trials = anyio.CapacityLimiter(_FIRST_TRIALS)

    @property
    def size(self) -> int | None:
        """Return the number of requests that a job should have at most; `None` if no limit is known."""
        return None if self._fitting_requests == inf else max(1, int(self._fitting_requests))

    @property
    def is_crowded(self) -> bool:
        """Return whether jobs wait for others to end before they are created."""
        return self._places.statistics().tasks_waiting > 0

    def is_too_large(self, requests: int) -> bool:
        """Return whether a job of so many requests should be cut to `size`."""
        return requests > 1 and requests > 1.5 * self._fitting_requests

    @asynccontextmanager
    async def admit(self, deadline: float = inf) -> AsyncIterator[Admission | None]:
        """Wait until a job may be created.

        At most `max_jobs` jobs are inside the context. Only a few are on trial: the server has neither accepted nor
        refused their batch yet.

        Args:
            deadline: the time until which to wait, in seconds of the monotonic clock.

        Yields:
            The admission of the job; `None` if the deadline passed first.
        """
        with ExitStack() as places, closing(Admission(self)) as admission:
            with anyio.move_on_after(deadline - time.monotonic()) as waiting:
                await self._places.acquire_on_behalf_of(admission)
                places.callback(self._places.release_on_behalf_of, admission)
                await admission.begin_trial()
            yield None if waiting.cancelled_caught else admission

    @contextmanager
    def admit_resumed(self) -> Iterator[Admission]:
        """Yield the admission of a job that an earlier run began: the job needs neither a place nor a trial."""
        with closing(Admission(self)) as admission:
            yield admission

    def _announce(self, *, freed: bool) -> None:
        """Wake the first job in line: capacity was freed, or no job is left that could free any."""
        self._was_capacity_freed = freed
        self._capacity_changed.set()
        self._capacity_changed = anyio.Event()


class Admission:
    """Admission of one job: its trial, and its requests among the enqueued ones.

    Args:
        limit: the limit that all jobs of a session share.
    """

    def __init__(self, limit: EnqueueLimit) -> None:
        self._limit = limit
        self._is_on_trial = False
        self._is_accepted = False
        self._enqueued_requests = 0
        self._retries_alone = 0

    async def begin_trial(self) -> None:
        """Wait until one more job may be tried."""
        await self._limit._trials.acquire_on_behalf_of(self)
        self._is_on_trial = True

    def end_trial(self) -> None:
        """Let another job be tried: it is known whether the server accepts this one."""
        if self._is_on_trial:
            self._is_on_trial = False
            self._limit._trials.release_on_behalf_of(self)

    def enqueue(self, job: Job) -> None:
        """Count the requests of a job as enqueued: its batch is created now, or exists."""
        enqueued = self._limit._enqueued
        if self not in enqueued:
            enqueued[self] = job.requests
            self._enqueued_requests = sum(enqueued.values())
            self._is_accepted = False

    def accept(self) -> None:
        """End the trial, and allow one more at once: the server accepted this batch, so it may accept others."""
        if not self._is_accepted:
            self._is_accepted = True
            self.end_trial()
            self._limit._trials.total_tokens += 1
            self._limit._announce(freed=True)

    def leave(self, *, was_accepted: bool) -> None:
        """Stop counting the requests of the job: its batch has ended, or was refused."""
        enqueued = self._limit._enqueued
        if self in enqueued:
            del enqueued[self]
            # A refused job frees no capacity. If no other job is left, none can free any → wake the first in line.
            if was_accepted or not enqueued:
                self._limit._announce(freed=was_accepted)

    async def wait_for_capacity(self, job: Job) -> bool:
        """Wait after a refusal until the server may accept the job.

        Args:
            job: the job, which has left.

        Returns:
            Whether to create the job's batch again. If not, the job is too large, as far as is known.
        """
        limit = self._limit
        if self._enqueued_requests > job.requests:
            fitting = max(self._enqueued_requests / _JOBS_THAT_FILL_THE_QUOTA, limit._smallest)
            limit._fitting_requests = min(limit._fitting_requests, fitting)
        if limit.is_too_large(job.requests):
            return False
        # A job that ends frees capacity for about one job, and the server would refuse all others again → wait in line.
        async with limit._first_in_line:
            if limit._enqueued:
                await limit._capacity_changed.wait()
                if limit._was_capacity_freed:
                    return True
            if sharing := await limit._find_sharing(job.id):
                while sharing <= await limit._find_sharing(job.id):
                    await anyio.sleep(limit._schedule.interval(0.0))
                return True
            await anyio.sleep(limit._schedule.interval(0.0) * 2.0**self._retries_alone)
        self._retries_alone += 1
        if self._retries_alone <= _RETRIES_ALONE:
            return True
        limit._fitting_requests = min(limit._fitting_requests, job.requests / 2)
        return False

    def close(self) -> None:
        """End the trial and leave, whatever the job has come to."""
        self.end_trial()
        self.leave(was_accepted=False)
