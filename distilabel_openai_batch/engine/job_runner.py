"""One job's life, many side by side, from whatever state the ledger has it in to an outcome for each request.

A job is a batch of the Batch API together with the shard that it answers.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import Path

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.files import FILE_VISIBLE_SECONDS, is_file_not_visible
from distilabel_openai_batch.api.outcomes import (
    MISSING_RESULT,
    Answer,
    Deliver,
    Outcome,
    batch_failure,
    parse_result_line,
)
from distilabel_openai_batch.api.requests import Shard, is_custom_id
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import JobSettings
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, JobState

# A batch that is not over by then is not going to be: its window has closed, and cancelling takes ten minutes at most.
# https://platform.openai.com/docs/guides/batch#batch-expiration
_OVERDUE_SECONDS = 3_600.0


# So many times, at most, it is written down how far a batch has got, besides each change of its status.
_NOTES_PER_JOB = 50

# So often, at most, a job's files are downloaded that have fewer answers than the server counts: somebody else may have
# replied in its place. A server that counts otherwise than we do is believed then.
_DOWNLOADS = 3
_BETWEEN_DOWNLOADS = Patience(first=2.0)

# JobResults written down in one transaction.
_RECORDED_AT_ONCE = 1_000


class Ending(Enum):
    """How running a job came to its end."""

    COLLECTED = "what it answered is recorded"
    DROPPED = "it came to nothing, and its requests are free"
    OVERDUE = "its deadline passed before the server took it; its requests are free"
    TOO_LARGE = "it is larger than what the server has room for; its requests are free"
    UNDER_WAY = "the server is working on it, and nobody waits"


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that was run.

    Attributes:
        ending: how it came to its end.
        job: as it is now.
    """

    ending: Ending
    job: Job


@dataclass(slots=True)
class _Growing:
    """The output file of a batch under way, which some servers show.

    Attributes:
        path: what was downloaded of it.
        take: is given the answers in it.
        read: the bytes of it whose lines were read.
        taken: how many answers were taken from it.
    """

    path: Path
    take: Deliver
    read: int = 0
    taken: int = 0

    def new_lines(self) -> list[bytes]:
        """The whole lines that it has gained."""
        with self.path.open("rb") as file:
            file.seek(self.read)
            whole, end, _ = file.read().rpartition(b"\n")
        self.read += len(whole) + len(end)
        return whole.splitlines(keepends=True)


