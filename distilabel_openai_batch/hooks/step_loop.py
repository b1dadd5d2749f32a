"""Run a step with a client on many batches of rows at the same time.

distilabel runs a step on one batch after another, so each batch would be a job. Here the step's process reads its queue
while earlier batches wait for the server, and sends each batch's output, in order, as soon as the output is complete.

The pipeline's process knows which rows are on their way. `StepWaits` tells that process that the step has read all its
rows and waits; `Release` tells the step that no more rows are on their way for now, see `row_flow`.

Replaced: `_StepWrapper._non_generator_process_loop`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from distilabel.constants import LAST_BATCH_SENT_FLAG
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException

from distilabel_openai_batch.errors import RunError, as_run_error
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.packed_batches import pack_rows, unpack_rows
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_groups import RowGroups, Rows
from distilabel_openai_batch.hooks.step_process import PIPELINE_STOPPING_ERRORS, mark_stopped

_QUIET_SECONDS = 0.05
"""Seconds without new rows after which a step may report that it waits: a report looks at every row group."""


@dataclass(frozen=True, slots=True)
class StepWaits:
    """Message of a step to the pipeline: the step has read all its rows, and waits for the server or for rows.

    Attributes:
        step_name: the step's name.
        batches: number of batches that the step has read.
    """

    step_name: str
    batches: int

    @property
    def seq_no(self) -> int:
        """Return the number of batches: distilabel logs the `seq_no` of all that it receives."""
        return self.batches


@dataclass(frozen=True, slots=True)
class Release:
    """Message of the pipeline to a step: no more rows are on their way for now.

    Attributes:
        batches: number of batches that the pipeline had sent to the step.
    """

    batches: int


class StepLoop:
    """The loop of a step's process.

    Args:
        wrapper: distilabel's wrapper of the step, with the step's queues.
        client: the step's client.
    """

    def __init__(self, wrapper: Any, client: Any) -> None:
        self._wrapper = wrapper
        self._row_groups = RowGroups(wrapper.step, client, self._add_finished)
        self._batches: deque[Any] = deque()
        self._finished_rows: dict[int, Rows] = {}
        self._batches_read = 0
        self._error: Exception | None = None

    async def run(self) -> None:
        """Process batches until the last batch, or until the pipeline stops.

        Raises:
            RunError: the run cannot continue.
            DistilabelOfflineBatchGenerationNotFinishedException: the run stops before all jobs have ended.
        """
        self._changed = anyio.Event()
        self._reporting = anyio.CancelScope()
        self._outbox, outbox = anyio.create_memory_object_stream[Any](float("inf"))
        self._inbox, self._arrived = anyio.create_memory_object_stream[Any](float("inf"))
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._send, outbox)
            try:
                await self._row_groups.run(self._feed)
            except Exception as error:
                self._fail(error)
            self._reporting.cancel()
            self._outbox.close()
        if self._error:
            raise self._error

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._tasks.cancel_scope.cancel()

    async def _feed(self, session: Any) -> None:
        """Start a row group for each batch in the step's queue."""
        session.hold()
        threading.Thread(
            target=self._read_queue,
            args=(asyncio.get_running_loop(),),
            name="distilabel-openai-batch-rows",
            daemon=True,
        ).start()
        self._tasks.start_soon(self._report_waiting, session)
        async for message in self._arrived:
            if message is None or message == LAST_BATCH_SENT_FLAG:
                break
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Release):
                if message.batches == self._batches_read:
                    session.release(more_may_come=True)
                continue
            session.hold()
            self._start(message)
            if message.last_batch:
                break
        session.release()

    def _start(self, batch: Any) -> None:
        self._wrapper.step._logger.debug(f"📦 Processing batch {batch.seq_no} in '{batch.step_name}'")
        unpack_rows(batch)
        if batch.data_path is not None:
            batch.read_batch_data_from_fs()
        self._batches_read += 1
        self._batches.append(batch)
        # The row group alone keeps the input rows → the rows are released with the group.
        group, batch.data = tuple(batch.data), []
        self._row_groups.start(batch.seq_no, group)
        self._changed.set()

    def _read_queue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass the messages in the step's queue to the event loop, in a thread of its own."""
        is_last = False
        while not is_last:
            try:
                message = self._wrapper.input_queue.get()
            except Exception as error:
                message = error
            is_last = not isinstance(message, Release) and getattr(message, "last_batch", True)
            try:
                loop.call_soon_threadsafe(self._inbox.send_nowait, message)
            except RuntimeError:
                return  # the event loop has ended

    def _add_finished(self, index: int, rows: Rows) -> None:
        self._finished_rows[index] = rows
        if not self._row_groups.guard.holds_rows or self._may_send_without_generations():
            self._send_finished()
        self._changed.set()

    def _may_send_without_generations(self) -> bool:
        """Return whether rows may be sent although no row has a generation so far; end the step if they must not be.

        While a group is in progress, the rows of the others wait.
        """
        if len(self._finished_rows) < len(self._batches):
            return False
        try:
            self._row_groups.guard.check()
        except RunError as error:
            self._fail(error)
            return False
        return True

    def _send_finished(self) -> None:
        while self._batches and self._batches[0].seq_no in self._finished_rows:
            batch = self._batches.popleft()
            batch.set_data([self._finished_rows.pop(batch.seq_no)])
            # Batches may wait for the queue → packed rows take less memory.
            pack_rows(batch)
            self._outbox.send_nowait(batch)

    async def _send(self, outbox: Any) -> None:
        async for message in outbox:
            send = self._wrapper.output_queue.put if isinstance(message, StepWaits) else self._wrapper._send_batch
            try:
                await anyio.to_thread.run_sync(send, message)
            except Exception as error:
                self._fail(error)
                return

    async def _report_waiting(self, session: Any) -> None:
        """Report each time that the step has nothing to do before the server answers or rows arrive."""
        with self._reporting:
            while True:
                await self._changed.wait()
                while self._changed.is_set():
                    self._changed = anyio.Event()
                    await anyio.sleep(_QUIET_SECONDS)
                    await session.wait_until_idle()
                    await anyio.wait_all_tasks_blocked()
                if self._reporting.cancel_called:
                    # anyio lets a task whose wait is over go on until its next wait, and the outbox is closed by then.
                    return
                self._outbox.send_nowait(StepWaits(self._wrapper.step.name, self._batches_read))


@patch(_StepWrapper, "_non_generator_process_loop", parameters=["self"])
def _non_generator_process_loop(original: Any, self: Any) -> None:
    """Run a step with a client on many batches at the same time, see `StepLoop`.

    An error ends the step, which sends no more batches: distilabel would fill the rows of an ordinary step with `None`s
    and continue.
    """
    client = batch_client(self.step)
    if client is None:
        original(self)
        return
    try:
        anyio.run(StepLoop(self, client).run)
    except Exception as error:
        mark_stopped(self.step)
        if not isinstance(error, PIPELINE_STOPPING_ERRORS):
            self.step._logger.exception(f"Step '{self.step.name}' failed unexpectedly.")
            error = as_run_error(error)
        self.step.unload()
        self._notify_unload()
        raise _StepWrapperException(str(error), self.step, 2, error) from error
