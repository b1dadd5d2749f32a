"""Finds the jobs on the server that the ledger does not know: another machine's, or those of a ledger that was lost."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.outcomes import parse_result_line
from distilabel_openai_batch.api.requests import is_custom_id
from distilabel_openai_batch.engine.job_runner import Jobs
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.ledger import Ledger


class Adoption:
    """Takes jobs of a scope from the server into the ledger, once, before anything is bought.

    Args:
        api: the server.
        ledger: where they go.
        jobs: takes the results of those that have ended.
        scope_key: the metadata by which a scope's jobs are found.
        directory: for files that are needed for moments.
        observer: reports the events of the run.
        due: whether to look for jobs at all.
        only: the ids of the batches that are looked at, whether the server lists them or not.
        all_others: whether those that it lists are looked at beside them.
    """

    def __init__(
        self,
        api: BatchAPI,
        ledger: Ledger,
        jobs: Jobs,
        scope_key: tuple[str, str],
        directory: Path,
        observer: Observer,
        due: bool,
        only: Collection[str] = (),
        all_others: bool = True,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._jobs = jobs
        self._scope_key = scope_key
        self._directory = directory
        self._observer = observer
        self._only = only
        self._all_others = all_others
        self._one_at_a_time = anyio.Lock()
        self.due = due
        """Whether it is still to look for jobs."""

    async def adopt(self) -> bool:
        """Looks for jobs, unless that was done.

        A request may be in several: in one that expired, and in the one that it went into then. So those that have
        ended come first, each with all that it answered; those under way are left what nobody has answered.

        Returns:
            Whether the ledger may know more than before.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        if not self.due:
            return False
        async with self._one_at_a_time:
            if self.due:
                for key, batch in await self._unknown():
                    if batch.has_ended:
                        await self._jobs.adopt(key, batch, partial(self._custom_ids, batch))
                    else:
                        await self._adopt_under_way(key, batch)
                self.due = False
            return True

    async def batches(self) -> list[Batch]:
        """The batches of the scope on the server.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        found = {batch_id: await self._api.retrieve(batch_id) for batch_id in self._only}
        if self._all_others:
            name, value = self._scope_key
            listed = await self._api.list_last_month()
            found |= {
                batch.id: batch
                for batch in listed
                if batch.metadata.get(name) == value and KEY_METADATA in batch.metadata
            }
        return list(found.values())

    async def _unknown(self) -> list[tuple[str, Batch]]:
        batches = {batch.metadata.get(KEY_METADATA, batch.id): batch for batch in await self.batches()}
        known = await anyio.to_thread.run_sync(self._ledger.jobs.find_known, list(batches))
        unknown = [(key, batch) for key, batch in batches.items() if key not in known]
        return sorted(unknown, key=lambda item: (not item[1].has_ended, item[1].created_at or 0.0))

    async def _adopt_under_way(self, key: str, batch: Batch) -> None:
        custom_ids = await self._custom_ids(batch)
        if not custom_ids:
            self._observer.on_batch_not_adoptable(batch)
        elif await anyio.to_thread.run_sync(self._ledger.adopted_jobs.add_in_progress, batch, key, custom_ids):
            self._observer.on_batch_adopted(batch, len(custom_ids))

    async def _custom_ids(self, batch: Batch) -> list[str]:
        """What a batch asks, by its input file; nothing where that is gone."""
        if not batch.input_file_id:
            return []
        path = self._directory / f"adopted-{batch.id}.jsonl"
        try:
            await self._api.files.download(batch.input_file_id, path)
            return await anyio.to_thread.run_sync(_read_custom_ids, path)
        except errors.RunError as error:
            if error.status_code not in (403, 404):
                raise
            return []
        finally:
            path.unlink(missing_ok=True)


def _read_custom_ids(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [decoded[0] for line in file if (decoded := parse_result_line(line)) and is_custom_id(decoded[0])]
