"""Puts the parts together for one event loop: the server's client, the jobs, and the buffer in front of them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
import orjson

from distilabel_openai_batch.adoption import Adoption
from distilabel_openai_batch.api.batches import METADATA_VALUE_CHARACTERS, RUN, SCOPE
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.encoding import encode_body
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Frame, Request, build_custom_id, cut, digest_body
from distilabel_openai_batch.api.transport import Patience, sdk_client
from distilabel_openai_batch.broker import Broker
from distilabel_openai_batch.buffer import CallBuffer
from distilabel_openai_batch.display import display
from distilabel_openai_batch.jobs import Jobs, JobSettings
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName, label
from distilabel_openai_batch.pricing.budget import UNLIMITED, Unlimited
from distilabel_openai_batch.progress import Progress
from distilabel_openai_batch.room import Room
from distilabel_openai_batch.spool import Spool
from distilabel_openai_batch.structured_output.repair import Exchange
from distilabel_openai_batch.structured_output.schema import StructuredOutput
from distilabel_openai_batch.submission import Run, Submission
from distilabel_openai_batch.synchronous import Synchronous

_INTERRUPTION_CHECK_SECONDS = 0.25

outcomes_seen: ContextVar[list[list[Outcome]] | None] = ContextVar("outcomes_seen", default=None)
"""Collects what each of a task's calls of `Session.ask` returned, for whoever wants to know why a row has no answer."""


@dataclass(slots=True)
class Call:
    """One call of an endpoint.

    Attributes:
        endpoint: its path (`"/v1/chat/completions"`).
        body: what the SDK would have sent there.
        wanted: what the answer has to look like, if anything.
        frame: of the body, where there are others like it.
    """

    endpoint: str
    body: Mapping[str, object]
    wanted: StructuredOutput | None = None
    frame: Frame | None = None

    def encode(self) -> bytes:
        """The body as JSON.

        Raises:
            ValueError: it holds something that JSON cannot, with the reason.
        """
        return self.frame.encode(self.body) if self.frame else encode_body(self.body)

    def digest(self, base_url: str, endpoint: str, body: bytes) -> str:
        """What tells the question from others.

        Args:
            base_url: the server that is asked.
            endpoint: what that calls the endpoint.
            body: as `encode` made it.
        """
        if self.frame:
            return self.frame.digest(base_url, endpoint, self.body)
        return digest_body(base_url, endpoint, body)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know.

    Attributes:
        base_url: the server's address, `/v1` included; `None` for the SDK's default. On Azure `/openai` stands in the
            place of `/v1`.
        api_key: sent to the server and nowhere else.
        headers: sent with every call.
        timeout: seconds that the server may be silent.
        patience: how long to wait for a server that fails.
        max_requests: requests in an input file, at most.
        max_bytes: bytes in an input file, at most.
        max_attempts: how often one request is put into a job.
        max_jobs: jobs in flight at once.
        jobs: how jobs are made and watched.
        ledger_dir: where the ledger lies.
        deadline: seconds after which no batch is waited for; `None` for never.
        sync_below: fewer requests than these are asked synchronously.
        preflight: whether a request is tried out before the others are submitted.
        reuse_answers: whether a run is given the answers that earlier ones were given.
        run: the submission that it takes part in, if it does.
        azure_api_version: the version of Azure's API; `None` for a server that speaks OpenAI's.
        budget: what may be spent, in all sessions together.
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
    max_jobs: int
    jobs: JobSettings
    ledger_dir: Path
    reuse_answers: bool
    deadline: float | None = None
    sync_below: float = 0
    preflight: bool = False
    run: Run | None = None
    azure_api_version: str | None = None
    budget: Unlimited = UNLIMITED

    def endpoint(self, path: str) -> str:
        """What the server calls an endpoint of OpenAI's: Azure's have no version in front."""
        return path.removeprefix("/v1") if self.azure_api_version else path


class _Scope:
    """What a process remembers of a scope for as long as it lives.

    The same question asked twice in one run is two questions, which an occurrence number tells apart; a later run, in
    another process, begins again with the first, and so finds the answers.
    """

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._next: dict[str, int] = {}
        self._given_back: dict[str, list[str]] = {}
        self.was_looked_for = False
        """On the server, for jobs that the ledger does not know."""

    def custom_id(self, digest: str, first: Callable[[], int]) -> str:
        """The `custom_id` for one more time that a question is asked.

        Args:
            digest: the question.
            first: the number that a question begins with.
        """
        if given_back := self._given_back.get(digest):
            return given_back.pop()
        number = self._next[digest] if digest in self._next else first()
        while (custom_id := build_custom_id(digest, number)) in self._asked:
            # Few are asked twice: only of these it is noted how often.
            number += 1
            self._next[digest] = number + 1
        self._asked.add(custom_id)
        return custom_id

    def give_back(self, custom_id: str) -> None:
        """A request got no outcome: whoever asks the question next is to have its answer."""
        self._given_back.setdefault(custom_id.partition("-")[0], []).append(custom_id)


_scopes: defaultdict[tuple[Path, ScopeName], _Scope] = defaultdict(_Scope)


