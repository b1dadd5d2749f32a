"""Adoption of batches on the server that the ledger does not know: another machine's, or those of a lost ledger."""

from __future__ import annotations

from collections.abc import Collection, Set
from pathlib import Path

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.files import FILE_GONE, OversizedFileError
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, batch_failure, parse_result_line
from distilabel_openai_batch.api.requests import is_custom_id
from distilabel_openai_batch.api.size_limits import INPUT_LIMIT
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.result_collector import ResultCollector, count_answers
from distilabel_openai_batch.engine.scratch import scratch_file
from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.ledger.ledger import Ledger


class Adopter:
    """Add a scope's batches to the ledger, once, before anything is submitted.

    Args:
        api: the server.
        ledger: receives the jobs.
        collector: downloads the results of batches that ended.
        scope_key: the name and the value of the metadata by which a scope's batches are found.
        directory: the directory of scratch files.
        observer: receives the events of the run.
        is_due: whether to search the server at all.
        selected_batches: ids of batches that are adopted whether the server lists them or not.
        lists_others: whether to adopt the scope's other batches that the server lists.

    Attributes:
        is_due: whether the server is still to be searched.
    """

    def __init__(
        self,
        api: BatchAPI,
        ledger: Ledger,
        collector: ResultCollector,
        scope_key: tuple[str, str],
        directory: Path,
        observer: Observer,
        is_due: bool,
        selected_batches: Collection[str] = (),
        lists_others: bool = True,
    ) -> None:
        self.is_due = is_due
        self._api = api
        self._ledger = ledger
        self._collector = collector
        self._scope_key = scope_key
        self._directory = directory
        self._observer = observer
        self._selected_batches = selected_batches
        self._lists_others = lists_others
        self._lock = anyio.Lock()

    async def adopt(self, needed: Collection[str]) -> bool:
        """Search the server for the scope's batches and add the batches to the ledger; do nothing if adoption is done.

        Two batches may hold the same request: an expired batch, and the later batch that the request was submitted in.
        So ended batches are adopted first, with all their answers; then batches in progress, for the unanswered
        requests. A batch whose results exceed their limit is reported once, and left out.

        Args:
            needed: the `custom_id`s that the run is about to submit.

        Returns:
            Whether the ledger may have more answers than before the call.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        if not self.is_due:
            return False
        async with self._lock:
            if self.is_due:
                for key, listed in await self._find_unknown():
                    # A gateway may list other file ids than it shows for the batch itself (LiteLLM pull request 36049).
                    batch = await self._api.retrieve(listed.id)
                    try:
                        if batch.has_ended:
                            await self._adopt_ended(key, batch, set(needed))
                        else:
                            await self._adopt_in_progress(key, batch, set(needed))
                    except OversizedFileError:
                        await self._leave_out(key, batch)
                self.is_due = False
            return True

    async def list_batches(self) -> list[Batch]:
        """List the scope's batches on the server.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        found = {batch_id: await self._api.retrieve(batch_id) for batch_id in self._selected_batches}
        if self._lists_others:
            name, value = self._scope_key
            listed = await self._api.list_last_month()
            found |= {batch.id: batch for batch in listed if batch.metadata.get(name) == value and batch.key}
        return list(found.values())

    async def _find_unknown(self) -> list[tuple[str, Batch]]:
        """Return the keys and batches that the ledger does not know: ended batches first, older batches first."""
        batches = {batch.key or batch.id: batch for batch in await self.list_batches()}
        known = await anyio.to_thread.run_sync(self._ledger.jobs.find_known, list(batches))
        unknown = [(key, batch) for key, batch in batches.items() if key not in known]
        return sorted(unknown, key=lambda item: (not item[1].has_ended, item[1].created_at or 0.0))

    async def _leave_out(self, key: str, batch: Batch) -> None:
        """Report a batch with an oversized file; record a batch that has ended, so that no later run tries again."""
        if batch.has_ended:
            reason = "A file of the batch exceeds the limits on its size."
            await anyio.to_thread.run_sync(self._ledger.adopted_jobs.add_unreadable, batch, key, reason)
        self._observer.on_batch_not_adoptable(batch, "a file of the batch exceeds the limits on its size")

    async def _adopt_ended(self, key: str, batch: Batch, needed: Set[str]) -> None:
        """Add a batch that ended to the ledger, with all its results."""
        results = await self._collector.download_unknown(batch)
        answers = count_answers(results)
        failpoints.reached(Failpoint.DOWNLOAD_TO_RECORD)
        if not results or len(results) < batch.total:
            have_results = {custom_id for custom_id, _ in results}
            failure = batch_failure(batch.id, batch.reasons) if batch.status == "failed" else MISSING_RESULT
            custom_ids = await self._download_custom_ids(batch)
            results += [(custom_id, failure) for custom_id in custom_ids if custom_id not in have_results]
        is_added = await anyio.to_thread.run_sync(self._ledger.adopted_jobs.add_ended, batch, key, results)
        if is_added and (found := count_answers([result for result in results if result[0] in needed])):
            self._observer.on_batch_adopted(batch, found)
        if answers >= batch.completed:
            await self._collector.delete_files(batch)

    async def _adopt_in_progress(self, key: str, batch: Batch, needed: Set[str]) -> None:
        """Add a batch in progress to the ledger, as a job that is waited for."""
        custom_ids = await self._download_custom_ids(batch)
        if not custom_ids:
            self._observer.on_batch_not_adoptable(batch, "its input file is gone")
            return
        is_added = await anyio.to_thread.run_sync(self._ledger.adopted_jobs.add_in_progress, batch, key, custom_ids)
        if is_added and (found := sum(custom_id in needed for custom_id in custom_ids)):
            self._observer.on_batch_adopted(batch, found)

    async def _download_custom_ids(self, batch: Batch) -> list[str]:
        """Return the `custom_id`s in the input file of a batch; an empty list if the file is gone."""
        if not batch.input_file_id:
            return []
        with scratch_file(self._directory) as path:
            try:
                await self._api.files.download(batch.input_file_id, path, INPUT_LIMIT)
            except errors.RunError as error:
                if error.status_code not in (403, *FILE_GONE):
                    raise
                return []
            return await anyio.to_thread.run_sync(_read_custom_ids, path)


def _read_custom_ids(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [result[0] for line in file if (result := parse_result_line(line)) and is_custom_id(result[0])]
