"""One job's life, many side by side: a shard of requests goes in, an outcome for each of them comes out.

A job is a batch of the Batch API together with the shard that it answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import FILE_VISIBLE_SECONDS, BatchAPI, is_file_not_visible
from distilabel_openai_batch.polling import PollSchedule
from distilabel_openai_batch.progress import Progress
from distilabel_openai_batch.wire import Batch, Outcome, Results, Shard, read_results

# A batch that is not over by then is not going to be: its window has closed, and cancelling takes ten minutes at most.
# https://platform.openai.com/docs/guides/batch#batch-expiration
_OVERDUE_SECONDS = 3_600.0
_WINDOW_SECONDS = 86_400.0

# Failed batches count against the enqueued-token limit for a while: so often is a shard that stands alone tried again
# before it is halved.
_TOKEN_LIMIT_TRIES = 3


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How jobs are made and watched.

    Attributes:
        completion_window: as the API's.
        max_jobs: jobs in flight at once.
        schedule: when to look at them.
        metadata: what each batch carries besides its key.
    """

    completion_window: str
    max_jobs: int
    schedule: PollSchedule
    metadata: Mapping[str, str]


class Jobs:
    """Runs shards as jobs.

    Args:
        api: the server.
        settings: how jobs are made and watched.
        directory: where input, output and error files lie while they are needed.
        progress: is told of each job's course.
    """

    def __init__(self, api: BatchAPI, settings: JobSettings, directory: Path, progress: Progress) -> None:
        self._api = api
        self._settings = settings
        self._directory = directory
        self._progress = progress
        self._capacity = anyio.CapacityLimiter(settings.max_jobs)
        self._live: set[str] = set()
        self._one_ended = anyio.Event()
        self._looking = anyio.Lock()
        self._seen: dict[str, Batch] = {}
        self._seen_at = float("-inf")

    @property
    def live(self) -> tuple[str, ...]:
        """Ids of the batches that the server is working on."""
        return tuple(sorted(self._live))

    async def answer(self, shard: Shard) -> list[Outcome]:
        """Has a shard answered by the server.

        Args:
            shard: what goes into its input file.

        Returns:
            An outcome for each request, in their order.

        Raises:
            RunError: the job, and with it the run, cannot go on.
        """
        async with self._capacity:
            try:
                return await self._answer(shard)
            except OSError as error:
                raise errors.RunError(f"A file of a job could not be written or read: {error}") from None

    async def _answer(self, shard: Shard) -> list[Outcome]:
        file_id = await self._upload(shard)
        uploaded_at = time.monotonic()
        tries = 0
        while True:
            batch = await self._run(file_id, shard)
            if batch.status != "failed" or batch.output_file_id:
                return await self._collect(batch, shard)
            if _is_over_token_limit(batch):
                if self._live:
                    await self._one_ended.wait()
                elif tries < _TOKEN_LIMIT_TRIES:
                    tries += 1
                    await anyio.sleep(self._settings.schedule.interval(0.0) * 2**tries)
                elif len(shard.requests) > 1:
                    first, second = shard.halves()
                    return [*await self._answer(first), *await self._answer(second)]
                else:
                    raise _failed(batch)
            elif _is_file_missing(batch) and time.monotonic() - uploaded_at < FILE_VISIBLE_SECONDS:
                await anyio.sleep(self._settings.schedule.interval(0.0))
            else:
                raise _failed(batch)

    async def _upload(self, shard: Shard) -> str:
        with self._file("input") as path:
            with path.open("wb") as file:
                for request in shard.requests:
                    file.write(request.line())
            return await self._api.upload(path)

    async def _run(self, file_id: str, shard: Shard) -> Batch:
        """Creates a batch and waits for its end."""
        batch = await self._api.create(
            file_id, shard.endpoint, self._settings.completion_window, uuid4().hex, self._settings.metadata
        )
        self._live.add(batch.id)
        self._progress.created(batch, shard)
        try:
            return await self._watch(batch)
        finally:
            self._live.discard(batch.id)
            self._one_ended.set()
            self._one_ended = anyio.Event()

    async def _watch(self, batch: Batch) -> Batch:
        created_at = seen_at = time.monotonic()
        window = (batch.expires_at - batch.created_at) if batch.expires_at and batch.created_at else _WINDOW_SECONDS
        overdue_at = created_at + window + _OVERDUE_SECONDS
        cancelled = False
        while not batch.ended:
            if seen_at > overdue_at:
                if cancelled:
                    break
                await self._api.cancel(batch.id)
                cancelled, overdue_at = True, seen_at + _OVERDUE_SECONDS
            due_at = seen_at + self._settings.schedule.interval(seen_at - created_at)
            await anyio.sleep(max(0.0, due_at - time.monotonic()))
            batch, seen_at = await self._look(batch, seen_at)
        self._progress.saw(batch)
        return batch

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
                    self._progress.saw(seen)
            return self._seen[batch.id], self._seen_at

    async def _collect(self, batch: Batch, shard: Shard) -> list[Outcome]:
        """Downloads and reads what a batch has answered, however it ended."""
        with self._file("output") as output, self._file("error") as error:
            if batch.output_file_id:
                await self._api.download(batch.output_file_id, output)
            if batch.error_file_id:
                await self._api.download(batch.error_file_id, error)
            results = await anyio.to_thread.run_sync(_read, shard, (output, error))
        self._progress.collected(batch, results)
        return results.outcomes

    @contextmanager
    def _file(self, kind: str) -> Iterator[Path]:
        """A file's place on the disk for as long as it is needed."""
        path = self._directory / f"distilabel-{uuid4().hex}-{kind}.jsonl"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _read(shard: Shard, paths: Sequence[Path]) -> Results:
    return read_results(shard.requests, _lines(paths))


def _lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        if path.exists():
            with path.open("rb") as file:
                yield from file


def _is_over_token_limit(batch: Batch) -> bool:
    return any(error.code == "token_limit_exceeded" for error in batch.errors)


def _is_file_missing(batch: Batch) -> bool:
    return any(is_file_not_visible(error.message) for error in batch.errors)


def _failed(batch: Batch) -> errors.BatchFailedError:
    reasons = "; ".join(str(error) for error in batch.errors[:3]) or "the server gave no reason"
    more = f" (and {len(batch.errors) - 3} more)" if len(batch.errors) > 3 else ""
    return errors.BatchFailedError(
        f"The server did not accept batch {batch.id}: {reasons}{more}",
        code=batch.errors[0].code if batch.errors else None,
        batch_id=batch.id,
    )
