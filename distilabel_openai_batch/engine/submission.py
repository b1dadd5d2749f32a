"""Submissions: runs that one process submits and another one loads. Their rows are in the ledger and on the server."""

from __future__ import annotations

import difflib
import logging
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import anyio.to_thread

from distilabel_openai_batch.api.batches import ROWS_METADATA, RUN_METADATA
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.replies import is_id
from distilabel_openai_batch.api.size_limits import ROWS_LIMIT
from distilabel_openai_batch.engine.adoption import Adopter
from distilabel_openai_batch.engine.run_errors import raises_run_errors
from distilabel_openai_batch.engine.scratch import scratch_file
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import SubmittedJob

# Names of other runs in the error for an unknown name.
_SUGGESTED_NAMES = 5


class Submission:
    """Rows and jobs of a submission, for one session.

    Args:
        api: the server.
        ledger: the ledger, opened for the submission's scope.
        adopter: lists the submission's batches on the server.
        directory: the directory of scratch files.
        metadata: the metadata of the session's batches; the id of the rows' file is added.
        logger: receives warnings.
        name: the name of the submission.
    """

    def __init__(
        self,
        api: BatchAPI,
        ledger: Ledger,
        adopter: Adopter,
        directory: Path,
        metadata: MutableMapping[str, str],
        logger: logging.Logger,
        name: str = "",
    ) -> None:
        self._name = name
        self._api = api
        self._ledger = ledger
        self._adopter = adopter
        self._directory = directory
        self._metadata = metadata
        self._logger = logger

    @raises_run_errors
    async def keep_rows(self, lines: Sequence[bytes], replace: bool = True) -> None:
        """Keep rows in the ledger and on the server; call this before any of their requests is submitted.

        Args:
            lines: the rows, each as JSON.
            replace: whether to replace rows that were submitted before. If not, earlier rows are kept, those of another
                machine too.

        Raises:
            LedgerError: the rows cannot be recorded.
            RunError: the server could not be asked for earlier rows.
        """
        kept, file_id = await (
            anyio.to_thread.run_sync(self._ledger.submissions.load_rows) if replace else self._load_rows()
        )
        if not kept or (replace and (kept != list(lines) or not file_id)):
            file_id = await self._upload_rows(lines)
            await anyio.to_thread.run_sync(self._ledger.submissions.keep_rows, lines, file_id)
        if file_id:
            self._metadata[ROWS_METADATA] = file_id

    async def _upload_rows(self, lines: Sequence[bytes]) -> str | None:
        """Upload rows, and return the id of their file; `None` if the server refuses."""
        with scratch_file(self._directory) as path:
            try:
                await anyio.to_thread.run_sync(path.write_bytes, b"".join(line + b"\n" for line in lines))
                return await self._api.files.upload(path, f"distilabel-rows-{self._ledger.owner}.jsonl")
            except RunError as error:
                self._logger.warning(
                    f"⚠️ The rows could not be uploaded: {error} Only this machine's ledger has them, so the run can be"
                    " loaded only here."
                )
                return None

    @raises_run_errors
    async def rows(self) -> list[bytes]:
        """Return the submitted rows, each as JSON, from the ledger or else from the server.

        Raises:
            RunError: neither has the rows, or the server could not be reached.
        """
        lines, _ = await self._load_rows()
        if not lines:
            raise RunError(
                f"The rows of the run '{self._name}' are neither in the ledger nor on the server."
                f" {await self._explain_missing_run()}"
            )
        return lines

    async def _load_rows(self) -> tuple[list[bytes], str | None]:
        """Return the rows that were submitted before, and the id of their file on the server."""
        lines, file_id = await anyio.to_thread.run_sync(self._ledger.submissions.load_rows)
        if lines:
            return lines, file_id
        batches = sorted(await self._adopter.list_batches(), key=lambda batch: batch.created_at or 0.0)
        file_ids = [file_id for batch in batches if is_id(file_id := batch.metadata.get(ROWS_METADATA))]
        if not file_ids:
            return [], None
        with scratch_file(self._directory) as path:
            await self._api.files.download(file_ids[-1], path, ROWS_LIMIT)
            lines = [line for line in path.read_bytes().split(b"\n") if line]
        await anyio.to_thread.run_sync(self._ledger.submissions.keep_rows, lines, file_ids[-1])
        return lines, file_ids[-1]

    async def _explain_missing_run(self) -> str:
        """Return a sentence on why the run may be missing: another server, another key, or a similar name."""
        runs = await anyio.to_thread.run_sync(self._ledger.submissions.list_runs)
        if base_urls := [base_url for name, base_url in runs if name == self._name]:
            return f"The run was submitted to {base_urls[-1]}. Is `base_url` set to this address?"
        batches = await self._api.list_last_month()
        names = {name for name, _ in runs} | {
            batch.metadata[RUN_METADATA] for batch in batches if RUN_METADATA in batch.metadata
        }
        if not names:
            return "They have no other runs either. Does the API key belong to the project that submitted the run?"
        nearest = difflib.get_close_matches(self._name, names, n=_SUGGESTED_NAMES, cutoff=0.0)
        return f"Nearest names of other runs: {', '.join(map(repr, nearest))}."

    @raises_run_errors
    async def jobs(self) -> list[SubmittedJob]:
        """Return the submitted jobs."""
        return await anyio.to_thread.run_sync(self._ledger.submissions.list_jobs)

    @raises_run_errors
    async def name_of(self, batch_id: str) -> str:
        """Return the name of the run that submitted a batch.

        Raises:
            RunError: neither the ledger nor the batch has the name, or the server could not be reached.
        """
        name = await anyio.to_thread.run_sync(self._ledger.submissions.find_run, batch_id)
        name = name or (await self._api.retrieve(batch_id)).metadata.get(RUN_METADATA)
        if not name:
            raise RunError(
                f"Neither the ledger nor batch {batch_id} has the name of a run. Only batches that SubmitBatch created"
                " can be loaded.",
                batch_id=batch_id,
            )
        return name