class Jobs:
    """Runs jobs.

    Args:
        api: the server.
        ledger: where each step is written down before the next one is taken.
        settings: how jobs are made and watched.
        directory: where input, output and error files lie while they are needed.
        observer: reports the events of the run.
        room: what the server has room for.
    """

    def __init__(
        self, api: BatchAPI, ledger: Ledger, settings: JobSettings, directory: Path, observer: Observer, room: Room
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._settings = settings
        self._directory = directory
        self._observer = observer
        self._room = room
        self._live: set[str] = set()
        self._recording = anyio.Lock()
        self._looking = anyio.Lock()
        self._seen: dict[str, Batch] = {}
        self._seen_at = float("-inf")

    @property
    def live(self) -> tuple[str, ...]:
        """Ids of the batches that the server is working on."""
        return tuple(sorted(self._live))

    @property
    def waits(self) -> bool:
        """Whether jobs are waited for."""
        return self._settings.wait

    async def run(
        self,
        job: Job,
        take: Deliver,
        shard: Shard | None = None,
        deadline: float = float("inf"),
        tried: Callable[[], None] = lambda: None,
    ) -> Ended:
        """Takes a job from the state that it is in to its end.

        Args:
            job: one's own, by `plan` or `take_over`.
            take: is given what becomes of its requests, as it is written down; some answers before the job has ended,
                where the server shows them.
            shard: its requests. Without them, after its owner died, a job that has no batch cannot be carried on, and
                is dropped.
            deadline: when it is not waited for any longer, in seconds since the epoch. A batch that is under way then
                is cancelled, and what it answered is collected.
            tried: is called once it is known whether the server takes it.

        Raises:
            RunError: the job, and with it the run, cannot go on. The ledger keeps what there is.
        """
        batch: Batch | None = None
        uploaded_at, enqueued = time.monotonic(), job.requests
        while True:
            match job.state:
                case JobState.PLANNED if shard:
                    try:
                        job = await self._upload(job, shard)
                    except errors.RunError as error:
                        await self._came_to_nothing(job, error)
                        raise
                    uploaded_at = time.monotonic()
                case JobState.UPLOADED if shard:
                    enqueued = self._room.enter(job.id, job.requests)
                    try:
                        job, batch = await self._create(job)
                    except errors.RunError as error:
                        self._room.leave(job.id, was_taken=False)
                        # Where the server says so at once, instead of letting the batch fail.
                        if not errors.is_over_token_limit(error.code):
                            await self._came_to_nothing(job, error)
                            raise
                        tried()
                        has_room = partial(self._room.wait, job.id, job.requests, enqueued)
                        if gone := await self._gone_before(deadline, has_room, job, shard, error, for_room=True):
                            return gone
                        continue
                    self._observer.on_job_created(batch, shard)
                case JobState.SYNCHRONOUS:
                    return Ended(Ending.DROPPED, await self._in_thread(self._ledger.jobs.mark_dropped, job))
                case JobState.PLANNED | JobState.UPLOADED:
                    job, batch = await settle(self._api, self._ledger, job)
                    if not batch:
                        return Ended(Ending.DROPPED, job)
                case JobState.CREATED:
                    assert job.batch_id
                    if batch is None:
                        batch = await self._api.retrieve(job.batch_id)
                        self._observer.on_job_resumed(batch, job.requests)
                    if not (self._settings.wait or batch.has_ended):
                        self._room.leave(job.id, was_taken=True)
                        return Ended(Ending.UNDER_WAY, job)
                    batch = await self._watch(job, batch, take, deadline, tried)
                    job = await self._in_thread(self._ledger.jobs.mark_ended, job, batch)
                case JobState.ENDED:
                    assert job.batch_id
                    batch = batch or await self._api.retrieve(job.batch_id)
                    if collected := await self._collect(job, batch, take):
                        return collected
                    self._observer.on_batch_refused(batch)
                    if not shard:
                        return Ended(Ending.DROPPED, await self._in_thread(self._ledger.jobs.mark_dropped, job))
                    tried()
                    has_room = partial(self._room.wait, job.id, job.requests, enqueued)
                    may_create = partial(self._may_create_again, batch, has_room, uploaded_at)
                    if gone := await self._gone_before(
                        deadline, may_create, job, shard, _failed(batch), for_room=_is_over_token_limit(batch)
                    ):
                        return gone
                    job = await self._in_thread(self._ledger.jobs.return_to_uploaded, job)
                case JobState.COLLECTED | JobState.DROPPED:
                    raise ValueError(f"a job that is {job.state.value} cannot be run")

    async def _came_to_nothing(self, job: Job, error: errors.RunError) -> None:
        """Closes a job of which the server certainly has no batch. Any other one is looked for by the next run."""
        if error.did_nothing:
            # Where nobody answers, there is nothing to remove.
            if error.status_code:
                await self._api.files.delete_by_name(_file_name(job.key))
            await self._in_thread(self._ledger.jobs.mark_dropped, job, str(error))

    async def _gone_before(
        self,
        deadline: float,
        may_create: Callable[[], Awaitable[bool]],
        job: Job,
        shard: Shard,
        refusal: errors.RunError,
        *,
        for_room: bool,
    ) -> Ended | None:
        """Waits until a job that the server refused, `for_room` or otherwise, may be created after all.

        Returns:
            `None` when it may; how it ended where it is not to be.

        Raises:
            RunError: the refusal, where neither waiting nor smaller jobs help.
        """
        may = await _before(deadline, may_create)
        if may:
            return None
        job = await self._in_thread(self._ledger.jobs.mark_dropped, job)
        if may is None:
            return Ended(Ending.OVERDUE, job)
        if for_room and len(shard.requests) > 1:
            return Ended(Ending.TOO_LARGE, job)
        raise refusal

    async def _may_create_again(
        self, batch: Batch, has_room: Callable[[], Awaitable[bool]], uploaded_at: float
    ) -> bool:
        """Waits until a batch that the server refused may be taken now; `False` where there is no hope."""
        if _is_over_token_limit(batch):
            return await has_room()
        await anyio.sleep(self._settings.schedule.interval(0.0))
        return _is_file_missing(batch) and time.monotonic() - uploaded_at < FILE_VISIBLE_SECONDS

    async def _upload(self, job: Job, shard: Shard) -> Job:
        failpoints.reached(Failpoint.INTENT_TO_UPLOAD)
        with self._file(_file_name(job.key)) as path:
            with path.open("wb") as file:
                for request in shard.requests:
                    file.write(request.line())
            file_id = await self._api.files.upload(path)
        failpoints.reached(Failpoint.UPLOAD_TO_RECORD)
        return await self._in_thread(self._ledger.jobs.mark_uploaded, job, file_id)

    async def _create(self, job: Job) -> tuple[Job, Batch]:
        assert job.input_file_id
        failpoints.reached(Failpoint.UPLOAD_TO_CREATE)
        batch = await self._api.create(
            job.input_file_id, job.endpoint, self._settings.completion_window, job.key, self._settings.metadata
        )
        failpoints.reached(Failpoint.CREATE_TO_RECORD)
        return await self._in_thread(self._ledger.jobs.mark_created, job, batch), batch

    async def _watch(self, job: Job, batch: Batch, take: Deliver, deadline: float, tried: Callable[[], None]) -> Batch:
        self._room.enter(job.id, job.requests)
        self._live.add(batch.id)
        try:
            with self._file(f"{job.key}-growing") as path:
                batch = await self._watch_live(job, batch, _Growing(path, take), deadline, tried)
        finally:
            self._live.discard(batch.id)
            self._room.leave(job.id, was_taken=batch.status != "failed")
        return batch

    async def _watch_live(
        self, job: Job, batch: Batch, growing: _Growing, deadline: float, tried: Callable[[], None]
    ) -> Batch:
        seen_at = time.monotonic()
        # A job may have waited for its creation.
        created_at = seen_at - max(0.0, time.time() - max(job.intended_at, batch.created_at or 0.0))
        overdue_at = max(seen_at, created_at + self._settings.window_seconds(batch) + _OVERDUE_SECONDS)
        cancelled = is_taken = False
        noted = batch
        while not batch.has_ended:
            if not is_taken and batch.status != "validating":
                is_taken = True
                tried()
                self._room.accept()
            failpoints.reached(Failpoint.POLLING)
            late = time.time() >= deadline
            if seen_at > overdue_at or (late and not cancelled):
                if cancelled:
                    break
                if late:
                    self._observer.on_deadline_passed(job.requests - batch.completed, batch)
                await self._api.cancel(batch.id)
                cancelled, overdue_at = True, seen_at + _OVERDUE_SECONDS
            due_in = seen_at + self._settings.schedule.interval(seen_at - created_at) - time.monotonic()
            await anyio.sleep(max(0.0, due_in if cancelled else min(due_in, deadline - time.time())))
            batch, seen_at = await self._look(batch, seen_at)
            if _is_worth_noting(noted, batch, job.requests):
                noted = batch
                await self._in_thread(self._note, job, batch)
            if batch.output_file_id and not batch.has_ended:
                await self._api.files.download_more(batch.output_file_id, growing.path)
                early = await self._in_thread(self._record_growth, job, growing)
                self._observer.on_early_answers(batch, len(early))
                growing.take(early)
        self._observer.on_polled(batch)
        return batch

    def _note(self, job: Job, batch: Batch) -> None:
        """Writes down how far a batch has got. No run depends on it, and so none ends where that fails."""
        with suppress(errors.LedgerError):
            self._ledger.jobs.record_progress(job, batch)

    def _record_growth(self, job: Job, growing: _Growing) -> dict[str, Outcome]:
        """Writes down the answers that an output file has gained; what else it says is left until the job has ended."""
        if not growing.path.exists():
            return {}
        members = self._ledger.requests.row_ids(job)
        noted = [
            decoded
            for line in growing.new_lines()
            if (decoded := parse_result_line(line)) and decoded[0] in members and isinstance(decoded[1], Answer)
        ]
        # The last one is left, so that somebody waits for the job's end.
        noted = noted[: max(0, len(members) - 1 - growing.taken)]
        growing.taken += len(noted)
        answers = dict(noted)
        self._ledger.requests.record(members, answers)
        return answers

    async def _look(self, batch: Batch, last_seen_at: float) -> tuple[Batch, float]:
        """Looks at a batch, through the eyes of another job that looked since `last_seen_at` if there is one.

        Returns:
            The batch and when it was looked at, in seconds of the monotonic clock.
        """
        async with self._looking:
            if self._seen_at <= last_seen_at or batch.id not in self._seen:
                self._seen_at = time.monotonic()
                self._seen = await self._api.retrieve_many(set(self._live))
                for seen in self._seen.values():
                    self._observer.on_polled(seen)
            return self._seen[batch.id], self._seen_at

    async def _collect(self, job: Job, batch: Batch, take: Deliver) -> Ended | None:
        """Downloads, writes down and hands over what a batch has answered, however it ended.

        Returns:
            `None` if the server refused it.
        """
        for download in range(1, _DOWNLOADS + 1):
            async with self._result_files(job.key, batch, is_new=True) as paths:
                # A file that is gone was asked for long enough.
                is_last = download == _DOWNLOADS or len(paths) < len(_result_file_ids(batch))
                refused = batch.status == "failed" and not await self._in_thread(self._was_worked_on, job, batch, paths)
                if refused and (is_last or not batch.completed):
                    return None
                failpoints.reached(Failpoint.DOWNLOAD_TO_RECORD)
                if recorded := await self._record(job, paths, take, 0 if is_last else batch.completed):
                    break
            await anyio.sleep(_BETWEEN_DOWNLOADS.pause(download))
        assert recorded
        results, left = recorded
        job = await self._in_thread(self._ledger.jobs.mark_collected, job, MISSING_RESULT)
        self._observer.on_collected(batch, results)
        if results.answers >= min(batch.completed, job.requests):
            await self._delete_files(batch, job.input_file_id)
        failpoints.reached(Failpoint.RECORD_TO_DELIVERY)
        take(left)
        return Ended(Ending.COLLECTED, job)

    async def _record(
        self, job: Job, paths: Sequence[Path], take: Deliver, expected: int
    ) -> tuple[JobResults, dict[str, Outcome]] | None:
        """Writes down what a job's files say, and hands over its answers.

        Args:
            job: whose files they are.
            paths: the files.
            take: is given answers.
            expected: so many answers are needed at least; nothing is written down where there are fewer.

        Returns:
            What they say, and what is left: the last answers, so that somebody waits for the job's end, and
            the failures, which may be asked again once the job is done with. `None` where answers are missing.
        """
        answers: dict[str, Outcome] = {}
        failures: dict[str, Outcome] = {}
        # One job at a time: they would wait for the ledger with all that they have read.
        async with self._recording:
            with ExitStack() as stack:
                files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
                custom_ids, numbers = await self._in_thread(self._numbered, job)
                results = await self._in_thread(JobResults, custom_ids, files)
                if results.answers < min(expected, len(custom_ids)):
                    return None
                outcomes = zip(numbers, results, strict=True)
                while some := await self._in_thread(self._record_some, outcomes):
                    take(answers)
                    answers = {name: outcome for name, outcome in some.items() if isinstance(outcome, Answer)}
                    failures |= {name: some[name] for name in some.keys() - answers.keys()}
                    failpoints.reached(Failpoint.RECORDING)
        return results, answers | failures

    def _numbered(self, job: Job) -> tuple[list[str], array[int]]:
        """The `custom_id`s of a job's requests, and their numbers in the ledger, in as little memory as they take."""
        members = self._ledger.requests.row_ids(job)
        return list(members), array("q", members.values())

    def _record_some(self, outcomes: Iterator[tuple[int, tuple[str, Outcome]]]) -> dict[str, Outcome]:
        """Writes down the next few outcomes of a job."""
        with gc_paused():
            some = list(islice(outcomes, _RECORDED_AT_ONCE))
            named = dict(outcome for _, outcome in some)
            if some:
                self._ledger.requests.record({custom_id: number for number, (custom_id, _) in some}, named)
        return named

    async def adopt(self, key: str, batch: Batch, asked: Callable[[], Awaitable[Sequence[str]]]) -> None:
        """Takes what a batch has answered that has ended, and that the ledger does not know.

        Args:
            key: the batch's.
            batch: any that has ended.
            asked: finds out the `custom_id`s of its requests, where its results do not name them all.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        for download in range(1, _DOWNLOADS + 1):
            async with self._result_files(key, batch, is_new=False) as paths:
                results = await self._in_thread(_read_all, paths)
            answers = len({custom_id for custom_id, outcome in results if isinstance(outcome, Answer)})
            if answers >= batch.completed or download == _DOWNLOADS:
                break
            await anyio.sleep(_BETWEEN_DOWNLOADS.pause(download))
        failpoints.reached(Failpoint.DOWNLOAD_TO_RECORD)
        if not results or len(results) < batch.total:
            named = {custom_id for custom_id, _ in results}
            why = batch_failure(batch.id, batch.reasons) if batch.status == "failed" else MISSING_RESULT
            results += [(custom_id, why) for custom_id in await asked() if custom_id not in named]
        if await self._in_thread(self._ledger.adopted_jobs.add_ended, batch, key, results) and answers:
            self._observer.on_batch_adopted(batch, answers)
        if answers >= batch.completed:
            await self._delete_files(batch)

    @asynccontextmanager
    async def _result_files(self, key: str, batch: Batch, *, is_new: bool) -> AsyncIterator[Sequence[Path]]:
        """The output and error file of a batch, those that there are."""
        with self._file(f"{key}-output") as output, self._file(f"{key}-error") as error:
            for file_id, path in ((batch.output_file_id, output), (batch.error_file_id, error)):
                if file_id:
                    await self._download(file_id, path, is_new=is_new)
            yield [path for path in (output, error) if path.exists()]

    async def _delete_files(self, batch: Batch, input_file_id: str | None = None) -> None:
        if self._settings.delete_files:
            for file_id in (batch.input_file_id or input_file_id, batch.output_file_id, batch.error_file_id):
                if file_id:
                    await self._api.files.delete(file_id)

    async def _download(self, file_id: str, path: Path, *, is_new: bool) -> None:
        """Downloads a file; one that is gone tells of no request, and will not come back."""
        try:
            await self._api.files.download(file_id, path, is_new=is_new)
        except errors.RunError as error:
            if error.status_code != 404:
                raise
            self._observer.on_result_file_missing(file_id)

    def _was_worked_on(self, job: Job, batch: Batch, paths: Sequence[Path]) -> bool:
        """Whether a failed batch has answers, or, if it does not say itself why it failed, says why requests did."""
        members = self._ledger.requests.row_ids(job)
        return any(
            decoded[0] in members and (isinstance(decoded[1], Answer) or not batch.errors)
            for line in _lines(paths)
            if (decoded := parse_result_line(line))
        )

    @contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        """A file's place on the disk for as long as it is needed."""
        path = self._directory / name
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    _in_thread = staticmethod(anyio.to_thread.run_sync)


async def settle(api: BatchAPI, ledger: Ledger, job: Job) -> tuple[Job, Batch | None]:
    """Finds out what became of a job whose run was gone before it knew: it has a batch, or comes to nothing.

    Args:
        api: the server.
        ledger: where it is written down.
        job: one's own, planned or uploaded.

    Returns:
        The job as it is now, and its batch if it has one.

    Raises:
        RunError: the server refuses or could not be reached. The job stays as it is.
    """
    if batch := await api.find(job.key, job.input_file_id, since=job.intended_at):
        return await anyio.to_thread.run_sync(ledger.jobs.mark_created, job, batch), batch
    await api.files.delete_by_name(_file_name(job.key))
    return await anyio.to_thread.run_sync(ledger.jobs.mark_dropped, job), None


def _is_worth_noting(before: Batch, now: Batch, requests: int) -> bool:
    """Whether a batch that is under way has got on by enough to be written down: its timeline in some fifty steps."""
    step = max(1, requests // _NOTES_PER_JOB)
    gained = now.completed + now.failed - before.completed - before.failed
    return not now.has_ended and (gained >= step or now.status != before.status)


async def _before(deadline: float, wait: Callable[[], Awaitable[bool]]) -> bool | None:
    """What a wait comes to; `None` where that is not known by the deadline, in seconds since the epoch."""
    with anyio.move_on_after(deadline - time.time()):
        return await wait()
    return None


def _file_name(key: str) -> str:
    """The name that a job's input file has on the server, by which one is found whose upload's reply was lost."""
    return f"distilabel-{key}.jsonl"


def _lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            yield from file


def _read_all(paths: Sequence[Path]) -> list[tuple[str, Outcome]]:
    """What the lines of a job say whose requests nobody remembers."""
    return [decoded for line in _lines(paths) if (decoded := parse_result_line(line)) and is_custom_id(decoded[0])]


def _result_file_ids(batch: Batch) -> list[str]:
    return [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]


def _is_over_token_limit(batch: Batch) -> bool:
    return any(errors.is_over_token_limit(error.code) for error in batch.errors)


def _is_file_missing(batch: Batch) -> bool:
    return any(is_file_not_visible(error.message) for error in batch.errors)


def _failed(batch: Batch) -> errors.BatchFailedError:
    return errors.BatchFailedError(
        f"The server did not accept batch {batch.id}: {batch.reasons}",
        code=batch.errors[0].code if batch.errors else None,
        batch_id=batch.id,
    )
