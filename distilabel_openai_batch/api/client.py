"""The Batch API of one server: create, find, poll and cancel batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

import anyio
import openai

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.adapters import AzureAdapter, BatchOrder, find_adapter
from distilabel_openai_batch.api.batch_list import BatchList
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch, read_batch
from distilabel_openai_batch.api.creation import Creation, CreationLimit, unclear_creation
from distilabel_openai_batch.api.extra_fields import NO_EXTRA_FIELDS, ExtraFields
from distilabel_openai_batch.api.files import FilesAPI
from distilabel_openai_batch.api.lasting_failures import LastingFailureError
from distilabel_openai_batch.api.replies import json_object
from distilabel_openai_batch.api.retention import DEFAULT_RETENTION, Retention
from distilabel_openai_batch.api.sync_api import SyncAPI
from distilabel_openai_batch.api.transport import Patience, TransientError, Transport, error_code

# OpenAI deletes a batch's files after thirty days. https://platform.openai.com/docs/guides/batch
_FILES_KEPT_SECONDS = 30 * 86_400.0

FILE_IDS_SECONDS = 300.0
"""Seconds to wait for the output file of a batch that counts answers.

Gateways show the counts of an ended batch some polls before its file ids (LiteLLM issue 37713).
"""

BATCH_VISIBLE_SECONDS = 120.0
"""Seconds during which a server may not know a batch that it has shown before.

