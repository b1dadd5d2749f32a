"""One session for each event loop: opened for the first caller, closed behind the last one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import anyio.to_thread
import orjson

from distilabel_openai_batch.api.batches import METADATA_VALUE_CHARACTERS, RUN_METADATA, SCOPE_METADATA
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.requests import cut_shards, digest_body
from distilabel_openai_batch.api.transport import sdk_client
from distilabel_openai_batch.display.live import display
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.adoption import Adoption
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import _Scope, _scopes
from distilabel_openai_batch.engine.dispatcher import Broker
from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.job_runner import Jobs
from distilabel_openai_batch.engine.scratch import Spool
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import Run, SessionSettings
from distilabel_openai_batch.engine.submission import Submission
from distilabel_openai_batch.engine.sync_runner import Synchronous
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName, label

_INTERRUPTION_CHECK_SECONDS = 0.25


def _to_ask_again(run: Run | None) -> str:
    """How what has no answer is asked again: a complete pipeline would take its rows from distilabel's cache."""
    if run is None:
        return "Run the same script again, a pipeline with `use_cache=False`,"
    return "Submit again" if not run.waits else "Load with `resubmit=True`"


@asynccontextmanager
async def _open(
    settings: SessionSettings,
    scope_name: Callable[[str], ScopeName],
    logger: logging.Logger,
    interruption: Callable[[Sequence[str]], Exception | None],
    not_finished: Callable[[Sequence[str]], Exception],
) -> AsyncIterator[Session]:
    client = sdk_client(
        settings.base_url,
        settings.api_key,
        timeout=settings.timeout,
        headers=settings.headers,
        azure_api_version=settings.azure_api_version,
    )
    # A password is no part of who is asked, and stands in no file.
    base_url = str(client.base_url.copy_with(username=None, password=None))
    name = scope_name(base_url)
    # A step of a pipeline has a name, or takes part in a submission.
    in_pipeline = bool(name.task or settings.run)
    shown = None if in_pipeline else display(logger)
    progress = Progress(logger, base_url, shown, label(name), _to_ask_again(settings.run))
    # Who loads what was submitted asks the same questions, in the same process too.
    scope = _Scope() if settings.run else _scopes[settings.ledger_dir, name]
    ledger = await anyio.to_thread.run_sync(Ledger, settings.ledger_dir, name)
    with (
        closing(ledger),
        TemporaryDirectory(prefix="distilabel-openai-batch-") as temporary,
        closing(Spool(Path(temporary) / "bodies")) as spool,
    ):
        directory = Path(temporary)
        scope_key = (SCOPE_METADATA, digest_body(base_url, "", orjson.dumps([name.pipeline, name.task])))
        metadata = {**settings.jobs.metadata, scope_key[0]: scope_key[1]}
        run = settings.run
        if run:
            metadata[RUN_METADATA] = run.name[:METADATA_VALUE_CHARACTERS]
        jobs_settings = replace(settings.jobs, metadata=metadata)
        async with client, anyio.create_task_group() as task_group:
            api = BatchAPI(client, settings.patience, logger)

            async def beside(job_id: int) -> set[int]:
                return await anyio.to_thread.run_sync(ledger.beside, job_id)

            room = Room(jobs_settings.schedule, settings.max_requests, beside)
            jobs = Jobs(api, ledger, jobs_settings, directory, progress, room)
            adoption = Adoption(
                api=api,
                ledger=ledger,
                jobs=jobs,
                scope_key=scope_key,
                directory=directory,
                progress=progress,
                due=settings.reuse_answers and not scope.was_looked_for,
                only=run.only if run else (),
                # Who buys has to know what was bought since.
                all_others=run is None or run.buys or not run.only,
            )
            broker = Broker(
                ledger=ledger,
                jobs=jobs,
                room=room,
                adoption=adoption,
                cut=partial(cut_shards, max_requests=settings.max_requests, max_bytes=settings.max_bytes),
                max_jobs=settings.max_jobs,
                progress=progress,
                synchronous=Synchronous(api, ledger, progress),
                deadline=settings.deadline,
                sync_below=settings.sync_below,
                preflight=settings.preflight,
                buys=run is None or run.buys,
                only=run.only if run else (),
                budget=settings.budget,
            )
            buffer = CallBuffer(
                answer=broker.answer,
                is_full=lambda requests, size: requests >= settings.max_requests or size >= settings.max_bytes,
                max_attempts=settings.max_attempts if run is None or run.buys else 1,
                not_finished=not_finished,
                task_group=task_group,
                progress=progress,
                all_may_fail=run is not None,
                is_crowded=lambda: broker.is_crowded,
            )

            async def watch_for_interruption() -> None:
                while (error := interruption(jobs.live)) is None:
                    await anyio.sleep(_INTERRUPTION_CHECK_SECONDS)
                buffer.fail(error)

            task_group.start_soon(watch_for_interruption)
            try:
                submission = Submission(api, ledger, adoption, directory, metadata, logger, run.name if run else "")
                session = Session(buffer, ledger, progress, scope, base_url, settings, submission, spool)
                yield session
            finally:
                # Who does not reuse answers does not look either, and says nothing about it to the next.
                if settings.reuse_answers and not adoption.due:
                    scope.was_looked_for = True
                progress.finish()
                task_group.cancel_scope.cancel()
        # Of a call that was broken off nobody can say which of its answers came to use.
        if not buffer.failed and not session.was_broken_off:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(ledger.hand_over)


class _Shared:
    """A session, and who uses it."""

    def __init__(self) -> None:
        self.users = 0
        self.session: Session | None = None
        self.error: BaseException | None = None
        self.opened = asyncio.Event()
        self.unused = asyncio.Event()


class Sessions:
    """The open sessions, one for each event loop.

    A session is opened by the first who needs it and closed when the last one has left. It lives in a task of its own,
    so that a caller who is cancelled does not take it along. That is asyncio's way, as all of distilabel's is.

    Args:
        settings: for each session that is opened.
        scope_name: says who asks, given the server's address.
        logger: where they say what they do.
        interruption: is given the ids of the batches under way, and returns what to raise when the process was asked to
            stop, `None` otherwise.
        not_finished: is given them too, and returns what to raise when they are not to be waited for.
    """

    def __init__(
        self,
        settings: SessionSettings,
        scope_name: Callable[[str], ScopeName],
        logger: logging.Logger,
        interruption: Callable[[Sequence[str]], Exception | None],
        not_finished: Callable[[Sequence[str]], Exception],
    ) -> None:
        self._open = partial(_open, settings, scope_name, logger, interruption, not_finished)
        self._shared: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Shared, asyncio.Task[None]]]
        self._shared = WeakKeyDictionary()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Session]:
        """The session of the running event loop, for as long as the context lasts."""
        loop = asyncio.get_running_loop()
        if loop not in self._shared:
            shared = _Shared()
            self._shared[loop] = shared, loop.create_task(self._host(shared))
        shared, host = self._shared[loop]
        shared.users += 1
        try:
            await shared.opened.wait()
            if shared.session is None:
                assert shared.error is not None
                raise shared.error
            try:
                yield shared.session
            except BaseException:
                shared.session.was_broken_off = True
                raise
        finally:
            shared.users -= 1
            if not shared.users:
                self._shared.pop(loop, None)
                shared.unused.set()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([host])

    async def _host(self, shared: _Shared) -> None:
        try:
            async with self._open() as shared.session:
                shared.opened.set()
                await shared.unused.wait()
        except Exception as error:
            shared.error = error
        finally:
            shared.opened.set()
