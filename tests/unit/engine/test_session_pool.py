"""Sessions of a process: opened for the first user, closed behind the last one, one for each event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from datetime import datetime

import anyio
import pytest

from distilabel_openai_batch import InternalError, LedgerError
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine import result_collector, session_pool
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import APICall, ScopeMemory, scope_memories
from distilabel_openai_batch.engine.deadlines import parse_deadline
from distilabel_openai_batch.engine.failure_log import FailureLog
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.scratch import BodyStore, StoredBody
from distilabel_openai_batch.engine.session import OutcomeReader, Session
from distilabel_openai_batch.engine.session_pool import Host, SessionPool
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.ledger.job_table import JobTable
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.request_table import RequestTable
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.environment import API_KEY

CHAT = "/v1/chat/completions"


class InterruptedRun(Exception):
    """Interruption of the process, with the batches in progress."""


class Recorder(Observer):
    """Observer that counts the sessions that have ended."""

    finished = 0

    def on_finished(self) -> None:
        self.finished += 1


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_pool(sandbox, tmp_path, recorder) -> Callable[..., SessionPool]:
    """Return a function that creates a pool on the sandbox."""
    scope_memories.clear()

    def make(interruption=lambda batch_ids: None, execution=lambda: None, **changes) -> SessionPool:
        values = {
            "base_url": sandbox.base_url,
            "api_key": API_KEY,
            "headers": None,
            "timeout": 5.0,
            "patience": Patience(retries=3),
            "max_requests": 1_000,
            "max_bytes": 1_000_000,
            "max_attempts": 3,
            "max_jobs": 3,
            "jobs": JobSettings("24h", PollSchedule(0.01, 0.02), {}),
            "ledger_dir": tmp_path / "ledger",
            "reuse_answers": True,
        }
        host = Host(
            logger=logging.getLogger("pool"),
            scope_name=lambda base_url: ScopeName("pool", "", base_url),
            observer=lambda scope: recorder,
            interruption=interruption,
            not_finished=lambda batch_ids: InterruptedError(*batch_ids),
            execution=execution,
        )
        return SessionPool(SessionSettings(**{**values, **changes}), host)

    return make


def make_calls(requests: int = 2) -> list[APICall]:
    return [
        APICall(CHAT, {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Say number {i}."}]})
        for i in range(requests)
    ]


async def test_users_share_a_session_until_the_last_one_leaves(make_pool, recorder):
    pool = make_pool()
    async with pool.use() as first:
        async with pool.use() as second:
            assert second is first
        assert recorder.finished == 0
    assert recorder.finished == 1
    async with pool.use() as third:
        assert third is not first
    assert recorder.finished == 2


def test_each_event_loop_has_a_session_of_its_own(make_pool):
    """distilabel runs the steps of a process in several threads."""
    pool, sessions, barrier = make_pool(), [], threading.Barrier(2)

    async def use() -> None:
        async with pool.use() as session:
            sessions.append(session)
            await asyncio.to_thread(barrier.wait, 10)

    threads = [threading.Thread(target=asyncio.run, args=[use()]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(session) for session in sessions}) == 2


async def test_every_user_gets_the_error_of_opening_a_session(make_pool, tmp_path):
    """The next user tries again."""
    (tmp_path / "file").write_text("")
    pool, errors = make_pool(ledger_dir=tmp_path / "file" / "ledger"), []

    async def use() -> None:
        try:
            async with pool.use():
                pytest.fail("The session was opened.")
        except LedgerError as error:
            errors.append(error)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(use)
        task_group.start_soon(use)
    await use()
    assert len(errors) == 3


def count_requests() -> int:
    """Return the number of requests in memory by their bodies: the garbage collector does not track a request."""
    return sum(type(tracked) is StoredBody for tracked in gc.get_objects())


async def test_answered_requests_are_freed_while_others_wait(make_pool, monkeypatch):
    """The requests of a job of 50,000 would take 300 bytes each until the job's last answer."""
    monkeypatch.setattr(result_collector, "_chunk_size", lambda paths, requests: 1)
    before, pool, left = count_requests(), make_pool(), []

    async def submit(call: APICall) -> None:
        async with pool.use() as session:
            await session.submit([call], OutcomeReader(lambda *_: left.append(count_requests() - before)))

    async with anyio.create_task_group() as task_group:
        for call in make_calls(5):
            task_group.start_soon(submit, call)
    assert len(left) == 5
    # The collector keeps the last answer until the job is marked; the caller before may end in the same turn.
    assert left[-1] <= 2


