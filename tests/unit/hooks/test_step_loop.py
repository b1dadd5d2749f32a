"""Tests of the loop of a step with a client, run in a thread of the test."""

from __future__ import annotations

import contextlib
import threading
import time
from queue import Empty, Queue

import anyio
import greenback
import pytest
from distilabel.constants import LAST_BATCH_SENT_FLAG
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError, NoGenerationsError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks import step_loop, stopping
from distilabel_openai_batch.hooks.packed_batches import pack_rows, unpack_rows
from distilabel_openai_batch.hooks.step_loop import Release, StepWaits

SECONDS = 10.0
"""Seconds to wait for a message; a message that arrives is not waited for."""


class Session:
    """A session that answers when the test says so."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.is_busy = False

    def hold(self):
        if not self.events or self.events[-1] != "hold":
            self.events.append("hold")

    def release(self, more_may_come=False):
        self.events.append("release for now" if more_may_come else "release")

    async def wait_until_idle(self):
        while self.is_busy:
            await anyio.sleep(0.01)


class Waits(TextGeneration):
    """A Task that waits for the answer of the test to each batch."""

    def process(self, inputs):
        [row] = inputs
        if error := row.get("error"):
            raise error
        while row["id"] not in ANSWERED:
            greenback.await_(anyio.sleep(0.01))
        if "has_generation" in row:
            log = CallLog.active()
            log.add([])
            log.has_generation = row["has_generation"]
        yield [row | {"generation": "Yes.", "model_name": "model"}]


ANSWERED: set[int] = set()
"""Numbers of the batches that the test has answered."""


class Loop:
    """A step's loop in a thread, and both ends of the step's queues."""

    def __init__(self, monkeypatch) -> None:
        self.session = Session()
        llm = OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused")
        monkeypatch.setattr(OpenAIBatchLLM, "session", lambda _self: contextlib.nullcontext(self.session))
        monkeypatch.setattr(_StepWrapper, "_send_batch", self._send_batch)
        self.inputs, self.outputs, self.load = Queue(), Queue(), Queue()
        self.wrapper = _StepWrapper(Waits(name="waits", llm=llm), 0, self.inputs, self.outputs, self.load)
        self.wrapper.step.load()
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    @staticmethod
    def _send_batch(wrapper, batch) -> None:
        assert type(batch.data) is bytes, "a batch may wait for the queue"
        unpack_rows(batch)
        wrapper.output_queue.put((batch.seq_no, batch.data[0]))

    def _run(self) -> None:
        try:
            self.wrapper._non_generator_process_loop()
        except Exception as error:
            self.error = error

    def start(self, *messages) -> Loop:
        for message in messages:
            self.inputs.put(message)
        self.thread.start()
        return self

    def next(self):
        return self.outputs.get(timeout=SECONDS)

    def end(self) -> None:
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def loop(monkeypatch):
    ANSWERED.clear()
    yield Loop(monkeypatch)
    stopping._is_child = False


def batch(number: int, last: bool = False, **row) -> _Batch:
    return _Batch(number, "waits", last_batch=last, data=[[{"id": number, "instruction": "Say it."} | row]])


def test_batches_run_at_the_same_time_and_are_sent_in_order(loop):
    loop.start(batch(0), batch(1), batch(2, last=True))
    assert loop.next() == StepWaits("waits", 3)
    ANSWERED.update({1, 2})
    ANSWERED.update({0})
    assert [loop.next()[0] for _ in range(3)] == [0, 1, 2]
    loop.end()
    assert loop.error is None
    assert loop.session.events == ["hold", "release"]


def test_packed_rows_are_processed_and_sent(loop):
    packed = batch(0, last=True)
    pack_rows(packed)
    ANSWERED.update({0})
    loop.start(packed)
    assert loop.next() == (0, [{"id": 0, "instruction": "Say it.", "generation": "Yes.", "model_name": "model"}])
    loop.end()


def test_a_batch_is_sent_while_others_wait(loop):
    loop.start(batch(0), batch(1))
    assert loop.next() == StepWaits("waits", 2)
    ANSWERED.update({0})
    assert loop.next()[0] == 0
    assert loop.next() == StepWaits("waits", 2)
    loop.inputs.put(batch(2, last=True))
    assert loop.next() == StepWaits("waits", 3)
    ANSWERED.update({1, 2})
    assert [loop.next()[0] for _ in range(2)] == [1, 2]
    loop.end()


def test_requests_are_held_until_no_rows_are_on_their_way(loop):
    """A release that is older than the newest batch does not count."""
    loop.start(batch(0))
    assert loop.next() == StepWaits("waits", 1)
    assert loop.session.events == ["hold"]
    loop.inputs.put(Release(1))
    loop.inputs.put(batch(1))
    assert loop.next() == StepWaits("waits", 2)
    assert loop.session.events == ["hold", "release for now", "hold"]
    loop.inputs.put(Release(1))
    loop.inputs.put(LAST_BATCH_SENT_FLAG)
    ANSWERED.update({0, 1})
    assert [loop.next()[0] for _ in range(2)] == [0, 1]
    loop.end()
    assert loop.session.events == ["hold", "release for now", "hold", "release"]


def test_local_work_is_no_waiting(loop):
    """While results are read, rows are about to follow."""
    loop.session.is_busy = True
    loop.start(batch(0))
    with pytest.raises(Empty):
        loop.outputs.get(timeout=0.3)
    loop.session.is_busy = False
    assert loop.next() == StepWaits("waits", 1)
    loop.inputs.put(None)
    ANSWERED.add(0)
    loop.end()


def test_the_last_group_may_end_while_a_report_is_made(loop, monkeypatch):
    """The step ends between the last wait of the report and its message."""
    ending = step_loop.StepLoop(loop.wrapper, loop.wrapper.step.llm)

    async def end() -> None:
        ending._reporting.cancel()
        ending._outbox.close()

    async def report() -> int:
        ending._changed, ending._reporting = anyio.Event(), anyio.CancelScope()
        ending._outbox, outbox = anyio.create_memory_object_stream(1)
        ending._changed.set()
        await ending._report_waiting(loop.session)
        return outbox.statistics().current_buffer_used

    monkeypatch.setattr(step_loop, "_QUIET_SECONDS", 0)
    monkeypatch.setattr(anyio, "wait_all_tasks_blocked", end)
    assert anyio.run(report) == 0


@pytest.mark.parametrize("message", [None, LAST_BATCH_SENT_FLAG])
def test_batches_in_progress_are_ended_when_no_more_follow(loop, message):
    loop.start(batch(0), message)
    assert loop.next() == StepWaits("waits", 1)
    while loop.session.events[-1:] != ["release"]:
        time.sleep(0.01)
    ANSWERED.update({0})
    assert loop.next()[0] == 0
    loop.end()
    assert loop.error is None


def test_rows_without_a_generation_wait_for_the_first_generation(loop):
    """The next Task is billed for no row before the Task has one generation."""
    loop.wrapper.step.llm.begin_run(("waits", "judge"), ("judge",))
    loop.start(batch(0, has_generation=False), batch(1, has_generation=True), batch(2, last=True, has_generation=False))
    assert loop.next() == StepWaits("waits", 3)
    ANSWERED.update({0, 2})
    assert loop.next() == StepWaits("waits", 3)
    ANSWERED.add(1)
    assert [loop.next()[0] for _ in range(3)] == [0, 1, 2]
    loop.end()
    assert loop.error is None


def test_a_task_without_any_generation_ends_the_run_and_sends_no_rows(loop):
    loop.wrapper.step.llm.begin_run(("waits", "judge"), ("judge",))
    loop.start(*(batch(number, has_generation=False) for number in range(10)))
    assert loop.next() == StepWaits("waits", 10)
    ANSWERED.update(range(10))
    loop.end()
    assert isinstance(loop.error.subprocess_exception, NoGenerationsError)
    assert loop.outputs.empty()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AuthenticationError("The key was withdrawn."), "The key was withdrawn."),
        (None, r"unexpected EOFError: The queue is gone\. Answers received so far are in the ledger"),
    ],
)
def test_an_error_ends_the_step_which_sends_no_rows(loop, monkeypatch, error, message):
    """The error is one of the run, whatever its type."""
    loop.start(batch(0))
    assert loop.next() == StepWaits("waits", 1)
    if error:
        loop.inputs.put(batch(1, error=error))
    else:
        monkeypatch.setattr(step_loop.StepLoop, "_start", raise_error)
        loop.inputs.put(batch(1))
    loop.end()
    assert isinstance(loop.error, _StepWrapperException)
    assert isinstance(loop.error.subprocess_exception, RunError)
    with pytest.raises(RunError, match=message):
        raise loop.error.subprocess_exception
    assert loop.load.get(timeout=SECONDS) == {"name": "waits", "status": "unloaded"}


def raise_error(self, batch):
    raise EOFError("The queue is gone.")
