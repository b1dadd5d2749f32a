"""Creation of a batch exactly once, although its reply may be lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batch_list import BatchList
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch, read_batch
from distilabel_openai_batch.api.files import FILE_VISIBLE_SECONDS, is_file_not_visible
from distilabel_openai_batch.api.transport import TransientError, Transport, json_object

CREATION_SECONDS = 60.0
"""Seconds after a lost reply during which the batch may still appear in the list; then it is created again."""

# https://platform.openai.com/docs/guides/batch#rate-limits
_CREATIONS_PER_HOUR = 2_000


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """The parameters of one batch.

    Attributes:
        input_file_id: the id that `FilesAPI.upload` returned.
        endpoint: the path of all its requests (`"/v1/chat/completions"`).
        completion_window: the API's parameter (`"24h"`).
        key: a text that no other batch has. The metadata hold it, so that a batch whose reply was lost is found.
        metadata: further metadata.
    """

    input_file_id: str
    endpoint: str
    completion_window: str
    key: str
    metadata: Mapping[str, str]


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


class Creation:
    """The attempts to create one batch.

    Args:
        transport: makes the calls.
        batch_list: searches for a batch whose reply was lost.
        limit: the limit of creations per hour.
        order: the parameters of the batch.

    Attributes:
        started: the time of the first attempt, in seconds since the epoch.
    """

    def __init__(self, transport: Transport, batch_list: BatchList, limit: CreationLimit, order: BatchOrder) -> None:
        self._transport = transport
        self._list = batch_list
        self._limit = limit
        self._order = order
        self.started = time.time()
        # Creations that may have succeeded, and the time at which the last of them failed.
        self._possible_creations = 0
        self._failed_at = 0.0

    @property
    def may_be_duplicated(self) -> bool:
        """Return whether the server may have created more than one batch."""
        return self._possible_creations > 1

    async def attempt(self) -> Batch:
        """Create the batch; first search for it if the reply to an earlier attempt was lost.

        Raises:
            RunError: the server refuses the batch.
            TransientError: another attempt may create or find the batch.
        """
        if self._possible_creations:
            if batch := await self._list.find(self._order.key, self._order.input_file_id, self.started):
                self._transport.logger.warning(
                    f"The reply to a batch's creation was lost; found batch {batch.id} on the server."
                )
                return batch
            # A gateway may complete a creation after it has reported a time-out → wait before the next creation.
            if self._list.is_supported and time.monotonic() - self._failed_at < CREATION_SECONDS:
                raise TransientError(
                    "The reply to its creation was lost, and the batch is not in the list yet.", did_nothing=True
                )
        await self._limit.wait()
        try:
            batch = await self._transport.call(self._create)
        except TransientError as error:
            if not error.did_nothing:
                self._possible_creations += 1
                self._failed_at = time.monotonic()
            raise
        except errors.RunError as error:
            if is_file_not_visible(str(error)) and time.time() - self.started < FILE_VISIBLE_SECONDS:
                raise TransientError(str(error), did_nothing=True) from None
            raise
        self._possible_creations += 1
        return batch

    async def _create(self) -> Batch:
        order = self._order
        response = await self._transport.raw_client.batches.create(
            input_file_id=order.input_file_id,
            endpoint=order.endpoint,  # type: ignore[arg-type]
            completion_window=order.completion_window,  # type: ignore[arg-type]
            metadata={KEY_METADATA: order.key, **order.metadata},
        )
        return read_batch(json_object(response))