def no_more_inodes(*args, **kwargs):
    raise OSError(28, "No space left on device")


def no_more_threads(*args, **kwargs):
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("scratch_directory", no_more_inodes),
        ("BodyStore", no_more_inodes),
        ("sdk_client", no_more_threads),
        ("Ledger", no_more_threads),
        ("Dispatcher", no_more_threads),
    ],
)
async def test_an_exception_while_a_session_opens_reaches_every_user_as_a_run_error(
    make_pool, monkeypatch, name, failure
):
    """Without memory, threads or disk space a pipeline must end with an error, and not with an empty dataset."""
    pool = make_pool()
    with monkeypatch.context() as context:
        context.setattr(session_pool, name, failure)
        for _ in range(2):
            with pytest.raises(InternalError, match=r"No space left|can't start new thread") as caught:
                async with pool.use():
                    pytest.fail("The session was opened.")
            assert caught.value.__cause__ is not None
    async with pool.use() as session:
        outcomes = await session.submit(make_calls())
    assert all(isinstance(outcome, Answer) for outcome in outcomes)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RequestTable, "look_up_jobs"),
        (JobTable, "plan"),
        (JobTable, "mark_created"),
        (RequestTable, "record"),
        (JobTable, "mark_collected"),
        (BodyStore, "add"),
        (ScopeMemory, "acquire_custom_ids"),
        (CallBuffer, "_deliver"),
        (CallBuffer, "_flush"),
    ],
)
async def test_an_exception_of_any_part_reaches_every_caller_as_a_run_error(make_pool, monkeypatch, owner, name):
    """A caller gets neither `None`s nor an endless wait; the next run has the answers that were recorded."""

    def fail(*args, **kwargs):
        raise MemoryError(name)

    errors, pool = [], make_pool()

    async def submit(call: APICall) -> None:
        with pytest.raises(InternalError, match=name) as caught:
            async with pool.use() as session:
                await session.submit([call])
        errors.append(caught.value)

    with monkeypatch.context() as context:
        context.setattr(owner, name, fail)
        async with anyio.create_task_group() as task_group:
            for call in make_calls(2):
                task_group.start_soon(submit, call)
    assert [type(error.__cause__) for error in errors] == [MemoryError, MemoryError]
    scope_memories.clear()
    async with make_pool().use() as session:
        assert all(isinstance(outcome, Answer) for outcome in await session.submit(make_calls()))


async def test_a_crashed_task_of_a_session_releases_the_waiting_callers(make_pool, sandbox):
    sandbox.configure(in_progress_seconds=600.0)

    def interruption(batch_ids):
        if batch_ids:
            raise ValueError("no such signal")

    async def submit() -> None:
        async with make_pool(interruption).use() as session:
            await session.submit(make_calls())

    with pytest.raises(InternalError, match="no such signal"):
        await submit()


async def test_a_cancelled_user_does_not_cancel_the_session(make_pool):
    pool, outcomes = make_pool(), []

    async def submit() -> None:
        async with pool.use() as session:
            outcomes.extend(await session.submit(make_calls()))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(submit)
        with anyio.move_on_after(0.01):
            async with pool.use():
                await anyio.sleep_forever()
    assert all(isinstance(outcome, Answer) for outcome in outcomes)


