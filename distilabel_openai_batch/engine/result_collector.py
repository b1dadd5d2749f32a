"""Collection of the results of batches that ended: download, record, delivery."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from itertools import count, islice
from pathlib import Path

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.files import FILE_GONE
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Deliver, Outcome, is_billed, parse_result_line
from distilabel_openai_batch.api.requests import is_custom_id
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.size_limits import SizeLimit
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.scratch import scratch_file
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.ledger.packs import PACK_SIZE, chunk_lengths
from distilabel_openai_batch.ledger.states import Job

# The files have fewer answers than the server counts → poll and download again, since a proxy may have replied. After
# this number of downloads, accept that the server counts differently.
_MAX_DOWNLOADS = 3
# The server counts failures but names no error file → download more often, since a file id appears later than an
# answer. The pauses of six downloads add up to a minute.
_MAX_DOWNLOADS_WITHOUT_ERROR_FILE = 6
_DOWNLOAD_PAUSES = Patience(first=2.0)

# Bytes of the lines that are recorded in one transaction, about: an answer with images has some megabytes, and the
# outcomes of two transactions are in memory.
_CHUNK_BYTES = 64 * 2**20


class ResultCollector:
    """Download, record and deliver the results of batches that ended.

    Args:
        context: the server, the ledger and the other surroundings of the jobs.
    """

    def __init__(self, context: JobContext) -> None:
        self._api = context.api
        self._ledger = context.ledger
        self._settings = context.settings
        self._directory = context.directory
        self._observer = context.observer
        self._sizes = context.sizes
        self._record_lock = anyio.Lock()

    async def collect(self, job: Job, batch: Batch, deliver: Deliver) -> Job | None:
        """Download, record and deliver all results of a batch that has ended.

        An expired or cancelled batch is collected like a completed one; its unanswered requests fail with
        `batch_expired` or `batch_cancelled` and go into the next flush.

        Args:
            job: the job of the batch.
            batch: the batch.
            deliver: receives the outcomes.

        Returns:
            The job, which is collected; `None` if the server refused the batch, so that there are no results.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        for download in count(1):
            batch = await self._api.wait_for_output_file(batch)
            async with self._download_results(batch, job.requests, is_new=True) as paths:
                # The download of a missing file was repeated long enough → do not repeat it here.
                is_last = download >= _max_downloads(batch) or len(paths) < len(_result_file_ids(batch))
                refused = (batch.apparent_end or batch.status) == "failed" and not await anyio.to_thread.run_sync(
                    self._has_results, job, batch, paths
                )
                if refused and (is_last or not batch.completed):
                    return None
                failpoints.reached(Failpoint.DOWNLOAD_TO_RECORD)
                # The end of a pause may cost a visit of all new objects → one pause for all chunks.
                with gc_paused():
                    recorded = await self._record(job, paths, deliver, None if is_last else batch)
                if recorded:
                    break
            await anyio.sleep(_DOWNLOAD_PAUSES.pause(download))
            batch = await self._api.retrieve(batch.id)
        assert recorded
        results, last_outcomes = recorded
        job = await anyio.to_thread.run_sync(self._ledger.jobs.mark_collected, job, results.missing)
        self._observer.on_collected(batch, results)
        if batch.usage and batch.usage.totals() != results.usage.totals():
            self._observer.on_usage_differs(batch, batch.usage, results.usage)
        if _is_complete(results, batch, job.requests):
            await self.delete_files(batch, job.input_file_id)
        elif results.missing is MISSING_RESULT and (missing := min(batch.completed, job.requests) - results.answers):
            self._observer.on_results_missing(batch, missing)
        failpoints.reached(Failpoint.RECORD_TO_DELIVERY)
        deliver(last_outcomes)
        return job

    async def download_unknown(self, batch: Batch) -> list[tuple[str, Outcome]]:
        """Download the results of a batch whose requests the ledger does not know.

        Args:
            batch: a batch that has ended.

        Returns:
            The `custom_id` and the outcome of each result line, in the order of the lines.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        for download in range(1, _MAX_DOWNLOADS + 1):
            batch = await self._api.wait_for_output_file(batch)
            async with self._download_results(batch, 0, is_new=False) as paths:
                results = await anyio.to_thread.run_sync(_read_results, paths)
            if count_answers(results) >= batch.completed or download == _MAX_DOWNLOADS:
                break
            await anyio.sleep(_DOWNLOAD_PAUSES.pause(download))
            batch = await self._api.retrieve(batch.id)
        return results

    async def delete_files(self, batch: Batch, input_file_id: str | None = None) -> None:
        """Delete the files of a batch from the server if the settings say so.

        Args:
            batch: the batch.
            input_file_id: the id of its input file, for servers that do not return the id.
        """
        if self._settings.delete_files:
            for file_id in (batch.input_file_id or input_file_id, batch.output_file_id, batch.error_file_id):
                if file_id:
                    await self._api.files.delete(file_id)

    @asynccontextmanager
    async def _download_results(self, batch: Batch, requests: int, *, is_new: bool) -> AsyncIterator[Sequence[Path]]:
        """Yield the paths of a batch's output and error file, as far as the server has them.

        Args:
            batch: the batch.
            requests: the number of its requests that the ledger knows.
            is_new: whether the server may have created the files just now.
        """
        limit = self._sizes.limit(requests, batch.total)
        with scratch_file(self._directory) as output, scratch_file(self._directory) as error:
            for file_id, path in ((batch.output_file_id, output), (batch.error_file_id, error)):
                if file_id:
                    await self._download(file_id, path, limit, is_new=is_new)
            yield [path for path in (output, error) if path.exists()]

    async def _download(self, file_id: str, path: Path, limit: SizeLimit, *, is_new: bool) -> None:
        """Download a file unless the server no longer has it: then its results are lost."""
        try:
            await self._api.files.download(file_id, path, limit, is_new=is_new)
        except errors.RunError as error:
            if error.status_code not in FILE_GONE:
                raise
            self._observer.on_result_file_missing(file_id)

    def _has_results(self, job: Job, batch: Batch, paths: Sequence[Path]) -> bool:
        """Return whether the files of a failed batch have answers; failures count if the batch itself has no errors."""
        request_ids = self._ledger.requests.request_ids(job)
        return any(
            result[0] in request_ids and (is_billed(result[1]) or not batch.errors)
            for line in _read_lines(paths)
            if (result := parse_result_line(line))
        )

    async def _record(
        self, job: Job, paths: Sequence[Path], deliver: Deliver, expected: Batch | None
    ) -> tuple[JobResults, dict[str, Outcome]] | None:
        """Record the results in a job's files, and deliver most of the answers.

        Args:
            job: the job.
            paths: the files.
            deliver: receives answers.
            expected: the batch whose counts the results have to match, otherwise nothing is recorded; `None` to record
                any results.

        Returns:
            The results, and the outcomes to deliver after the job is marked as collected. These outcomes are the last
            answers, so that a caller waits until the job is marked, and all failures, since a delivered failure may be
            submitted again at once. `None` if answers are missing.
        """
        answers: dict[str, Outcome] = {}
        failures: dict[str, Outcome] = {}
        # Several jobs at once would wait for the ledger with their results in memory → record one at a time.
        async with self._record_lock:
            with ExitStack() as stack:
                files = [stack.enter_context(path.open("rb", buffering=0)) for path in paths]
                custom_ids, request_ids = await anyio.to_thread.run_sync(self._list_requests, job)
                results = await anyio.to_thread.run_sync(JobResults, custom_ids, files)
                # The results free each text.
                del custom_ids
                if expected and not _is_complete(results, expected, len(request_ids)):
                    return None
                outcomes = zip(request_ids, results, strict=True)
                for size in chunk_lengths(request_ids, _chunk_size(paths, len(request_ids))):
                    chunk = await anyio.to_thread.run_sync(self._record_chunk, outcomes, size)
                    deliver(answers)
                    answers = {name: outcome for name, outcome in chunk.items() if isinstance(outcome, Answer)}
                    failures |= {name: chunk[name] for name in chunk.keys() - answers.keys()}
                    failpoints.reached(Failpoint.RECORDING)
        return results, answers | failures

    def _list_requests(self, job: Job) -> tuple[list[str], array[int]]:
        """Return the `custom_id`s and the ids of a job's requests, in as little memory as possible."""
        request_ids = self._ledger.requests.request_ids(job)
        return list(request_ids), array("q", request_ids.values())

    def _record_chunk(self, outcomes: Iterator[tuple[int, tuple[str, Outcome]]], size: int) -> dict[str, Outcome]:
        """Record the next `size` outcomes of a job; return them by `custom_id`."""
        chunk = list(islice(outcomes, size))
        by_custom_id = dict(outcome for _, outcome in chunk)
        request_ids = {custom_id: request_id for request_id, (custom_id, _) in chunk}
        self._ledger.requests.record(request_ids, by_custom_id)
        return by_custom_id


