"""Sessions of a process, one for each event loop: the first user opens a session, the last user closes the session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
import openai
import orjson
from anyio.abc import TaskGroup

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.batches import METADATA_VALUE_CHARACTERS, RUN_METADATA, SCOPE_METADATA
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.requests import cut_shards, digest_body
from distilabel_openai_batch.api.responses import RESPONSES_ENDPOINT
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.api.transport import sdk_client
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.adoption import Adopter
from distilabel_openai_batch.engine.answer_reuse import AnswerReuse, open_reuse
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import ScopeMemory, scope_memories
from distilabel_openai_batch.engine.dispatcher import Dispatcher
from distilabel_openai_batch.engine.enqueue_limit import EnqueueLimit
from distilabel_openai_batch.engine.failure_log import FailureLog
from distilabel_openai_batch.engine.file_storage import FileStorage
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.job_runner import JobRunner
from distilabel_openai_batch.engine.known_answers import KnownAnswers
from distilabel_openai_batch.engine.lanes import FlexSupport, LaneChoice
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.refusals import BackgroundRefusals
from distilabel_openai_batch.engine.request_builder import RequestBuilder
from distilabel_openai_batch.engine.result_collector import ResultCollector
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.scratch import BodyStore, scratch_directory
from distilabel_openai_batch.engine.session import Session, SessionParts
from distilabel_openai_batch.engine.settings import JobSettings, SessionSettings
from distilabel_openai_batch.engine.stop_gate import StopGate
from distilabel_openai_batch.engine.submission import Submission
from distilabel_openai_batch.engine.submission_checks import Check, SubmissionChecks
from distilabel_openai_batch.engine.sync_runner import SyncRunner
from distilabel_openai_batch.engine.sync_sender import SyncSender
from distilabel_openai_batch.engine.twin_scopes import TwinScopes
from distilabel_openai_batch.engine.unmatched_answers import UnmatchedAnswers
from distilabel_openai_batch.engine.wake import Wake
from distilabel_openai_batch.errors import LedgerError, RunError, as_run_error
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName

# `anyio.wait_all_tasks_blocked`, by which requests are flushed, looks at all tasks every 0.1 s. A check in the same
# rhythm is due at each of these looks → the session never counts as blocked.
_INTERRUPTION_CHECK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Host:
    """The program around the engine, as far as the engine depends on it.

    Attributes:
        logger: receives warnings about the server.
        scope_name: returns the scope of the requests, given the address of the server.
        observer: returns the observer of a session, given its scope.
        interruption: returns the error to raise if the process was asked to stop, `None` otherwise; its argument holds
            the ids of the batches in progress.
        not_finished: returns the error to raise for batches in progress that are not waited for, given their ids.
        execution: returns an object that stands for the running cell, statement or script; a new object begins a run.
            `None` goes on with the run.
        on_end: receives the scope of a session that has ended, and the error of the run, in a thread that may block.
        siblings: the names of all steps of the pipeline that runs, which may make the same requests on purpose; `None`
            if the names are unknown.
        pause_seconds: seconds that a submission pauses after a warning about its cost.
        check_rows: returns the reason of a warning about the rows whose requests are about to be submitted, or an empty
            text; raises the error of a run that must not submit them.
        former_names: names that earlier releases gave to the scope's pipeline, whose answers are taken.
    """

    logger: logging.Logger
    scope_name: Callable[[str], ScopeName]
    observer: Callable[[ScopeName], Observer]
    interruption: Callable[[Sequence[str]], Exception | None]
    not_finished: Callable[[Sequence[str]], Exception]
    execution: Callable[[], object] = lambda: None
    on_end: Callable[[ScopeName, Exception | None], None] = lambda scope, error: None
    siblings: Collection[str] | None = None
    former_names: Sequence[str] = ()
    pause_seconds: float = 0.0
    check_rows: Callable[[], str] = lambda: ""


def _client(settings: SessionSettings) -> openai.AsyncOpenAI:
    return sdk_client(
        settings.base_url,
        settings.api_key,
        timeout=settings.timeout,
        headers=settings.headers,
        azure_api_version=settings.azure_api_version,
        token_provider=settings.token_provider,
    )


def _batch_api(client: openai.AsyncOpenAI, settings: SessionSettings, logger: logging.Logger) -> BatchAPI:
    return BatchAPI(client, settings.patience, logger, settings.retention, settings.extra_fields, settings.batch_api)


@asynccontextmanager
async def _open(settings: SessionSettings, host: Host, memory: ScopeMemory | None = None) -> AsyncIterator[Session]:
    """Open a session; its `memory` is that of a run, by default that of the process."""
    client = _client(settings)
    # A password or a query does not identify a server, and is written to no file.
    scope = host.scope_name(public_address(str(client.base_url)))
    open_ledger = partial(Ledger, settings.ledger_dir, scope, settings.prices, is_compressed=settings.compress_ledger)
    ledger = await anyio.to_thread.run_sync(open_ledger)
    observer = host.observer(ledger.scope)
    # A loader submits the requests of its submitter again, in the same process too, so it counts from 0.
    process_memory = ScopeMemory() if settings.run else scope_memories[settings.ledger_dir, ledger.scope]
    with (
        closing(ledger),
        scratch_directory() as temporary,
        closing(BodyStore(temporary / "bodies")) as bodies,
    ):
        reuse = None
        if settings.reuse_answers:
            names = settings.reuse_from, host.former_names
            reuse = await anyio.to_thread.run_sync(open_reuse, ledger, *names, observer)
        async with client, anyio.create_task_group() as task_group:
            builder = _Builder(
                settings=settings,
                host=host,
                scope=ledger.scope,
                api=_batch_api(client, settings, host.logger),
                ledger=ledger,
                observer=observer,
                memory=process_memory if settings.run or memory is None else memory,
                process_memory=process_memory,
                bodies=bodies,
                directory=temporary,
                failure_log=await anyio.to_thread.run_sync(FailureLog.of, ledger),
                reuse=reuse,
                has_answers=await anyio.to_thread.run_sync(ledger.requests.has_answered_packs),
            )
            session = builder.session(task_group)
            try:
                yield session
            finally:
                # With `reuse_answers=False` adoption is skipped, so do not mark this scope as searched.
                if settings.reuse_answers and not builder.adopter.is_due:
                    process_memory.server_searched = True
                await builder.finish()
                task_group.cancel_scope.cancel()
        # If a caller was cancelled we cannot tell which answers it consumed; mark none as delivered.
        if builder.buffer.error is None and not session.was_interrupted:
            with anyio.CancelScope(shield=True):
                began_at = builder.memory.began_at
                await anyio.to_thread.run_sync(ledger.requests.mark_delivered, builder.buffer.delivered, began_at)


@dataclass(slots=True)
class _Builder:
    """Builder of a session from its parts."""

    settings: SessionSettings
    host: Host
    scope: ScopeName
    api: BatchAPI
    ledger: Ledger
    observer: Observer
    memory: ScopeMemory
    process_memory: ScopeMemory
    bodies: BodyStore
    directory: Path
    failure_log: FailureLog
    reuse: AnswerReuse | None
    has_answers: bool
    adopter: Adopter = field(init=False)
    buffer: CallBuffer = field(init=False)

    def session(self, task_group: TaskGroup) -> Session:
        """Return a session whose jobs run in the task group."""
        settings, run, base_url = self.settings, self.settings.run, self.scope.base_url
        refusals = BackgroundRefusals(self.ledger.refused_parameters, task_group)
        traits = LearnedTraits(refusals, self.bodies, self.observer, settings.endpoint(RESPONSES_ENDPOINT))
        scope_key = (SCOPE_METADATA, digest_body(base_url, "", orjson.dumps([self.scope.pipeline, self.scope.task])))
        metadata = {**settings.jobs.metadata, scope_key[0]: scope_key[1]}
        if run:
            metadata[RUN_METADATA] = run.name[:METADATA_VALUE_CHARACTERS]
        job_settings = replace(settings.jobs, metadata=metadata)
        limit = self._enqueue_limit(job_settings)
        running_jobs, sizes, wake = RunningJobs(), AnswerSizes(), Wake(self.ledger.path.parent)
        context = self._job_context(job_settings, sizes)
        storage = FileStorage(job_settings, self.observer, self._find_jobs_of_others)
        job_runner = JobRunner(context, limit, running_jobs, storage, wake)
        self.adopter = self._adopter(job_runner.collector, scope_key)
        flex = FlexSupport(settings.lanes, base_url, refusals, self.observer)
        dispatcher = Dispatcher(
            settings=settings.dispatch,
            ledger=self.ledger,
            job_runner=job_runner,
            running_jobs=running_jobs,
            adopter=self.adopter,
            sync_runner=self._sync_runner(flex, running_jobs, context.gate),
            cut=partial(cut_shards, max_requests=settings.max_requests, max_bytes=settings.max_bytes),
            observer=self.observer,
            budget=settings.budget,
            traits=traits,
            lanes=LaneChoice(settings.lanes, flex.has_flex),
            reuse=self.reuse if self.reuse and self.reuse.source_ids else None,
            before_submission=self._submission_checks().run,
        )
        self.buffer = self._buffer(dispatcher, limit, running_jobs, traits, task_group)
        task_group.start_soon(self._watch_for_interruption, job_runner, wake)
        submission = Submission(
            self.api, self.ledger, self.adopter, self.directory, metadata, self.host.logger, run.name if run else ""
        )
        parts = SessionParts(
            self.buffer,
            RequestBuilder(base_url, settings, self.bodies, traits, sizes, self.reuse),
            running_jobs.activity,
            self.ledger,
            self.observer,
            self.memory,
            submission,
            traits,
            self.failure_log,
            self._known_answers(running_jobs.activity),
        )
        return Session(base_url, settings, parts)

    def _known_answers(self, activity: Activity) -> KnownAnswers | None:
        """Return the finder of answers to whole calls, where the answers need no other look than their reader's."""
        settings = self.settings
        if not self.has_answers or not settings.reuse_answers:
            return None
        if settings.retries_cut or settings.dispatch.only_batches:
            return None
        return KnownAnswers(self.ledger, self.buffer, activity, self.observer, self.process_memory)

    def _enqueue_limit(self, jobs: JobSettings) -> EnqueueLimit:
        settings = self.settings
        return EnqueueLimit(jobs.schedule, settings.max_requests, settings.max_jobs, self._find_jobs_sharing_limit)

    def _job_context(self, jobs: JobSettings, sizes: AnswerSizes) -> JobContext:
        gate = StopGate(self._is_stopped)
        return JobContext(self.api, self.ledger, jobs, self.directory, self.observer, sizes, gate)

    def _is_stopped(self) -> bool:
        """Return whether nothing may be submitted any more: the run has an error, or the process was asked to stop."""
        return self.buffer.error is not None or self.host.interruption(()) is not None

    def _sync_runner(self, flex: FlexSupport, running_jobs: RunningJobs, gate: StopGate) -> SyncRunner:
        sender = SyncSender(self.api.sync, flex, self.settings.lanes.max_concurrency, self.observer)
        return SyncRunner(sender, self.ledger, running_jobs, self.observer, gate)

    def _buffer(
        self,
        dispatcher: Dispatcher,
        limit: EnqueueLimit,
        running_jobs: RunningJobs,
        traits: LearnedTraits,
        task_group: TaskGroup,
    ) -> CallBuffer:
        settings = self.settings
        return CallBuffer(
            answer=dispatcher.answer,
            max_requests=settings.max_requests,
            max_bytes=settings.max_bytes,
            max_attempts=settings.max_attempts if settings.submits else 1,
            not_finished=self.host.not_finished,
            task_group=task_group,
            observer=self.observer,
            all_may_fail=settings.run is not None,
            is_crowded=lambda: limit.is_crowded,
            activity=running_jobs.activity,
            revise=traits.revise if settings.submits else traits.learn,
            retries_spent=settings.retries_cut,
        )

    def _adopter(self, collector: ResultCollector, scope_key: tuple[str, str]) -> Adopter:
        run = self.settings.run
        return Adopter(
            api=self.api,
            ledger=self.ledger,
            collector=collector,
            scope_key=scope_key,
            directory=self.directory,
            observer=self.observer,
            is_due=self.settings.reuse_answers and not self.process_memory.server_searched,
            selected_batches=run.only_batches if run else (),
            # A run that submits has to know every batch that was created since.
            lists_others=self.settings.submits or not (run and run.only_batches),
        )

    def _submission_checks(self) -> SubmissionChecks:
        """Return the checks of requests that are billed although earlier runs have answers, or without a use."""
        checks: list[Check] = []
        if self.reuse:
            twins = TwinScopes(self.ledger, self.observer, self.reuse, self.host.siblings)
            unmatched = UnmatchedAnswers(self.ledger, self.observer, self.process_memory)
            checks = [unmatched.compare, lambda requests, known: twins.search(requests)]
        settings, host = self.settings, self.host
        return SubmissionChecks(
            checks, self.observer, host.check_rows, host.pause_seconds, fails_unmatched=settings.fails_unmatched
        )

    async def finish(self) -> None:
        """Record failures, and report the end of the session, also if the caller was cancelled."""
        with anyio.CancelScope(shield=True):
            await self.record_failures()
            self.observer.on_finished()
            await anyio.to_thread.run_sync(self.host.on_end, self.ledger.scope, self.buffer.error)

    async def record_failures(self) -> None:
        """Record the failures of rows, and their run; log an error, since no run depends on this record."""
        try:
            await anyio.to_thread.run_sync(self.failure_log.record, self.ledger)
            await anyio.to_thread.run_sync(self.ledger.row_failures.record_run, self.memory.began_at)
        except LedgerError as error:
            self.host.logger.warning(f"⚠️ The failures of rows are missing in the ledger: {error}")

    async def _find_jobs_sharing_limit(self, job_id: int) -> set[int]:
        return await anyio.to_thread.run_sync(self.ledger.jobs.find_sharing_limit, job_id)

    async def _find_jobs_of_others(self) -> set[int]:
        return await anyio.to_thread.run_sync(self.ledger.jobs.find_others_in_progress)

    async def _watch_for_interruption(self, job_runner: JobRunner, wake: Wake) -> None:
        while (error := self.host.interruption(job_runner.batches_in_progress)) is None:
            await anyio.sleep(_INTERRUPTION_CHECK_SECONDS)
            wake.check()
        self.buffer.fail(error)


