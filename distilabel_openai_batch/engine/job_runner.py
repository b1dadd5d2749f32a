"""Runs of jobs, many side by side: from the state that the ledger has a job in to an outcome for each request.

A job is a shard and its batch. Each step is recorded in the ledger before the next step begins.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.deployments import DEPLOYMENT_ADVICE, may_lack_deployment
from distilabel_openai_batch.api.files import FILE_VISIBLE_SECONDS, InputFileGoneError, is_input_file_refused
from distilabel_openai_batch.api.outcomes import Deliver, Outcome
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.enqueue_limit import Admission, EnqueueLimit
from distilabel_openai_batch.engine.file_storage import FileStorage
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.job_watcher import JobWatcher
from distilabel_openai_batch.engine.result_collector import ResultCollector
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.scratch import scratch_file
from distilabel_openai_batch.engine.wake import Wake
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState

# A batch that failed for a reason that passes is created again this often, after these pauses.
_MAX_RECREATIONS = 3
_RECREATION_PAUSES = Patience(first=15.0)

# A batch whose input file the server does not see is created again this often, over five minutes and the time of the
# validations: as often as a refused creation is repeated.
_MAX_FILE_REFUSALS = 12
_FILE_REFUSAL_PAUSES = Patience(first=0.5)

# Bytes of an input file that are written at once.
_WRITE_BYTES = 262_144

MAX_UPLOADS = 3
"""Uploads of one shard, at most: the server may lose an input file."""


class JobEnding(Enum):
    """End of a job's run."""

    COLLECTED = "the ledger has an outcome for each request"
    DROPPED = "no batch will answer the requests, and a further job may hold them"
    OVERDUE = "the deadline passed before the server accepted file and batch; a further job may hold the requests"
    TOO_LARGE = "the batch exceeds the enqueue limit; smaller jobs may hold the requests"
    FILE_GONE = "the server lost the input file; a further job may hold the requests"
    IN_PROGRESS = "the server works on the batch, and the run does not wait for jobs"


@dataclass(frozen=True, slots=True)
class JobEnd:
    """End of a job's run.

    Attributes:
        ending: the kind of the end.
        job: the job in its last state.
    """

    ending: JobEnding
    job: Job


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """End of a shard's submission.

    Attributes:
        ending: the kind of the end.
        shard: the requests that the ending concerns; empty for `COLLECTED`.
        others: the requests of the shard that another process has submitted meanwhile; `None` if there are none.
        batch_id: the id of the batch in progress; `None` for any other ending.
    """

    ending: JobEnding
    shard: Shard
    others: Shard | None = None
    batch_id: str | None = None


@dataclass(slots=True)
class _Run:
    """The run of one job.

    Attributes:
        job: the job in its current state.
        deliver: receives outcomes when they are recorded.
        admission: the admission of the job.
        shard: the requests of the job; `None` if the run that planned the job died.
        deadline: the time after which the job is not waited for, in seconds of the monotonic clock.
        batch: the batch as it was last polled; `None` before that.
        uploaded_at: the time of the upload, in seconds of the monotonic clock.
        uploads_left: number of further uploads that the shard may take.
        failures: number of batches of the job that failed for a reason that passes.
    """

    job: Job
    deliver: Deliver
    admission: Admission
    shard: Shard | None = None
    deadline: float = float("inf")
    batch: Batch | None = None
    uploaded_at: float = field(default_factory=time.monotonic)
    uploads_left: int = 0
    failures: int = 0

    def deliver_recorded(self, outcomes: Mapping[str, Outcome]) -> None:
        """Deliver outcomes of the batch that are recorded, so that no other batch will hold the job's requests."""
        if self.shard:
            self.shard.release()
            self.shard = None
        self.deliver(outcomes)


