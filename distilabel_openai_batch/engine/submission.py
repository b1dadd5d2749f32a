"""What is submitted now and loaded later: its rows, kept in the ledger and on the server, and its jobs."""

from __future__ import annotations

import difflib
import logging
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import anyio.to_thread

from distilabel_openai_batch.api.batches import ROWS_METADATA, RUN_METADATA
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.engine.adoption import Adoption
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import SubmittedJob

# The names of other runs that are told where one is not to be found.
_NAMES_TOLD = 5


class Submission:
    """A submission's rows and jobs, for one session.

    Args:
        api: the server.
        ledger: what is known, in the submission's scope.
        adoption: finds its batches on the server.
        directory: for files that are needed for moments.
        metadata: what the session's batches will carry.
        logger: is told what cannot be promised.
        name: by which it is found again.
    """

    def __init__(
        self,
        api: BatchAPI,
        ledger: Ledger,
        adoption: Adoption,
        directory: Path,
        metadata: MutableMapping[str, str],
        logger: logging.Logger,
        name: str = "",
    ) -> None:
        self._name = name
        self._api = api
        self._ledger = ledger
        self._adoption = adoption
        self._directory = directory
        self._metadata = metadata
        self._logger = logger

    async def keep_rows(self, lines: Sequence[bytes], replace: bool = True) -> None:
        """Keeps rows, here and on the server, before the first of them is bought.

        Args:
            lines: each row, as JSON.
            replace: whether they take the place of other rows that were submitted before, here or on another machine.

        Raises:
            LedgerError: they cannot be written down.
            RunError: the server could not be asked for those that were submitted before.
        """
        kept, file_id = await (
            anyio.to_thread.run_sync(self._ledger.submissions.load_rows) if replace else self._submitted_before()
        )
        if not kept or (replace and (kept != list(lines) or not file_id)):
            file_id = await self._upload(lines)
            await anyio.to_thread.run_sync(self._ledger.submissions.keep_rows, lines, file_id)
        if file_id:
            self._metadata[ROWS_METADATA] = file_id

    async def _upload(self, lines: Sequence[bytes]) -> str | None:
        path = self._directory / f"distilabel-rows-{self._ledger.owner}.jsonl"
        try:
            await anyio.to_thread.run_sync(path.write_bytes, b"".join(line + b"\n" for line in lines))
            return await self._api.files.upload(path)
        except RunError as error:
            self._logger.warning(
                f"⚠️ The rows could not be put on the server: {error} Only this machine's ledger has them."
            )
            return None
        finally:
            path.unlink(missing_ok=True)

    async def rows(self) -> list[bytes]:
        """The rows that were submitted, each as JSON: from the ledger, else from the server.

        Raises:
            RunError: neither has them, or the server could not be reached.
        """
        lines, _ = await self._submitted_before()
        if not lines:
            raise RunError(
                f"The rows of the run '{self._name}' are neither in the ledger nor on the server. {await self._hint()}"
            )
        return lines

    async def _submitted_before(self) -> tuple[list[bytes], str | None]:
        """The rows that were submitted, and the id of the file that has them on the server."""
        lines, file_id = await anyio.to_thread.run_sync(self._ledger.submissions.load_rows)
        if lines:
            return lines, file_id
        batches = sorted(await self._adoption.batches(), key=lambda batch: batch.created_at or 0.0)
        file_ids = [batch.metadata[ROWS_METADATA] for batch in batches if ROWS_METADATA in batch.metadata]
        if not file_ids:
            return [], None
        path = self._directory / "rows.jsonl"
        try:
            await self._api.files.download(file_ids[-1], path)
            lines = [line for line in path.read_bytes().split(b"\n") if line]
        finally:
            path.unlink(missing_ok=True)
        await anyio.to_thread.run_sync(self._ledger.submissions.keep_rows, lines, file_ids[-1])
        return lines, file_ids[-1]

    async def _hint(self) -> str:
        """What the name of a run that is not to be found may have been meant for."""
        here = await anyio.to_thread.run_sync(self._ledger.submissions.list_runs)
        if elsewhere := [base_url for name, base_url in here if name == self._name]:
            return f"It was submitted to {elsewhere[-1]}: is that what `base_url` says?"
        batches = await self._api.list_last_month()
        names = {name for name, _ in here} | {
            batch.metadata[RUN_METADATA] for batch in batches if RUN_METADATA in batch.metadata
        }
        if not names:
            return "No others are there either. Is the key that of the project that submitted it?"
        nearest = difflib.get_close_matches(self._name, names, n=_NAMES_TOLD, cutoff=0.0)
        return (
            f"Is the name right? {'The nearest are' if len(names) > 1 else 'There is'} {', '.join(map(repr, nearest))}."
        )

    async def jobs(self) -> list[SubmittedJob]:
        """The jobs that were submitted."""
        return await anyio.to_thread.run_sync(self._ledger.submissions.list_jobs)

    async def name_of(self, batch_id: str) -> str:
        """The name of the run that submitted a batch.

        Raises:
            RunError: nobody knows it, or the server could not be reached.
        """
        name = await anyio.to_thread.run_sync(self._ledger.submissions.find_run, batch_id)
        name = name or (await self._api.retrieve(batch_id)).metadata.get(RUN_METADATA)
        if not name:
            raise RunError(
                f"Batch {batch_id} does not say which run submitted it, and the ledger does not know it. Was it made by"
                " SubmitBatch?",
                batch_id=batch_id,
            )
        return name