async def test_a_password_in_the_address_is_in_neither_the_session_nor_the_scope(make_pool, sandbox):
    address = sandbox.base_url.replace("http://", "http://user:password@")
    async with make_pool(base_url=address).use() as session:
        assert session.base_url == f"{sandbox.base_url}/"


async def next_occurrence(session: Session, tmp_path, call: APICall) -> int:
    """Return the occurrence number with which a run without reuse begins."""
    digest = call.build(session.base_url, CHAT)[1]
    ledger = Ledger(tmp_path / "ledger", ScopeName("pool", "", session.base_url))
    try:
        return ledger.requests.next_occurrence(digest)
    finally:
        ledger.close()


@pytest.mark.parametrize(("is_cancelled", "number"), [(False, 1), (True, 0)])
async def test_answers_count_as_delivered_unless_a_user_was_cancelled(make_pool, tmp_path, is_cancelled, number):
    """A cancelled caller may not have used its answers."""
    pool, [call] = make_pool(), make_calls(1)
    with anyio.CancelScope() as scope:
        async with pool.use() as session:
            await session.submit([call])
            if is_cancelled:
                scope.cancel()
                await anyio.sleep(0)
    assert await next_occurrence(session, tmp_path, call) == number


async def test_answers_of_another_run_do_not_count_as_delivered(make_pool, sandbox, tmp_path):
    """The other run was interrupted, and its answers were recorded meanwhile."""
    pool, calls = make_pool(), make_calls(2)
    async with pool.use() as session:
        await session.submit(calls[:1])
        other = Ledger(tmp_path / "ledger", ScopeName("pool", "", session.base_url))
        custom_id = f"{calls[1].build(session.base_url, CHAT)[1]}-0"
        other.adopted_jobs.add_ended(Batch("batch_x", "completed"), "key", [(custom_id, Answer.of({}))])
        other.close()
    assert [await next_occurrence(session, tmp_path, call) for call in calls] == [1, 0]


@pytest.mark.parametrize(
    ("executions", "billed"),
    [(["script", "script", "script"], 3), ([None, None, None], 3), (["cell 1", "cell 2", "cell 3"], 1)],
    ids=["calls in a script", "calls in a step", "cells of a notebook"],
)
async def test_equal_requests_of_a_run_differ_and_a_further_run_reuses_the_answers(
    make_pool, sandbox, executions, billed
):
    """A further pool, of another LLM object, is a further run too."""
    for _ in range(2):
        following = iter(executions)
        pool = make_pool(execution=lambda: next(following))  # noqa: B023
        for _ in executions:
            async with pool.use() as session:
                [outcome] = await session.submit(make_calls(1))
            assert isinstance(outcome, Answer)
    assert len(sandbox.books().billed) == billed


@pytest.mark.parametrize(
    "spelling", ["http://localhost", "HTTP://LOCALHOST", "http://user:password@127.0.0.1", "http://LocalHost"]
)
async def test_another_spelling_of_the_server_reuses_the_answers(make_pool, sandbox, spelling):
    for base_url in (sandbox.base_url, sandbox.base_url.replace("http://127.0.0.1", spelling), sandbox.base_url):
        async with make_pool(base_url=base_url).use() as session:
            assert session.base_url == f"{sandbox.base_url}/"
            await session.submit(make_calls(2))
    assert len(sandbox.books().batches) == 1