class JobRunner:
    """Run jobs.

    Args:
        context: the server, the ledger and the other surroundings of the jobs.
        limit: admits jobs.
        running_jobs: the jobs that tasks of this session run.
        storage: lets uploads wait while the server's file storage is full; `None` for a storage of this session alone.
        wake: ends pauses between polls early; `None` if nothing does.

    Attributes:
        collector: collects the results of batches that ended.
    """

    def __init__(
        self,
        context: JobContext,
        limit: EnqueueLimit,
        running_jobs: RunningJobs,
        storage: FileStorage | None = None,
        wake: Wake | None = None,
    ) -> None:
        self._api = context.api
        self._ledger = context.ledger
        self._settings = context.settings
        self._directory = context.directory
        self._observer = context.observer
        self._gate = context.gate
        self._limit = limit
        self._running_jobs = running_jobs
        self._reported_models: set[str] = set()
        self._storage = storage or FileStorage(context.settings, context.observer)
        self._watcher = JobWatcher(context, wake)
        self.collector = ResultCollector(context)

    @property
    def waits(self) -> bool:
        """Return whether the run waits for jobs to end."""
        return self._settings.wait

    @property
    def batches_in_progress(self) -> tuple[str, ...]:
        """Return the ids of the batches that are waited for."""
        return self._watcher.batches_in_progress

    async def submit(
        self, shard: Shard, deliver: Deliver, deadline: float = float("inf"), uploads_left: int = MAX_UPLOADS - 1
    ) -> ShardEnd:
        """Wait until a job is admitted, plan the job for a shard, and run it.

        Args:
            shard: the requests. Only requests that no other process has submitted meanwhile go into the job.
            deliver: receives outcomes when they are recorded: some answers before the batch has ended, if the server
                shows them.
            deadline: the time after which the job is not waited for, in seconds of the monotonic clock. A batch in
                progress is then cancelled, and its answers are collected.
            uploads_left: number of further uploads if the server loses the input file. With 0, the loss is an error.

        Raises:
            RunError: the run cannot go on. The ledger keeps the state of the job.
        """
        async with self._limit.admit(deadline) as admission:
            if admission is None:
                return ShardEnd(JobEnding.OVERDUE, shard)
            if self._limit.is_too_large(len(shard.requests)):
                return ShardEnd(JobEnding.TOO_LARGE, shard)
            failpoints.reached(Failpoint.BEFORE_INTENT)
            job, claimed_ids = await anyio.to_thread.run_sync(self._ledger.jobs.plan, shard)
            claimed, others = shard.split_by_ids(set(claimed_ids))
            # The texts would stay in memory until the job ends.
            del claimed_ids
            if not claimed:
                await self._drop(job)
                return ShardEnd(JobEnding.DROPPED, shard, others)
            with self._running_jobs.running(job.id):
                end = await self.run(job, deliver, admission, claimed, deadline, uploads_left)
        return ShardEnd(end.ending, claimed, others, end.job.batch_id if end.ending is JobEnding.IN_PROGRESS else None)

    def split(self, shard: Shard) -> list[Shard]:
        """Split a shard that is too large into shards of the learned size."""
        assert self._limit.size
        return shard.split(self._limit.size)

    async def resume(self, job: Job, deliver: Deliver, deadline: float = float("inf")) -> JobEnd:
        """Run a job that an earlier run planned, as far as the job has a batch; drop the job otherwise.

        Args:
            job: an open job that this session owns, by `take_over`.
            deliver: as for `submit`.
            deadline: as for `submit`.

        Raises:
            RunError: the run cannot go on. The ledger keeps the state of the job.
        """
        with self._limit.admit_resumed() as admission:
            return await self.run(job, deliver, admission, deadline=deadline)

    async def run(
        self,
        job: Job,
        deliver: Deliver,
        admission: Admission,
        shard: Shard | None = None,
        deadline: float = float("inf"),
        uploads_left: int = 0,
    ) -> JobEnd:
        """Take a job from its state to its end.

        Args:
            job: an open job that this session owns.
            deliver: as for `submit`.
            admission: the admission of the job.
            shard: the requests of the job; `None` if the run that planned the job died.
            deadline: as for `submit`.
            uploads_left: as for `submit`.

        Raises:
            RunError: the run cannot go on. The ledger keeps the state of the job.
            ValueError: the job is in a final state.
        """
        run = _Run(job, deliver, admission, shard, deadline, uploads_left=uploads_left)
        if job.input_file_id:
            self._storage.hold(job.id)
        try:
            while (ending := await self._advance(run)) is None:
                pass
        finally:
            self._storage.release(job.id)
        return JobEnd(ending, run.job)

    async def _advance(self, run: _Run) -> JobEnding | None:
        """Take a job to its next state; return the ending if that was the last step."""
        match run.job.state:
            case JobState.PLANNED if run.shard:
                return await self._upload(run, run.shard)
            case JobState.UPLOADED if run.shard:
                return await self._create(run, run.shard)
            case JobState.PLANNED | JobState.UPLOADED:
                run.job, run.batch = await resolve_interrupted_job(self._api, self._ledger, run.job)
                return None if run.batch else JobEnding.DROPPED
            case JobState.CREATED:
                return await self._watch(run)
            case JobState.ENDED:
                with self._running_jobs.activity.busy():
                    collected = await self._collect(run)
                return JobEnding.COLLECTED if collected else await self._replace_refused(run)
            case JobState.SYNCHRONOUS:
                run.job = await self._drop(run.job)
                return JobEnding.DROPPED
            case JobState.COLLECTED | JobState.DROPPED:
                raise ValueError(f"A job that is {run.job.state.value} cannot be run.")

    async def _upload(self, run: _Run, shard: Shard) -> JobEnding | None:
        failpoints.reached(Failpoint.INTENT_TO_UPLOAD)
        await self._gate.enter()
        try:
            upload = partial(self._upload_input, run.job, shard)
            file_id = await self._storage.upload(run.job.id, upload, run.deadline)
            if file_id is None:
                run.job = await self._drop(run.job)
                return JobEnding.OVERDUE
            failpoints.reached(Failpoint.UPLOAD_TO_RECORD)
            run.job = await anyio.to_thread.run_sync(self._ledger.jobs.mark_uploaded, run.job, file_id)
        except errors.RunError as error:
            await self._drop_refused(run.job, error)
            raise
        run.uploaded_at = time.monotonic()
        return None

    async def _upload_input(self, job: Job, shard: Shard) -> str:
        """Upload the input file of a job; the file is on the local disk only meanwhile."""
        with scratch_file(self._directory) as path:
            with path.open("wb", buffering=_WRITE_BYTES) as file:
                file.writelines(map(self._api.input_line, shard.requests))
            return await self._api.files.upload(path, _input_file_name(job.key))

    async def _create(self, run: _Run, shard: Shard) -> JobEnding | None:
        await self._gate.enter()
        run.admission.enqueue(run.job)
        try:
            run.job, run.batch = await self._create_batch(run.job)
        except errors.RunError as error:
            run.admission.leave(was_accepted=False)
            # Some servers refuse the creation at the token limit, instead of letting the batch fail.
            if not errors.is_over_token_limit(error.code):
                await self._drop_refused(run.job, error)
                if isinstance(error, InputFileGoneError) and run.uploads_left:
                    return JobEnding.FILE_GONE
                raise
            return await self._wait_to_recreate(run, shard, error, is_over_limit=True)
        # An observer may keep the shard, whose requests are dropped later → pass a copy.
        self._observer.on_job_created(run.batch, Shard([*shard.requests], shard.size))
        await self._report_past_jobs(shard.requests[0].model)
        return None

    async def _report_past_jobs(self, model: str) -> None:
        """Report the durations of a model's past jobs, once for each model."""
        if model in self._reported_models:
            return
        self._reported_models.add(model)
        # No run depends on this line.
        with suppress(errors.LedgerError):
            if past := await anyio.to_thread.run_sync(self._ledger.jobs.find_past, model):
                self._observer.on_past_jobs(past)

    async def _create_batch(self, job: Job) -> tuple[Job, Batch]:
        assert job.input_file_id
        failpoints.reached(Failpoint.UPLOAD_TO_CREATE)
        batch = await self._api.create(
            job.input_file_id, job.endpoint, self._settings.completion_window, job.key, self._settings.metadata
        )
        failpoints.reached(Failpoint.CREATE_TO_RECORD)
        return await anyio.to_thread.run_sync(self._ledger.jobs.mark_created, job, batch), batch

    async def _watch(self, run: _Run) -> JobEnding | None:
        batch = run.batch
        if batch is None:
            assert run.job.batch_id
            batch = run.batch = await self._api.retrieve(run.job.batch_id)
            self._observer.on_job_resumed(batch, run.job.requests)
        if not self._settings.wait:
            batch = run.batch = await self._watcher.settle_status(batch)
        if not (self._settings.wait or batch.has_ended):
            run.admission.leave(was_accepted=True)
            return JobEnding.IN_PROGRESS
        run.admission.enqueue(run.job)
        try:
            batch = run.batch = await self._watcher.watch(run.job, batch, run.deliver, run.deadline, run.admission)
        finally:
            run.admission.leave(was_accepted=batch.status != "failed")
        run.job = await anyio.to_thread.run_sync(self._ledger.jobs.mark_ended, run.job, batch)
        return None

    async def _collect(self, run: _Run) -> bool:
        """Collect the results of a batch that has ended; return whether the server had accepted the batch."""
        batch = run.batch
        if batch is None:
            assert run.job.batch_id
            batch = run.batch = await self._api.retrieve(run.job.batch_id)
        if collected := await self.collector.collect(run.job, batch, run.deliver_recorded):
            run.job = collected
        return collected is not None

    def _failure(self, batch: Batch) -> errors.BatchFailedError:
        """Return the error for a batch that the server's validation refused."""
        return errors.BatchFailedError(
            f"The server did not accept batch {batch.id}: {self._explain(batch)}",
            code=batch.errors[0].code if batch.errors else None,
            batch_id=batch.id,
        )

    def _explain(self, batch: Batch) -> str:
        """Return the reasons for which the server refused a batch, with advice."""
        names_model = any(may_lack_deployment(error.code, error.message) for error in batch.errors)
        if not (self._api.is_azure and names_model):
            return batch.reasons
        return f"{batch.reasons.rstrip('.')}. {DEPLOYMENT_ADVICE}"

    async def _replace_refused(self, run: _Run) -> JobEnding | None:
        """Prepare another batch in place of a refused batch.

        Raises:
            RunError: the refusal, if no other batch helps.
        """
        batch = run.batch
        assert batch
        self._observer.on_batch_refused(batch)
        if not run.shard:
            run.job = await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, run.job, self._explain(batch))
            await self.collector.delete_files(batch, run.job.input_file_id)
            # A run that does not wait never sees the end of its own batches → each run would submit the next one.
            if not self._settings.wait and _is_refused_for_good(batch):
                raise self._failure(batch)
            return JobEnding.DROPPED
        ending = await self._wait_to_recreate(run, run.shard, self._failure(batch), is_over_limit=_is_over_limit(batch))
        if ending is None:
            run.job = await anyio.to_thread.run_sync(self._ledger.jobs.return_to_uploaded, run.job)
        elif ending is not JobEnding.FILE_GONE:
            await self.collector.delete_files(batch, run.job.input_file_id)
        return ending

    async def _wait_to_recreate(
        self, run: _Run, shard: Shard, refusal: errors.RunError, *, is_over_limit: bool
    ) -> JobEnding | None:
        """Wait until the batch of a refused job may be created again; drop the job if that does not help.

        Args:
            run: the run of the job.
            shard: the requests of the job.
            refusal: the error of the refusal.
            is_over_limit: whether the server refused the batch because of the enqueued-token quota.

        Raises:
            RunError: the refusal, if neither waiting nor other jobs help.
        """
        run.admission.end_trial()
        wait = partial(run.admission.wait_for_capacity, run.job) if is_over_limit else partial(self._wait_to_retry, run)
        try:
            may_create = await _wait_until(run.deadline, wait)
        except InputFileGoneError:
            run.job = await self._drop(run.job)
            if run.uploads_left:
                return JobEnding.FILE_GONE
            raise refusal from None
        if may_create:
            return None
        run.job = await self._drop(run.job)
        if may_create is None:
            return JobEnding.OVERDUE
        if is_over_limit and len(shard.requests) > 1:
            return JobEnding.TOO_LARGE
        raise refusal

    async def _wait_to_retry(self, run: _Run) -> bool:
        """Wait for a pause after a batch failed; return whether the same file may make another batch.

        Raises:
            InputFileGoneError: the server no longer has the input file.
            ConnectionFailedError: the server could not be reached.
        """
        batch, file_id = run.batch, run.job.input_file_id
        assert batch
        assert file_id
        if is_input_file_refused(batch, file_id):
            # Right after its upload, a file may not be visible to a look for the file either.
            is_visible = time.monotonic() - run.uploaded_at >= FILE_VISIBLE_SECONDS
            if is_visible and not await self._api.files.exists(file_id):
                raise InputFileGoneError(batch.reasons)
            retries, pauses = _MAX_FILE_REFUSALS, _FILE_REFUSAL_PAUSES
        elif batch.has_transient_errors:
            retries, pauses = _MAX_RECREATIONS, _RECREATION_PAUSES
        else:
            return False
        run.failures += 1
        if run.failures > retries:
            return False
        pause = pauses.pause(run.failures)
        self._observer.on_batch_retried(batch, pause)
        await anyio.sleep(pause)
        return True

    async def _drop(self, job: Job) -> Job:
        return await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job)

    async def _drop_refused(self, job: Job, error: errors.RunError) -> None:
        """Drop a job of which the server certainly has no batch; the next run searches for any other job's batch."""
        if error.did_nothing:
            # Without a status code the server was not reached → there is no file to delete.
            if error.status_code:
                await self._api.files.delete_by_name(_input_file_name(job.key))
            await anyio.to_thread.run_sync(self._ledger.jobs.mark_dropped, job, str(error))


