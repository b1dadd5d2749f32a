"""Puts the parts together for one event loop: the server's client, the jobs, and the buffer in front of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import anyio
import httpx
import openai

from distilabel_openai_batch import wire
from distilabel_openai_batch.api import BatchAPI, Patience
from distilabel_openai_batch.buffer import CallBuffer
from distilabel_openai_batch.jobs import Jobs, JobSettings
from distilabel_openai_batch.progress import Progress
from distilabel_openai_batch.wire import Failure, Outcome, Request

_INTERRUPTION_CHECK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint.

    Attributes:
        endpoint: its path (`"/v1/chat/completions"`).
        body: what the SDK would have sent there.
    """

    endpoint: str
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know.

    Attributes:
        base_url: the server's address, `/v1` included; `None` for the SDK's default.
        api_key: sent to the server and nowhere else.
        headers: sent with every call.
        timeout: seconds that the server may be silent.
        patience: how long to wait for a server that fails.
        max_requests: requests in an input file, at most.
        max_bytes: bytes in an input file, at most.
        max_attempts: how often one request is put into a job.
        jobs: how jobs are made and watched.
    """

    base_url: str | None
    # Not in the `repr`: distilabel's tracebacks show the locals.
    api_key: str = field(repr=False)
    headers: Mapping[str, str] | None = field(repr=False)
    timeout: float
    patience: Patience
    max_requests: int
    max_bytes: int
    max_attempts: int
    jobs: JobSettings


class Session:
    """Answers calls through the Batch API.

    Args:
        buffer: what the calls wait in.
        progress: is told of calls that cannot be written.
        base_url: the server's address.
        max_bytes: bytes in an input file, at most.
    """

    def __init__(self, buffer: CallBuffer, progress: Progress, base_url: str, max_bytes: int) -> None:
        self._buffer = buffer
        self._progress = progress
        self._base_url = base_url
        self._max_bytes = max_bytes
        self._occurrences: Counter[str] = Counter()

    async def ask(self, calls: Sequence[Call | Failure]) -> list[Outcome]:
        """Waits until each call has an outcome.

        Args:
            calls: a failure among them is its own outcome.

        Returns:
            An outcome for each, in their order.

        Raises:
            RunError: the run cannot go on.
        """
        requests = [call if isinstance(call, Failure) else self._request(call) for call in calls]
        for request in requests:
            if isinstance(request, Failure):
                self._progress.asked(1)
                self._progress.gave_up(request)
        outcomes = iter(await self._buffer.ask([request for request in requests if isinstance(request, Request)]))
        return [request if isinstance(request, Failure) else next(outcomes) for request in requests]

    def _request(self, call: Call) -> Request | Failure:
        try:
            body = wire.encode_body(call.body)
        except ValueError as error:
            return Failure(str(error))
        digest = wire.digest(self._base_url, call.endpoint, body)
        # The same question asked twice is two questions.
        request = Request(f"{digest}-{self._occurrences[digest]}", call.endpoint, str(call.body["model"]), body)
        if (size := len(request.line())) > self._max_bytes:
            return Failure(f"The request is too large: {size:,} bytes, and an input file holds {self._max_bytes:,}")
        self._occurrences[digest] += 1
        return request


@asynccontextmanager
async def _open(
    settings: SessionSettings, logger: logging.Logger, interruption: Callable[[Sequence[str]], Exception | None]
) -> AsyncIterator[Session]:
    http_client = httpx.AsyncClient(timeout=settings.timeout, follow_redirects=True)
    client = openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=settings.api_key,
        default_headers=settings.headers,
        http_client=http_client,  # type: ignore[arg-type]  # 3.x wants an httpx2 client, and takes this one
    )
    progress = Progress(logger)
    with TemporaryDirectory(prefix="distilabel-openai-batch-") as directory:
        async with client, anyio.create_task_group() as task_group:
            jobs = Jobs(BatchAPI(client, settings.patience, logger), settings.jobs, Path(directory), progress)
            buffer = CallBuffer(
                answer=jobs.answer,
                cut=partial(wire.cut, max_requests=settings.max_requests, max_bytes=settings.max_bytes),
                is_full=lambda requests, size: requests >= settings.max_requests or size >= settings.max_bytes,
                max_attempts=settings.max_attempts,
                task_group=task_group,
                progress=progress,
            )

            async def watch_for_interruption() -> None:
                while (error := interruption(jobs.live)) is None:
                    await anyio.sleep(_INTERRUPTION_CHECK_SECONDS)
                buffer.fail(error)

            task_group.start_soon(watch_for_interruption)
            try:
                yield Session(buffer, progress, str(client.base_url), settings.max_bytes)
            finally:
                progress.finish()
                task_group.cancel_scope.cancel()


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
        logger: where they say what they do.
        interruption: is given the ids of the batches under way, and returns what to raise when the process was asked to
            stop, `None` otherwise.
    """

    def __init__(
        self,
        settings: SessionSettings,
        logger: logging.Logger,
        interruption: Callable[[Sequence[str]], Exception | None],
    ) -> None:
        self._open = partial(_open, settings, logger, interruption)
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
            yield shared.session
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