class Session:
    """Answers calls through the Batch API.

    Args:
        buffer: what the calls wait in.
        ledger: what was asked before.
        progress: is told of calls that cannot be written.
        scope: who asks, in this process.
        base_url: the server's address.
        settings: the limits that calls have to keep.
        submission: the rows and jobs that are kept for a later run.
        spool: where the requests' bodies are kept.
    """

    def __init__(
        self,
        buffer: CallBuffer,
        ledger: Ledger,
        progress: Progress,
        scope: _Scope,
        base_url: str,
        settings: SessionSettings,
        submission: Submission,
        spool: Spool,
    ) -> None:
        self.submission = submission
        self._spool = spool
        self._buffer = buffer
        self._ledger = ledger
        self._progress = progress
        self._scope = scope
        self.base_url = base_url
        self._settings = settings
        self.was_broken_off = False
        """Whether one of its users was cancelled, or ended with an error."""

    async def ask(self, calls: Iterable[Call | Failure]) -> list[Outcome]:
        """Waits until each call has an outcome.

        Where the answer to a call has to look like something, and does not, it is asked for again.

        Args:
            calls: a failure among them is its own outcome.

        Returns:
            An outcome for each, in their order.

        Raises:
            RunError: the run cannot go on.
        """
        asked: list[Request | Failure] = []
        wanted: dict[int, Call] = {}
        try:
            outcomes = await self._ask_once(_noting(calls, wanted), asked)
            exchanges = {
                index: Exchange(call.wanted, call.body, outcome)
                for index, call in wanted.items()
                if call.wanted and isinstance(outcome := outcomes[index], Answer)
            }
            while due := [
                (exchange, place, Call(wanted[index].endpoint, body))
                for index, exchange in exchanges.items()
                for place, body in exchange.due()
            ]:
                again = await self._ask_once([call for _, _, call in due], asked)
                for (exchange, place, _), outcome in zip(due, again, strict=True):
                    exchange.take(place, outcome)
        except BaseException:
            for request in reversed(asked):
                if isinstance(request, Request):
                    self._scope.give_back(request.custom_id)
            raise
        for index, outcome in enumerate(outcomes):
            request = asked[index]
            if isinstance(outcome, Failure) and isinstance(request, Request):
                outcomes[index] = replace(outcome, custom_id=request.custom_id)
        reasons = list(outcomes)
        for index, exchange in exchanges.items():
            outcomes[index] = outcome = exchange.outcome
            if failure := exchange.failure:
                request = asked[index]
                assert isinstance(request, Request)
                self._progress.rejected(failure, request.custom_id)
                reasons[index] = failure = replace(failure, custom_id=request.custom_id)
                if isinstance(outcome, Failure):
                    outcomes[index] = failure
                else:
                    outcome.rejected = {
                        place: replace(rejected, custom_id=request.custom_id)
                        for place, rejected in (outcome.rejected or {}).items()
                    }
        if (seen := outcomes_seen.get()) is not None:
            seen.append(reasons)
        return outcomes

    async def _ask_once(self, calls: Iterable[Call | Failure], asked: list[Request | Failure]) -> list[Outcome]:
        """Waits until each call has an outcome, and adds to `asked` what was asked."""
        these = [call if isinstance(call, Failure) else self._request(call) for call in calls]
        asked += these
        for request in these:
            if isinstance(request, Failure):
                self._progress.asked(1)
                self._progress.gave_up(request)
        outcomes = iter(await self._buffer.ask([request for request in these if isinstance(request, Request)]))
        return [request if isinstance(request, Failure) else next(outcomes) for request in these]

    def _request(self, call: Call) -> Request | Failure:
        try:
            body = call.encode()
        except ValueError as error:
            return Failure(str(error))
        endpoint = self._settings.endpoint(call.endpoint)
        digest = call.digest(self.base_url, endpoint, body)
        custom_id = self._scope.custom_id(digest, lambda: self._first_number(digest))
        model = sys.intern(str(call.body["model"]))
        request = Request(custom_id, endpoint, model, self._spool.add(body))
        if request.size > self._settings.max_bytes:
            return Failure(
                f"The request is too large: {request.size:,} bytes, and an input file holds"
                f" {self._settings.max_bytes:,}"
            )
        return request

    def _first_number(self, digest: str) -> int:
        """What earlier runs were given is asked anew where it is not to be used again."""
        return 0 if self._settings.reuse_answers else self._ledger.handed_over(digest)


def _noting(calls: Iterable[Call | Failure], wanted: dict[int, Call]) -> Iterator[Call | Failure]:
    """Passes calls on, and notes those whose answers have to look like something: the others need not be kept."""
    for index, call in enumerate(calls):
        if isinstance(call, Call) and call.wanted:
            wanted[index] = call
        yield call


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
        scope_key = (SCOPE, digest_body(base_url, "", orjson.dumps([name.pipeline, name.task])))
        metadata = {**settings.jobs.metadata, scope_key[0]: scope_key[1]}
        run = settings.run
        if run:
            metadata[RUN] = run.name[:METADATA_VALUE_CHARACTERS]
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
                cut=partial(cut, max_requests=settings.max_requests, max_bytes=settings.max_bytes),
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
