"""Creation of a batch exactly once, although its reply may be lost."""

from __future__ import annotations

import time
from collections import deque

import anyio

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.adapters import BatchOrder
from distilabel_openai_batch.api.batch_list import BatchList
from distilabel_openai_batch.api.batches import Batch, read_batch
from distilabel_openai_batch.api.files import FilesAPI, InputFileGoneError, is_input_file_refused
from distilabel_openai_batch.api.replies import json_object
from distilabel_openai_batch.api.transport import TransientError, Transport

CREATION_SECONDS = 60.0
"""Seconds after a lost reply during which the batch may still appear in the list; then it is created again."""

# Refusals of the input file before the server is searched for the file: eight seconds with the default pauses.
_REFUSALS_BEFORE_CHECK = 4
# Refusals of the input file before the creation is given up: five minutes with the default pauses.
_FILE_REFUSALS = 12

# https://platform.openai.com/docs/guides/batch#rate-limits
_CREATIONS_PER_HOUR = 2_000


class CreationLimit:
    """The limit of creations per hour that OpenAI sets."""

    def __init__(self) -> None:
        self._created_at: deque[float] = deque(maxlen=_CREATIONS_PER_HOUR)

    async def wait(self) -> None:
        """Wait until one more creation stays within the limit, and count that creation."""
        while len(self._created_at) == _CREATIONS_PER_HOUR:
            due_in = self._created_at[0] + 3_600.0 - time.monotonic()
            if due_in <= 0:
                break
            await anyio.sleep(due_in)
        self._created_at.append(time.monotonic())


class UnclearCreationError(errors.RunError):
    """Creation whose outcome is unknown, because the server's batches cannot be searched."""


def unclear_creation(reason: str) -> UnclearCreationError:
    """Return the error of a creation whose outcome is unknown.

    Args:
        reason: a sentence that says what happened to the creation.
    """
    return UnclearCreationError(
        f"{reason} This server does not list its batches, or lists them without metadata and input file, so the batch"
        " cannot be found. Its requests are not submitted again, because the requests may be billed already. The job"
        " stays open. If the server has no batch of the job, `distilabel-openai-batch forget SCOPE --lost` releases the"
        " requests; if the server's own pages show the batch, `distilabel-openai-batch adopt` records its results once"
        " the batch has ended."
    )


class Creation:
    """The attempts to create one batch.

    Args:
        transport: makes the calls.
        batch_list: searches for a batch whose reply was lost.
        files: looks for an input file that was refused.
        limit: the limit of creations per hour.
        order: the parameters of the batch.

    Attributes:
        started: the time of the first attempt, in seconds since the epoch.
    """

    def __init__(
        self, transport: Transport, batch_list: BatchList, files: FilesAPI, limit: CreationLimit, order: BatchOrder
    ) -> None:
        self._transport = transport
        self._list = batch_list
        self._files = files
        self._limit = limit
        self._order = order
        self.started = time.time()
        # Creations that may have succeeded; the failure of the last of them, and its time.
        self._possible_creations = 0
        self._failure = TransientError("")
        self._failed_at = 0.0
        self._file_refusals = 0

    @property
    def may_be_duplicated(self) -> bool:
        """Return whether the server may have created more than one batch."""
        return self._possible_creations > 1

    async def attempt(self) -> Batch:
        """Create the batch; first search for it if the reply to an earlier attempt was lost.

        Raises:
            UnclearCreationError: the reply was lost, and the server cannot be searched.
            InputFileGoneError: the server no longer has the input file.
            RunError: the server refuses the batch.
            TransientError: another attempt may create or find the batch.
        """
        if self._possible_creations and (batch := await self._find_lost()):
            return batch
        await self._limit.wait()
        try:
            batch = await self._transport.call(self._create)
        except TransientError as error:
            if not error.did_nothing:
                self._possible_creations += 1
                self._failure, self._failed_at = error, time.monotonic()
            raise
        except errors.RunError as error:
            if is_input_file_refused(error, self._order.input_file_id):
                await self._check_input_file(error)
            raise
        self._possible_creations += 1
        return batch

    async def _check_input_file(self, refusal: errors.RunError) -> None:
        """Raise unless the refusal of the input file is final.

        Raises:
            InputFileGoneError: the server no longer has the file.
            TransientError: the file may only not be visible everywhere yet.
        """
        self._file_refusals += 1
        file_id = self._order.input_file_id
        if self._file_refusals > _REFUSALS_BEFORE_CHECK and not await self._files.exists(file_id):
            gone = InputFileGoneError(str(refusal), status_code=refusal.status_code, code=refusal.code)
            gone.did_nothing = True
            raise gone from None
        if self._file_refusals < _FILE_REFUSALS:
            raise TransientError(str(refusal), did_nothing=True) from None

    async def _find_lost(self) -> Batch | None:
        """Return the batch whose reply was lost; `None` if it may be created again."""
        failure = self._failure
        if batch := await self._list.find(self._order.key, self._order.input_file_id, self.started):
            self._transport.logger.warning(
                f"The reply to a batch's creation was lost; found batch {batch.id} on the server."
            )
            return batch
        if not self._list.is_searchable:
            raise unclear_creation(f"The reply to a batch's creation was lost ({str(failure).rstrip('.')}).")
        # A gateway may complete a creation after it has reported a time-out → wait before the next creation. A server
        # that sent a reply has finished → wait half as long, so that a second such reply is reported within a minute.
        wait = CREATION_SECONDS / 2 if failure.is_unexpected_reply else CREATION_SECONDS
        if time.monotonic() - self._failed_at < wait:
            reason = f" {failure}" if failure.is_unexpected_reply else ""
            raise TransientError(
                f"The reply to its creation was lost, and the batch is not in the list yet.{reason}",
                did_nothing=True,
                is_unexpected_reply=failure.is_unexpected_reply,
                status_code=failure.status_code,
            )
        return None

    async def _create(self) -> Batch:
        response = await self._transport.adapter.create(self._transport.client, self._order)
        return read_batch(json_object(response, wrapper="job"))