A server of several replicas knows a new batch on some of them (anthropic-sdk-python issue 1432).
"""

_FILE_ID_PAUSES = Patience(first=1.0, longest=30.0)


class BatchAPI:
    """The Batch API of one server, and its synchronous endpoints.

    Args:
        client: the SDK's client, used with its own retries switched off.
        patience: pauses and number of the attempts of a failing call.
        logger: the logger of failed attempts and of features that the server lacks.
        retention: the expiry of files.
        extra_fields: extra fields of uploads and creations.
        batch_api: the name of the adapter for the server's shape of the API; `None` for the adapter of the host.

    Attributes:
        files: the server's files.
        input_line: returns a request's line of an input file.
        sync: the server's synchronous endpoints.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        patience: Patience,
        logger: logging.Logger,
        retention: Retention = DEFAULT_RETENTION,
        extra_fields: ExtraFields = NO_EXTRA_FIELDS,
        batch_api: str | None = None,
    ) -> None:
        adapter = find_adapter(str(client.base_url), batch_api)
        self._transport = Transport(client, patience, logger, extra_fields.secrets, adapter)
        self.is_azure = isinstance(client, openai.AsyncAzureOpenAI) or isinstance(adapter, AzureAdapter)
        self.input_line = adapter.input_line
        self._list = BatchList(self._transport)
        self._creation_limit = CreationLimit()
        self._logger = logger
        self._warnings: set[str] = set()
        self._retention = retention
        self._list_fails = False
        self._shown_batches: set[str] = set()
        self._extra_fields = extra_fields.creation
        self.files = FilesAPI(self._transport, retention, extra_fields.upload)
        self.sync = SyncAPI(self._transport)

    async def create(
        self, input_file_id: str, endpoint: str, completion_window: str, key: str, metadata: Mapping[str, str]
    ) -> Batch:
        """Create a batch exactly once; if the reply is lost, search for the batch before it is created again.

        Args:
            input_file_id: the id that `files.upload` returned.
            endpoint: the path of all its requests (`"/v1/chat/completions"`).
            completion_window: the API's parameter (`"24h"`).
            key: a text that no other batch has. The metadata hold it, so that a batch whose reply was lost is found.
            metadata: further metadata.

        Raises:
            RunError: the server refuses the batch or could not be reached.
        """
        order = BatchOrder(
            input_file_id, endpoint, completion_window, key, metadata, self._retention, self._extra_fields
        )
        creation = Creation(self._transport, self._list, self.files, self._creation_limit, order)
        batch = await self._transport.retry("create a batch", creation.attempt)
        self._shown_batches.add(batch.id)
        self._list.note_batch()
        if creation.may_be_duplicated:
            batch = await self._cancel_duplicates(batch, order, since=creation.started)
        if KEY_METADATA not in batch.metadata:
            self._warn(
                "This server drops a batch's metadata: jobs that are not in this machine's ledger cannot be found on"
                " the server, and would be submitted and billed again."
            )
        if not self._list.is_supported:
            self._warn(
                "This server does not list its batches: if this machine's ledger is lost, its batches cannot be found"
                " again, and are submitted and billed a second time. If the reply to a creation is lost, the run ends"
                " with an error."
            )
        return batch

    async def _cancel_duplicates(self, batch: Batch, order: BatchOrder, since: float) -> Batch:
        """Cancel all but the oldest of the batches with a key, because a repeated creation may have made several.

        Returns:
            The batch that is left. If the server refuses to list or to cancel, there may be others.
        """

        async def search() -> list[Batch]:
            return [other async for other in self._list.created_with(order.key, order.input_file_id, since)]

        kept_batch = batch
        try:
            batches = await self._transport.retry("find a batch", search)
            candidates = {other.id: other for other in batches if other.status != "failed" and not other.is_cancelled}
            candidates[batch.id] = batch
            kept_batch, *duplicates = sorted(candidates.values(), key=lambda b: (b.created_at or 0.0, b.id != batch.id))
            for duplicate in duplicates:
                self._logger.warning(
                    f"A creation whose reply was lost succeeded after it was repeated. Batch {kept_batch.id} is kept,"
                    f" and batch {duplicate.id}, which has the same requests, is cancelled."
                )
                await self.cancel(duplicate.id)
        except errors.RunError as error:
            self._logger.warning(f"Batch {kept_batch.id} may have been created twice: {error}")
        return kept_batch

    def _warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.add(text)
            self._logger.warning(text)

    async def find(self, key: str, input_file_id: str | None, since: float) -> Batch | None:
        """Search the server for a batch that may have been created.

        Args:
            key: the key of its creation.
            input_file_id: its input file, by which the batch is found if the server drops metadata.
            since: the earliest time of its creation, in seconds since the epoch.

        Returns:
            The batch; `None` if there is none. Without an input file there is none.

        Raises:
            UnclearCreationError: there is none in the list, and the list cannot be searched.
            RunError: the server refuses or could not be reached.
        """
        batch = await self._transport.retry("find a batch", lambda: self._list.find(key, input_file_id, since))
        if not batch and input_file_id and not self._list.is_searchable:
            raise unclear_creation(f"A run ended while it created a batch of file {input_file_id}.")
        return batch

    async def list_last_month(self) -> list[Batch]:
        """List the batches that are young enough to have their files, if the server lists batches.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        since = time.time() - _FILES_KEPT_SECONDS

        async def attempt() -> list[Batch]:
            return [batch async for batch in self._list.since(since)]

        return await self._transport.retry("list the batches", attempt)

    async def can_list_batches(self) -> bool:
        """Return whether the server lists its batches, by one call.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        await self._transport.retry("list the batches", self._list.page)
        return self._list.is_supported

    async def retrieve(self, batch_id: str) -> Batch:
        """Poll a batch.

        Raises:
            RunError: the server refuses, does not know the batch, or could not be reached.
        """
        started = time.monotonic()

        async def attempt() -> Batch:
            try:
                return await self._transport.call(retrieve)
            except errors.RunError as error:
                is_shown = batch_id in self._shown_batches
                if error.status_code == 404 and is_shown and time.monotonic() - started < BATCH_VISIBLE_SECONDS:
                    raise TransientError(str(error), did_nothing=True) from None
                raise

        async def retrieve() -> Batch:
            batch = read_batch(json_object(await self._transport.raw_client.batches.retrieve(batch_id)))
            # A gateway may reply with the id of the server behind it, which the gateway does not know → keep our id.
            return replace(batch, id=batch_id)

        try:
            batch = await self._transport.retry(f"poll batch {batch_id}", attempt)
        except errors.RunError as error:
            if error.status_code != 404:
                raise
            raise errors.RunError(
                f"The server does not know batch {batch_id}: {error}. Does the key belong to another project? If the"
                " batch is gone for good, `distilabel-openai-batch forget SCOPE --lost` releases its requests; the next"
                " run submits them again.",
                status_code=404,
                code=error.code,
                batch_id=batch_id,
            ) from None
        self._shown_batches.add(batch_id)
        self._list.note_batch()
        return batch

    async def wait_for_output_file(self, batch: Batch) -> Batch:
        """Poll an ended batch that counts answers until the batch shows its output file, for some minutes.

        A batch from the server's list is polled at least once, because gateways list ids of files that they do not
        serve (LiteLLM pull request 36049).

        Returns:
            The batch as it was last polled.

        Raises:
            RunError: the server refuses, does not know the batch, or could not be reached.
        """
        if batch.is_listed:
            shown = await self.retrieve(batch.id)
            batch = shown if shown.has_ended or shown.apparent_end else batch
        started, polls = time.monotonic(), 0
        while batch.lacks_output_file and time.monotonic() - started < FILE_IDS_SECONDS:
            polls += 1
            await anyio.sleep(_FILE_ID_PAUSES.pause(polls))
            batch = await self.retrieve(batch.id)
        return batch

    async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
        """Poll several batches by one call if the server lists batches; poll each batch that the list lacks.

        Returns:
            The batches by their ids.

        Raises:
            RunError: the server refuses, does not know a batch, or could not be reached.
        """

        async def list_page() -> list[Batch]:
            try:
                return await self._list.page()
            except TransientError as error:
                # A server may poll well and answer something else to the list → poll each batch.
                if error.is_unexpected_reply:
                    return []
                raise

        found: dict[str, Batch] = {}
        if len(batch_ids) > 1 and self._list.is_supported and not self._list_fails:
            try:
                page = await self._transport.retry("poll the batches", list_page)
            except LastingFailureError:
                # The list alone fails lastingly → poll each batch from now on.
                self._list_fails, page = True, []
            found = {batch.id: batch for batch in page if batch.id in batch_ids}
        for batch_id in batch_ids - found.keys():
            found[batch_id] = await self.retrieve(batch_id)
        return found

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch; a batch that has ended stays unchanged.

        Raises:
            RunError: the server rejects the key or could not be reached.
        """

        async def attempt() -> None:
            try:
                await self._transport.client.batches.cancel(batch_id)
            except openai.APIStatusError as error:
                if error.status_code not in (400, 404, 409) or errors.is_out_of_quota(error_code(error)):
                    raise

        await self._transport.retry(f"cancel batch {batch_id}", attempt)
