"""Jobs of requests to the synchronous endpoints: answered within seconds or minutes, one by one.

Such requests are a lane of their own, the rest of a batch at its deadline, a dry run, a handful of requests, or a
request that is tried before the others are submitted. Each answer is recorded when it arrives. If the process dies, a
request in flight is lost and submitted again, because the API has no means to find its answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from distilabel_openai_batch import failpoints
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, OVERDUE, Answer, Deliver, Outcome
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.engine.lanes import Route
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.stop_gate import OPEN_GATE, StopGate
from distilabel_openai_batch.engine.sync_sender import FlexUnavailableError, SyncSender
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState

# Tasks per request in flight: the next requests wait for their admission, and no task exists for the others.
_TASKS_PER_REQUEST = 2


@dataclass(frozen=True, slots=True)
class SyncEnd:
    """End of a shard's submission.

    Attributes:
        others: the requests that another process has submitted meanwhile; `None` if there are none.
        unsent: the requests that flex cannot answer, and that may not be sent at full price; `None` if there are none.
        reason: why flex cannot answer these requests.
    """

    others: Shard | None = None
    unsent: Shard | None = None
    reason: str = ""


@dataclass(slots=True)
class _SyncRun:
    """Run of one job.

    Attributes:
        shard: the requests.
        route: their way.
        deadline: the time after which no request is sent, in seconds of the monotonic clock.
        deliver: receives the outcomes.
        request_ids: ids of the requests in the ledger, by `custom_id`.
        done: `custom_id`s of the requests with an outcome.
        last_outcomes: outcomes that are delivered when the job ends.
        errors: errors that end the run.
        unrecorded: outcomes that wait for the next record.
        recording: held during a record.
    """

    shard: Shard
    route: Route
    deadline: float
    deliver: Deliver
    request_ids: dict[str, int]
    done: set[str] = field(default_factory=set)
    last_outcomes: dict[str, Outcome] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    unrecorded: dict[str, Outcome] = field(default_factory=dict)
    recording: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def is_stopped(self) -> bool:
        """Return whether no further request is sent.

        Requests in flight may be answered and billed → wait for them, but begin no other. A lane ends at the deadline;
        other synchronous requests begin there.
        """
        return bool(self.errors) or (self.route.by_lane and time.monotonic() >= self.deadline)

    @property
    def unsent(self) -> list[Request]:
        """Return the requests without an outcome."""
        return [request for request in self.shard.requests if request.custom_id not in self.done]


class SyncRunner:
    """Submit requests synchronously.

    Args:
        sender: sends one request.
        ledger: records each outcome.
        running_jobs: the jobs that tasks of this session run.
        observer: receives the events of the run.
        gate: closes when the run stops.
    """

    def __init__(
        self,
        sender: SyncSender,
        ledger: Ledger,
        running_jobs: RunningJobs,
        observer: Observer,
        gate: StopGate = OPEN_GATE,
    ) -> None:
        self._sender = sender
        self._ledger = ledger
        self._running_jobs = running_jobs
        self._observer = observer
        self._gate = gate

    async def submit(self, shard: Shard, deliver: Deliver, route: Route, deadline: float = float("inf")) -> SyncEnd:
        """Plan a synchronous job for a shard, and submit its requests, some at a time.

        Args:
            shard: the requests. Only requests that no other process has submitted meanwhile go into the job.
            deliver: receives each answer when it is recorded; the failures and the last answer when the job is marked
                as collected too, so that a caller waits for that.
            route: the way of the requests.
            deadline: the time up to which flex is waited for, in seconds of the monotonic clock. Requests of a lane
                that are not sent by then end as `OVERDUE`.

        Raises:
            NoSuchEndpointError: the server has no such synchronous endpoint; the job is dropped.
            RunError: the run cannot go on. The ledger keeps the outcomes so far.
        """
        job, claimed_ids = await anyio.to_thread.run_sync(self._ledger.jobs.plan, shard, JobState.SYNCHRONOUS)
        claimed, others = shard.split_by_ids(set(claimed_ids))
        if not claimed:
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job)
            return SyncEnd(others)
        with self._running_jobs.running(job.id), self._running_jobs.activity.busy():
            request_ids = await anyio.to_thread.run_sync(self._ledger.requests.request_ids, job)
            run = _SyncRun(claimed, route, deadline, deliver, request_ids)
            self._observer.on_sync_started(len(claimed.requests), route.tries_flex)
            await self._send_all(run)
            return await self._end(job, run, others)

    async def _send_all(self, run: _SyncRun) -> None:
        tasks = anyio.Semaphore(self._sender.max_concurrency * _TASKS_PER_REQUEST)

        async def send(request: Request) -> None:
            try:
                await self._send(request, run)
            except Exception as error:
                run.errors.append(error)
            finally:
                tasks.release()

        async with anyio.create_task_group() as task_group:
            for request in run.shard.requests:
                await tasks.acquire()
                if run.is_stopped:
                    return
                task_group.start_soon(send, request)

    async def _send(self, request: Request, run: _SyncRun) -> None:
        """Send a request, and record and deliver its outcome."""
        await self._gate.enter()
        outcome = await self._sender.send(request, run.route, run.deadline, lambda: run.is_stopped)
        if outcome is None:
            return
        failpoints.reached(Failpoint.ANSWER_TO_RECORD)
        result = {request.custom_id: outcome}
        with anyio.CancelScope(shield=True):
            await self._record(result, run)
        self._observer.on_sync_answered(request.model, outcome)
        run.done.add(request.custom_id)
        if len(run.done) < len(run.shard.requests) and isinstance(outcome, Answer):
            run.deliver(result)
        else:
            run.last_outcomes.update(result)

    async def _record(self, result: Mapping[str, Outcome], run: _SyncRun) -> None:
        """Record an outcome, together with the outcomes that arrived during the last record: each one is a disk access.

        Raises:
            LedgerError: the ledger cannot be written. The outcomes are left for the next record.
        """
        run.unrecorded.update(result)
        async with run.recording:
            if run.unrecorded.keys().isdisjoint(result):
                return
            outcomes, run.unrecorded = run.unrecorded, {}
            try:
                await anyio.to_thread.run_sync(self._ledger.requests.record, run.request_ids, outcomes)
            except Exception:
                run.unrecorded.update(outcomes)
                raise

    async def _end(self, job: Job, run: _SyncRun, others: Shard | None) -> SyncEnd:
        """Close the job, and deliver the last outcomes."""
        unsent = run.unsent
        if unsent:
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job)
        else:
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_collected, job, MISSING_RESULT)
        run.deliver(run.last_outcomes)
        fatal = [error for error in run.errors if not isinstance(error, FlexUnavailableError)]
        if fatal:
            raise fatal[0]
        if run.errors:
            return SyncEnd(others, Shard.of(unsent) if unsent else None, str(run.errors[0]))
        if unsent:
            self._observer.on_deadline_passed(len(unsent))
            run.deliver({request.custom_id: OVERDUE for request in unsent})
        return SyncEnd(others)
