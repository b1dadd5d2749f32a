"""Requests that are asked one by one at the synchronous endpoint: answered at once, and billed in full.

What a batch has not answered by its deadline, a dry run, a handful of requests, or one that is tried out before the
others are submitted. Each answer is written down as it comes. One that is on its way when the process dies is lost, and
asked again: the API has no means to find it.
"""

from __future__ import annotations

import anyio
import anyio.to_thread

from distilabel_openai_batch import failpoints
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Deliver
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job

# Each takes some seconds: so many at once are a hundred a minute, which the lowest tier's rate limit allows.
# https://platform.openai.com/docs/guides/rate-limits
_AT_ONCE = 16


class Synchronous:
    """Asks requests at the synchronous endpoint.

    Args:
        api: the server.
        ledger: where each answer is written down.
        observer: reports the events of the run.
    """

    def __init__(self, api: BatchAPI, ledger: Ledger, observer: Observer) -> None:
        self._api = api
        self._ledger = ledger
        self._observer = observer
        self._capacity = anyio.CapacityLimiter(_AT_ONCE)

    async def run(self, job: Job, shard: Shard, take: Deliver) -> None:
        """Asks the requests of a job, some at a time.

        Args:
            job: one's own, that is `SYNCHRONOUS`.
            shard: its requests.
            take: is given each outcome as it comes.

        Raises:
            NoSuchEndpointError: the server has none; the job is dropped.
            RunError: the run cannot go on. What was answered is kept.
        """
        members = await anyio.to_thread.run_sync(self._ledger.requests.row_ids, job)
        failures: list[Exception] = []

        async def ask(request: Request) -> None:
            try:
                async with self._capacity:
                    # Those that were asked already may be answered and billed: they are waited for.
                    if failures:
                        return
                    outcome = await self._api.request(request.endpoint, bytes(request.body))
                failpoints.reached(Failpoint.ANSWER_TO_RECORD)
                result = {request.custom_id: outcome}
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._ledger.requests.record, members, result)
            except Exception as error:
                failures.append(error)
                return
            self._observer.on_sync_answered(request.model, outcome)
            take(result)

        async with anyio.create_task_group() as task_group:
            for request in shard.requests:
                task_group.start_soon(ask, request)
        if failures:
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job)
            raise failures[0]
        await anyio.to_thread.run_sync(self._ledger.jobs.mark_collected, job, MISSING_RESULT)
