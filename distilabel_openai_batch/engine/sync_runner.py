"""Requests to the synchronous endpoints: answered within seconds, and billed at the full price.

Such requests are the rest of a batch at its deadline, a dry run, a handful of requests, or a request that is tried
before the others are submitted. Each answer is recorded when it arrives. If the process dies, a request in flight is
lost and submitted again, because the API has no means to find its answer.
"""

from __future__ import annotations

import anyio
import anyio.to_thread

from distilabel_openai_batch import failpoints
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Deliver, Outcome
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState

# A request takes some seconds → 16 at once are about a hundred a minute, which the lowest tier's rate limit allows.
# https://platform.openai.com/docs/guides/rate-limits
_MAX_REQUESTS = 16


class SyncRunner:
    """Submit requests synchronously.

    Args:
        api: the server.
        ledger: records each outcome.
        running_jobs: the jobs that tasks of this session run.
        observer: receives the events of the run.
    """

    def __init__(self, api: BatchAPI, ledger: Ledger, running_jobs: RunningJobs, observer: Observer) -> None:
        self._api = api
        self._ledger = ledger
        self._running_jobs = running_jobs
        self._observer = observer
        self._capacity = anyio.CapacityLimiter(_MAX_REQUESTS)

    async def submit(self, shard: Shard, deliver: Deliver) -> Shard | None:
        """Plan a synchronous job for a shard, and submit its requests, some at a time.

        Args:
            shard: the requests. Only requests that no other process has submitted meanwhile go into the job.
            deliver: receives each answer when it is recorded; the failures and the last answer when the job is marked
                as collected too, so that a caller waits for that.

        Returns:
            The requests that another process has submitted; `None` if there are none.

        Raises:
            NoSuchEndpointError: the server has no such synchronous endpoint; the job is dropped.
            RunError: the run cannot go on. The ledger keeps the outcomes so far.
        """
        job, claimed_ids = await anyio.to_thread.run_sync(self._ledger.jobs.plan, shard, JobState.SYNCHRONOUS)
        claimed, others = shard.split_by_ids(set(claimed_ids))
        if claimed:
            with self._running_jobs.running(job.id), self._running_jobs.activity.busy():
                await self._run(job, claimed, deliver)
        else:
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job)
        return others

    async def _run(self, job: Job, shard: Shard, deliver: Deliver) -> None:
        row_ids = await anyio.to_thread.run_sync(self._ledger.requests.row_ids, job)
        last_outcomes: dict[str, Outcome] = {}
        outcomes_due = len(shard.requests)
        failures: list[Exception] = []

        async def submit(request: Request) -> None:
            nonlocal outcomes_due
            try:
                async with self._capacity:
                    # Requests in flight may be answered and billed → wait for them, but begin no other.
                    if failures:
                        return
                    outcome = await self._api.request(request.endpoint, bytes(request.body))
                failpoints.reached(Failpoint.ANSWER_TO_RECORD)
                result = {request.custom_id: outcome}
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._ledger.requests.record, row_ids, result)
            except Exception as error:
                failures.append(error)
                return
            self._observer.on_sync_answered(request.model, outcome)
            outcomes_due -= 1
            if outcomes_due and isinstance(outcome, Answer):
                deliver(result)
            else:
                last_outcomes.update(result)

        async with anyio.create_task_group() as task_group:
            for request in shard.requests:
                task_group.start_soon(submit, request)
        if failures:
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job)
            deliver(last_outcomes)
            raise failures[0]
        await anyio.to_thread.run_sync(self._ledger.jobs.mark_collected, job, MISSING_RESULT)
        deliver(last_outcomes)