async def test_jobs_are_filled_to_their_bytes(make_pool, sandbox):
    """The order of the creations is not fixed."""
    calls = make_calls(5)
    line = len(calls[0].build("", CHAT)[0]) + 120
    async with make_pool(max_bytes=2 * line + line // 2).use() as session:
        await session.submit(calls)
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [1, 2, 2]


async def test_an_interruption_ends_the_run_with_the_batches_in_progress(make_pool, sandbox, monkeypatch):
    """Ctrl+C is noticed while the session waits for its batches."""
    monkeypatch.setattr(session_pool, "_INTERRUPTION_CHECK_SECONDS", 0.01)
    sandbox.configure(in_progress_seconds=600.0)
    pool = make_pool(lambda batch_ids: InterruptedRun(*batch_ids) if batch_ids else None, base_url=sandbox.base_url)

    async def submit() -> None:
        async with pool.use() as session:
            await session.submit(make_calls())

    with pytest.raises(InterruptedRun) as caught:
        await submit()
    assert caught.value.args == tuple(batch["id"] for batch in sandbox.books().batches)


@pytest.mark.parametrize("reuse_answers", [True, False])
async def test_the_server_is_searched_once_for_each_scope(make_pool, sandbox, reuse_answers):
    """A session that does not reuse answers skips the search, so a later session makes it."""
    for index, reuses in enumerate([reuse_answers, True, True]):
        async with make_pool(reuse_answers=reuses).use() as session:
            await session.submit(make_calls(3)[index : index + 1])
    searches = [call for call in sandbox.calls() if call.name == "batches.list" and "after" not in call.query]
    assert len(searches) == 1


async def test_each_execution_fixes_the_moment_of_a_time_of_the_day(make_pool, monkeypatch):
    """Two rounds of a cell have one deadline, and the same cell has another one on the next day."""
    now = datetime(2026, 11, 26, 20, 0).timestamp()
    monkeypatch.setattr("distilabel_openai_batch.engine.deadlines.time.time", lambda: now)
    execution = "cell 1"
    pool = make_pool(execution=lambda: execution, deadline=parse_deadline("06:00"))
    opened: list[SessionSettings] = []
    open_session = session_pool._open

    def note_settings(settings: SessionSettings, host: Host, memory: ScopeMemory):
        opened.append(settings)
        return open_session(settings, host, memory)

    monkeypatch.setattr(session_pool, "_open", note_settings)
    for name, hours in (("cell 1", 0), ("cell 1", 11), ("cell 2", 11)):
        execution, now = name, datetime(2026, 11, 26, 20, 0).timestamp() + hours * 3_600
        async with pool.use():
            pass
    moments = [datetime.fromtimestamp(settings.deadline.at) for settings in opened]
    assert moments == [datetime(2026, 11, 27, 6), datetime(2026, 11, 27, 6), datetime(2026, 11, 28, 6)]


@pytest.mark.parametrize("error", [LedgerError("The disk is full."), OSError("No space left")], ids=repr)
async def test_an_error_after_the_last_caller_is_logged(make_pool, monkeypatch, caplog, error):
    """The caller has its answers; the marks of delivered answers are lost."""

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(RequestTable, "mark_delivered", fail)
    async with make_pool().use() as session:
        outcomes = await session.submit(make_calls())
    assert [type(outcome) for outcome in outcomes] == [Answer, Answer]
    [line] = [line for line in caplog.messages if "after its last caller had left" in line]
    assert str(error) in line


async def test_failures_that_cannot_be_recorded_are_logged(make_pool, monkeypatch, caplog):
    def fail(*arguments: object) -> None:
        raise LedgerError("The disk is full.")

    monkeypatch.setattr(FailureLog, "record", fail)
    async with make_pool().use():
        pass
    assert "⚠️ The failures of rows are missing in the ledger: The disk is full." in caplog.messages


async def test_the_failures_of_all_sessions_of_a_run_are_those_of_its_last_run(make_pool, sandbox, tmp_path):
    """A script opens a session for each call of `generate`, and the last one has no failure."""
    sandbox.configure(failures=[RequestFailure(contains="number 1")])
    reader = LedgerReader(tmp_path / "ledger")

    async def submit(pool: SessionPool, *requests: int) -> list[bool]:
        for count in requests:
            async with pool.use() as session:
                await session.submit(make_calls(5)[count : count + 2])
        return [failure.is_of_last_run for failure in reader.failures(reader.scopes())]

    assert await submit(make_pool(), 0, 2) == [True]
    assert await submit(make_pool(), 3) == [False]
