"""The server's list of batches: its pages, and the search for one batch."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch, read_batch
from distilabel_openai_batch.api.replies import UnexpectedReplyError, json_list
from distilabel_openai_batch.api.transport import PATH_UNKNOWN, Transport

# Maximum of seconds by which the clocks of client and server may disagree when batches are searched by age.
_CLOCK_SKEW_SECONDS = 3_600.0
# Seconds after which a list shows a new batch.
_LISTED_SECONDS = 25.0


class BatchList:
    """The batches that a server lists.

    Args:
        transport: makes the calls.

    Attributes:
        is_supported: whether the server lists its batches, as far as is known: `False` after the first refusal.
        is_anonymous: whether a search met a recent batch without metadata and without its input file.
        is_always_empty: whether a search met an empty list half a minute after the server had shown a batch.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.is_supported = True
        self.is_anonymous = False
        self.is_always_empty = False
        self._first_shown_at: float | None = None

    @property
    def is_searchable(self) -> bool:
        """Return whether a search that finds no batch shows that there is none."""
        return self.is_supported and not self.is_anonymous and not self.is_always_empty

    def note_batch(self) -> None:
        """Note that the server has shown a batch, which a list must contain from now on."""
        if self._first_shown_at is None:
            self._first_shown_at = time.monotonic()

    async def page(self, after: str | None = None) -> list[Batch]:
        """Return up to 100 batches by one call; none if the server does not list its batches.

        Args:
            after: the id of the last batch of the page before.

        Raises:
            RunError: the server refuses the call.
            TransientError: the call may succeed if it is repeated.
        """

        async def page() -> list[Batch]:
            response = await self._transport.adapter.list_page(self._transport.client, after)
            batches = json_list(response)
            if batches is None:
                raise UnexpectedReplyError("a list of batches", response.content)
            return [replace(batch, is_listed=True) for batch in _read_batches(batches)]

        try:
            return await self._transport.call(page)
        except errors.RunError as error:
            if error.status_code not in PATH_UNKNOWN:
                raise
            # The first creation warns about it: with a wrong address an upload fails before.
            self.is_supported = False
            return []

    async def since(self, earliest: float) -> AsyncIterator[Batch]:
        """Yield the batches in the server's order; if that is newest first, stop at a time.

        Args:
            earliest: the time, in seconds since the epoch.
        """
        after: str | None = None
        last_ids: set[str] = set()
        while self.is_supported:
            page = await self.page(after)
            if not page and after is None and self._first_shown_at is not None:
                # batchlane's gateway has no list, and answers with an empty one.
                self.is_always_empty = time.monotonic() - self._first_shown_at > _LISTED_SECONDS
            for batch in page:
                yield batch
            # A server that ignores `after` sends its first page forever → stop at a repeated page.
            if not page or page[-1].id in last_ids:
                return
            first, last = page[0].created_at or 0.0, page[-1].created_at or 0.0
            # A server that lists the oldest first has the newest batches on its last page → stop only if times fall.
            if last <= first and last < earliest - _CLOCK_SKEW_SECONDS:
                return
            after = page[-1].id
            last_ids.add(after)

    async def find(self, key: str, input_file_id: str | None, since: float) -> Batch | None:
        """Return the batch that was created with a key; prefer one that is not cancelled.

        Args:
            key: the value of `KEY_METADATA`.
            input_file_id: the input file, by which the batch is found if the server drops metadata.
            since: the earliest time of the creation, in seconds since the epoch.

        Returns:
            The batch; `None` if there is none, or the server does not list its batches.
        """
        cancelled_batch: Batch | None = None
        async for batch in self.created_with(key, input_file_id, since):
            # Duplicates left by a retried create are cancelled → prefer a live batch.
            if not batch.is_cancelled:
                return batch
            cancelled_batch = cancelled_batch or batch
        return cancelled_batch

    async def created_with(self, key: str, input_file_id: str | None, since: float) -> AsyncIterator[Batch]:
        """Yield all batches that were created with a key; see `find` for the arguments."""
        async for batch in self.since(since):
            is_recent = batch.created_at is None or batch.created_at >= since - _CLOCK_SKEW_SECONDS
            if is_recent and not batch.metadata and not batch.input_file_id:
                self.is_anonymous = True
            # The server dropped the metadata → compare the input file. Only rejected batches share their input file
            # with another batch.
            has_file = input_file_id and not batch.metadata and batch.input_file_id == input_file_id
            if batch.metadata.get(KEY_METADATA) == key or (has_file and batch.status != "failed"):
                yield batch


def _read_batches(listed: list[object]) -> list[Batch]:
    """Return the batches of a page; an entry that is no batch costs only itself.

    Raises:
        UnexpectedReplyError: no entry is a batch.
    """
    entries = [entry for entry in listed if isinstance(entry, dict)]
    batches = [batch for entry in entries if (batch := _try_read(entry))]
    if entries and not batches:
        raise UnexpectedReplyError("a list of batches", listed)
    return batches


def _try_read(entry: dict[str, object]) -> Batch | None:
    try:
        return read_batch(entry)
    except UnexpectedReplyError:
        return None
