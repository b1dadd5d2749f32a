"""Polls of batches in progress until they end."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import Batch, EndDetector
from distilabel_openai_batch.api.outcomes import Answer, Deliver, Outcome, parse_result_line
from distilabel_openai_batch.engine.enqueue_limit import Admission
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.scratch import scratch_file
from distilabel_openai_batch.engine.wake import Wake
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.states import Job

# A batch that is still in progress this long after its window closed, and has made no progress for a window and this
# long, never ends: cancelling takes ten minutes at most.
# https://platform.openai.com/docs/guides/batch#batch-expiration
_OVERDUE_SECONDS = 3_600.0

# Bytes of a growing output file that are read after each poll: a poll reads the rest of a faster file.
_EARLY_BYTES = 2**25

# Records of a job's progress, at most, besides a record for each change of its status.
_RECORDS_PER_JOB = 50


@dataclass(slots=True)
class _GrowingOutput:
    """The output file of a batch in progress, which some servers show.

    Attributes:
        path: the downloaded part of the file.
        read_bytes: bytes whose lines were read.
        answers: number of answers that were delivered.
    """

    path: Path
    read_bytes: int = 0
    answers: int = 0

    def read_new_lines(self) -> list[bytes]:
        """Return complete lines that were downloaded and not returned yet, up to `_EARLY_BYTES`."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read_bytes)
            lines, line_feed, _ = file.read(_EARLY_BYTES).rpartition(b"\n")
        self.read_bytes += len(lines) + len(line_feed)
        return lines.splitlines(keepends=True)


@dataclass(slots=True)
class _Window:
    """Time that a batch has until it is cancelled.

    Attributes:
        begins_at: the time of the creation or of the last progress, in seconds of the monotonic clock.
        done: number of outcomes that the batch counted then.
        number: number of windows that the batch gets without any progress.
    """

    begins_at: float
    done: int
    number: int

    def note(self, done: int, polled_at: float) -> None:
        """Begin a new window if a poll shows more outcomes than before."""
        if done > self.done:
            self.done, self.begins_at = done, polled_at

    def ends_at(self, seconds: float) -> float:
        """Return the time at which the window closes, given the seconds of one window."""
        return self.begins_at + self.number * seconds