async def resolve_interrupted_job(api: BatchAPI, ledger: Ledger, job: Job) -> tuple[Job, Batch | None]:
    """Search for the batch of a job whose run died before it recorded one; drop the job if there is none.

    Args:
        api: the server.
        ledger: records the state of the job.
        job: a planned or uploaded job that this session owns.

    Returns:
        The job in its next state, and its batch; `None` if there is none.

    Raises:
        RunError: the server refuses or could not be reached. The state of the job does not change.
    """
    if batch := await api.find(job.key, job.input_file_id, since=job.intended_at):
        return await anyio.to_thread.run_sync(ledger.jobs.mark_created, job, batch), batch
    await api.files.delete_by_name(_input_file_name(job.key))
    return await anyio.to_thread.run_sync(ledger.jobs.mark_dropped, job), None


async def _wait_until(deadline: float, wait: Callable[[], Awaitable[bool]]) -> bool | None:
    """Await `wait()`; return `None` at the deadline, which is given in seconds of the monotonic clock."""
    with anyio.move_on_after(deadline - time.monotonic()):
        return await wait()
    return None


def _input_file_name(key: str) -> str:
    """Return the name of a job's input file on the server, by which an upload is found whose reply was lost."""
    return f"distilabel-{key}.jsonl"


def _is_over_limit(batch: Batch) -> bool:
    return any(errors.is_over_token_limit(error.code) for error in batch.errors)


def _is_refused_for_good(batch: Batch) -> bool:
    """Return whether the server refused a batch for a reason that neither time nor another file removes."""
    is_about_file = is_input_file_refused(batch, batch.input_file_id or "")
    return not (batch.has_transient_errors or _is_over_limit(batch) or is_about_file)