def count_answers(results: Sequence[tuple[str, Outcome]]) -> int:
    """Return the number of requests that have an answer among the results."""
    return len({custom_id for custom_id, outcome in results if is_billed(outcome)})


def _chunk_size(paths: Sequence[Path], requests: int) -> int:
    """Return the number of outcomes that are recorded in one transaction, by the mean size of a line."""
    line_bytes = sum(path.stat().st_size for path in paths) // max(1, requests)
    return max(1, min(PACK_SIZE, _CHUNK_BYTES // max(1, line_bytes)))


def _read_lines(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            yield from file


def _read_results(paths: Sequence[Path]) -> list[tuple[str, Outcome]]:
    """Return the results whose `custom_id` has the form of this package's."""
    return [result for line in _read_lines(paths) if (result := parse_result_line(line)) and is_custom_id(result[0])]


def _is_complete(results: JobResults, batch: Batch, requests: int) -> bool:
    """Return whether results match the counts of their batch.

    Without an error file, the lines have to account for the failures too. Some servers count failures as completed, so
    a line for each request of the job is always enough.
    """
    has_answers = results.answers >= min(batch.completed, requests)
    has_failures = batch.error_file_id is not None or results.reported >= min(batch.completed + batch.failed, requests)
    return (has_answers and has_failures) or results.reported == requests


def _max_downloads(batch: Batch) -> int:
    is_error_file_late = batch.failed > 0 and batch.error_file_id is None
    return _MAX_DOWNLOADS_WITHOUT_ERROR_FILE if is_error_file_late else _MAX_DOWNLOADS


def _result_file_ids(batch: Batch) -> list[str]:
    return [file_id for file_id in (batch.output_file_id, batch.error_file_id) if file_id]