class JobWatcher:
    """Poll batches in progress; tasks that wait for different batches share a poll.

    Args:
        context: the server, the ledger and the other surroundings of the jobs.
        wake: ends pauses between polls early; `None` if nothing does.
    """

    def __init__(self, context: JobContext, wake: Wake | None = None) -> None:
        self._api = context.api
        self._wake = wake or Wake(context.ledger.path.parent)
        self._ledger = context.ledger
        self._settings = context.settings
        self._directory = context.directory
        self._observer = context.observer
        self._sizes = context.sizes
        self._in_progress: set[str] = set()
        self._poll_lock = anyio.Lock()
        self._polled: dict[str, Batch] = {}
        self._polled_at = float("-inf")
        # Windows that a batch gets before it is cancelled. If a batch of one slow request is cancelled, a second batch
        # with the same window would be cancelled too → each cancelled batch doubles the time of the next batches.
        self._windows = 1

    @property
    def batches_in_progress(self) -> tuple[str, ...]:
        """Return the ids of the watched batches."""
        return tuple(sorted(self._in_progress))

    async def watch(self, job: Job, batch: Batch, deliver: Deliver, deadline: float, admission: Admission) -> Batch:
        """Poll a batch until it ends, and deliver the answers that its growing output file shows.

        A batch is cancelled at the deadline, or an hour after its window closed. Each progress of the batch begins a
        new window, since some servers do not end a batch when its window closes.

        Args:
            job: the job of the batch.
            batch: the batch as it was last polled.
            deliver: receives early answers.
            deadline: the time after which to cancel the batch, in seconds of the monotonic clock.
            admission: the admission of the job.

        Returns:
            The batch, which has ended, or has been cancelled for an hour without an end.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        self._in_progress.add(batch.id)
        try:
            with scratch_file(self._directory) as path:
                return await self._poll_until_end(job, batch, deliver, deadline, admission, _GrowingOutput(path))
        except BaseException:
            # An interrupted run leaves its last counts for `jobs`.
            self._record_progress(job, self._polled.get(batch.id, batch))
            raise
        finally:
            self._in_progress.discard(batch.id)

    async def settle_status(self, batch: Batch) -> Batch:
        """Poll a batch with an unknown status while it seems to have ended, until that is certain.

        Args:
            batch: the batch as it was last polled.

        Returns:
            The batch, with a final status if it has ended.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        detector = EndDetector()
        while (batch := detector.judge(batch)).apparent_end:
            await anyio.sleep(self._settings.schedule.interval(0.0))
            batch = await self._api.retrieve(batch.id)
        return batch

    async def _poll_until_end(
        self, job: Job, batch: Batch, deliver: Deliver, deadline: float, admission: Admission, output: _GrowingOutput
    ) -> Batch:
        polled_at = time.monotonic()
        # A job may have waited for its creation → its age counts from the creation of the batch.
        age = _age(max(job.intended_at, batch.created_at or 0.0))
        created_at = polled_at - age
        idle_seconds = age
        if age > _OVERDUE_SECONDS:
            idle_seconds = await anyio.to_thread.run_sync(self._seconds_since_progress, job, batch)
        window = _Window(polled_at - min(age, idle_seconds), _count_done(job, batch), self._windows)
        started_at, cancelled_at = polled_at, None
        recorded, detector = batch, EndDetector()
        self._observer.on_poll_scheduled(batch, self._settings.schedule.interval(age))
        while not (batch := detector.judge(batch)).has_ended:
            if batch.status != "validating":
                admission.accept()
            failpoints.reached(Failpoint.POLLING)
            window.note(_count_done(job, batch), polled_at)
            is_deadline_passed = time.monotonic() >= deadline
            is_cancelled = cancelled_at is not None
            ends_at = cancelled_at or window.ends_at(self._settings.window_seconds(batch))
            overdue_at = max(started_at, ends_at + _OVERDUE_SECONDS)
            if polled_at > overdue_at or (is_deadline_passed and not is_cancelled):
                if is_cancelled:
                    break
                if is_deadline_passed:
                    self._observer.on_deadline_passed(job.requests - batch.completed, batch)
                else:
                    self._windows = max(self._windows, 2 * window.number)
                await self._api.cancel(batch.id)
                is_cancelled, cancelled_at = True, polled_at
            due_in = polled_at + self._settings.schedule.interval(polled_at - created_at) - time.monotonic()
            due_in = due_in if is_cancelled else min(due_in, deadline - time.monotonic())
            await self._wake.pause(max(0.0, due_in), anyio.sleep)
            batch, polled_at = await self._poll(batch, polled_at)
            if _has_progressed(recorded, batch, job.requests):
                recorded = batch
                await anyio.to_thread.run_sync(self._record_progress, job, batch)
            if batch.output_file_id and not batch.has_ended:
                await self._deliver_early(job, batch, batch.output_file_id, output, deliver)
        self._observer.on_polled(batch)
        return batch

    def _seconds_since_progress(self, job: Job, batch: Batch) -> float:
        """Return the seconds since a batch last progressed, as far as the ledger and the batch show it."""
        seen_at, done = self._ledger.jobs.last_progress(job) or (float("-inf"), 0)
        return 0.0 if _count_done(job, batch) > done else _age(seen_at)

    async def _poll(self, batch: Batch, last_polled_at: float) -> tuple[Batch, float]:
        """Poll a batch, or take the result of a poll that another task made since `last_polled_at`.

        Returns:
            The batch, and the time of the poll in seconds of the monotonic clock.
        """
        async with self._poll_lock:
            if self._polled_at <= last_polled_at or batch.id not in self._polled:
                self._polled_at = time.monotonic()
                self._polled = await self._api.retrieve_many(set(self._in_progress))
                for polled in self._polled.values():
                    self._observer.on_polled(polled)
            return self._polled[batch.id], self._polled_at

    def _record_progress(self, job: Job, batch: Batch) -> None:
        """Record the progress of a batch; no run depends on the record → ignore a failure."""
        with suppress(errors.LedgerError):
            self._ledger.jobs.record_progress(job, batch)

    async def _deliver_early(
        self, job: Job, batch: Batch, file_id: str, output: _GrowingOutput, deliver: Deliver
    ) -> None:
        """Deliver the answers that the output file of a batch in progress has gained."""
        limit = self._sizes.limit(job.requests, batch.total)
        await self._api.files.download_more(file_id, output.path, limit)
        answers = await anyio.to_thread.run_sync(self._record_new_answers, job, output)
        self._observer.on_early_answers(batch, len(answers))
        deliver(answers)

    def _record_new_answers(self, job: Job, output: _GrowingOutput) -> dict[str, Outcome]:
        """Record and return the answers that an output file has gained; failures wait for the end of the batch."""
        lines = output.read_new_lines()
        if not lines:
            return {}
        request_ids = self._ledger.requests.request_ids(job)
        parsed = [
            result
            for line in lines
            if (result := parse_result_line(line)) and result[0] in request_ids and isinstance(result[1], Answer)
        ]
        # Keep the last answer back, so that a caller waits for the end of the job.
        parsed = parsed[: max(0, len(request_ids) - 1 - output.answers)]
        output.answers += len(parsed)
        answers = dict(parsed)
        self._ledger.requests.record(request_ids, answers)
        return answers


def _count_done(job: Job, batch: Batch) -> int:
    """Return the number of outcomes that a batch counts: at most the number of its requests, so that progress ends."""
    return min(batch.completed + batch.failed, job.requests)


def _age(moment: float) -> float:
    """Return the seconds since a moment on the wall clock, in seconds since the epoch; 0 for a moment to come."""
    return max(0.0, time.time() - moment)


def _has_progressed(recorded: Batch, batch: Batch, requests: int) -> bool:
    """Return whether a batch in progress has changed enough since its last record to be recorded again."""
    step = max(1, requests // _RECORDS_PER_JOB)
    done = batch.completed + batch.failed - recorded.completed - recorded.failed
    return not batch.has_ended and (done >= step or batch.status != recorded.status)
