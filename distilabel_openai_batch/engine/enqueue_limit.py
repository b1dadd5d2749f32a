"""What the server has room for: so many tokens may wait for a model, and nobody says how many there are in a job.

The limit: https://platform.openai.com/docs/guides/batch#rate-limits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from math import inf

import anyio

from distilabel_openai_batch.engine.settings import PollSchedule

# Failed batches count against the limit for a while: so often is a job that stands alone tried again before it is
# taken for too large.
_TRIES = 3

# Jobs that are uploaded, or which the server has not taken yet, in the beginning: more of them may all be refused.
_TRIED_AT_ONCE = 8

# Of jobs this small the limit holds so many that what is left over is a few hundredths of it.
_JOBS_THAT_FILL_IT = 32

# What others leave of the limit says little: jobs are not made smaller for it than this share of the largest.
_SMALLEST_SHARE = 1 / 50


async def _nobody(job_id: int) -> Set[int]:
    return frozenset()


class Room:
    """Who is under way, who waits, and how large a job should be, as far as the server's refusals tell.

    Args:
        schedule: when to look at jobs.
        max_requests: requests in a job, at most.
        beside: finds the jobs of others that share a job's limit: of Tasks that run in processes of their own.
    """

    def __init__(
        self,
        schedule: PollSchedule,
        max_requests: int,
        beside: Callable[[int], Awaitable[Set[int]]] = _nobody,
    ) -> None:
        self._schedule = schedule
        self._beside = beside
        self._smallest = max_requests * _SMALLEST_SHARE
        self._fitting = inf
        # By the ledger's numbers of the jobs: their requests, and those that were enqueued when they came.
        self._enqueued: dict[int, tuple[int, int]] = {}
        self._tries: Counter[int] = Counter()
        self._news = anyio.Event()
        self._is_good_news = False
        self._first_in_line = anyio.Lock()
        self._trials = anyio.CapacityLimiter(_TRIED_AT_ONCE)

    @property
    def size(self) -> int | None:
        """Requests that a job should have, at most; `None` while no limit was seen."""
        return None if self._fitting == inf else max(1, int(self._fitting))

    def is_too_large(self, requests: int) -> bool:
        """Whether a job of so many requests is better cut to the `size`."""
        return requests > 1 and requests > 1.5 * self._fitting

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[Callable[[], None]]:
        """Waits until a job may be tried: only so many are, before it is known whether the server takes them.

        Yields:
            What to call once that is known; the end of the context says so too.
        """
        trial = object()
        await self._trials.acquire_on_behalf_of(trial)
        under_way = [trial]

        def over() -> None:
            if under_way:
                self._trials.release_on_behalf_of(under_way.pop())

        try:
            yield over
        finally:
            over()

    def enter(self, job_id: int, requests: int) -> int:
        """A job's batch is created now, or is there already.

        Returns:
            The requests that are then enqueued, its own included.
        """
        if job_id not in self._enqueued:
            before = sum(requests for requests, _ in self._enqueued.values())
            self._enqueued[job_id] = requests, before + requests
        return self._enqueued[job_id][1]

    def leave(self, job_id: int, was_taken: bool) -> None:
        """A job has ended, perhaps because the server did not take it."""
        # One that was not taken has made no room; but where it was the last, nothing else is to be waited for.
        if self._enqueued.pop(job_id, None) and (was_taken or not self._enqueued):
            self._tell(good=was_taken)

    def accept(self) -> None:
        """The server has taken a batch: it may take others, and so one more is tried at once from now on."""
        self._trials.total_tokens += 1
        self._tell(good=True)

    def _tell(self, good: bool) -> None:
        """Tells the first who waits that there may be room now, or that there is nobody left who could make some."""
        self._is_good_news = good
        self._news.set()
        self._news = anyio.Event()

    async def wait(self, job_id: int, requests: int, enqueued: int) -> bool:
        """After a refusal, waits until there may be room.

        Args:
            job_id: the job that was refused, and has left.
            requests: how many it has.
            enqueued: what `enter` said: so many were too many.

        Returns:
            Whether the job is to be tried again as it is. Otherwise it is too large, by what is known now.
        """
        if enqueued > requests:
            self._fitting = min(self._fitting, max(enqueued / _JOBS_THAT_FILL_IT, self._smallest))
        if self.is_too_large(requests):
            return False
        # One after another, as long as they are taken: a job that ends makes room for about one, and all the others
        # would be refused again.
        async with self._first_in_line:
            if self._enqueued:
                await self._news.wait()
                if self._is_good_news:
                    return True
            if others := await self._beside(job_id):
                while others <= await self._beside(job_id):
                    await anyio.sleep(self._schedule.interval(0.0))
                return True
            await anyio.sleep(self._schedule.interval(0.0) * 2.0 ** self._tries[job_id])
        self._tries[job_id] += 1
        if self._tries[job_id] <= _TRIES:
            return True
        self._fitting = min(self._fitting, requests / 2)
        return False