class _SharedSession:
    """A session of one event loop, and the number of its users."""

    def __init__(self) -> None:
        self.users = 0
        self.session: Session | None = None
        self.error: RunError | None = None
        self.opened = asyncio.Event()
        self.unused = asyncio.Event()


class SessionPool:
    """Open sessions, one for each event loop.

    The first user opens a session and the last one closes it. The session lives in a task of its own, so that a
    cancelled user does not cancel it. The pool uses asyncio, as distilabel does.

    A pool begins a run, and so does each further execution of code at the top level, such as a cell of a notebook.
    Equal requests of a run are different requests; the next run finds their answers.

    Args:
        settings: the settings of each session.
        host: the program around the engine.
    """

    def __init__(self, settings: SessionSettings, host: Host) -> None:
        self._given_settings = settings
        self._settings = replace(settings, deadline=settings.deadline.begin())
        self._host = host
        self._find_execution = host.execution
        self._execution: object = None
        self._memory = ScopeMemory()
        self._shared: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_SharedSession, asyncio.Task[None]]]
        self._shared = WeakKeyDictionary()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Session]:
        """Return the session of the running event loop, which stays open for the context.

        Raises:
            RunError: the session could not be opened.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._shared:
            shared = _SharedSession()
            self._shared[loop] = shared, loop.create_task(self._run(shared, self._find_memory()))
        shared, task = self._shared[loop]
        shared.users += 1
        try:
            await shared.opened.wait()
            if shared.session is None:
                assert shared.error is not None
                raise shared.error
            try:
                yield shared.session
            except BaseException:
                shared.session.was_interrupted = True
                raise
        finally:
            shared.users -= 1
            if not shared.users:
                self._shared.pop(loop, None)
                shared.unused.set()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([task])

    def _find_memory(self) -> ScopeMemory:
        """Return the memory of the run, which a new execution begins, as the execution begins the deadline."""
        execution = self._find_execution()
        if execution is not None and execution is not self._execution:
            self._execution, self._memory = execution, ScopeMemory()
            self._settings = replace(self._settings, deadline=self._given_settings.deadline.begin())
        return self._memory

    async def _run(self, shared: _SharedSession, memory: ScopeMemory) -> None:
        try:
            async with _open(self._settings, self._host, memory) as shared.session:
                shared.opened.set()
                await shared.unused.wait()
        except Exception as error:
            shared.error = as_run_error(error)
            # A task of an open session crashed → release the callers that wait for the task.
            if shared.session:
                shared.session.fail(shared.error)
            # All callers have left, so none of them would raise the error.
            if shared.unused.is_set():
                self._host.logger.warning(f"⚠️ The session met an error after its last caller had left: {shared.error}")
        finally:
            shared.opened.set()
