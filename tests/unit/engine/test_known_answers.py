"""Answers of earlier runs to whole calls: found without a request, and reported like any others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import anyio
import orjson
import pytest
from anyio.abc import TaskGroup

from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Deliver, Outcome
from distilabel_openai_batch.api.requests import BodyTemplate, Request, Shard
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import APICall, CallGroup, ScopeMemory
from distilabel_openai_batch.engine.known_answers import MIN_REQUESTS, KnownAnswers
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.request_builder import RequestBuilder, join_digests
from distilabel_openai_batch.engine.session import OutcomeReader, Session, SessionParts
from distilabel_openai_batch.errors import QuotaError
from distilabel_openai_batch.ledger.packs import FirstOccurrences
from distilabel_openai_batch.ledger.states import JobState
from tests.unit.engine.conftest import SESSION_SETTINGS
from tests.unit.engine.fake_batch_api import FakeBatchAPI

URL = "https://api.example.com/v1/"
CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": ""}]}
TEMPLATE = BodyTemplate(BODY, "messages", None, ("user",))


class Recorder(Observer):
    """Observer that records the events of requests in their order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def on_requested(self, requests: int) -> None:
        self.events.append(("requested", requests))

    def on_answered(self, requests: int) -> None:
        self.events.append(("answered", requests))

    def on_reused(self, requests: int) -> None:
        self.events.append(("reused", requests))

    def on_batches_reused(self, batch_ids: Sequence[str]) -> None:
        self.events.append(("batches", [*batch_ids]))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_session(ledger, bodies, recorder) -> Callable[[TaskGroup], tuple[Session, SessionParts]]:
    """Return a function that opens the session of a process that begins now, whose buffer answers no request."""
    settings = replace(SESSION_SETTINGS, max_requests=10_000, max_bytes=10_000_000)

    def make(task_group: TaskGroup) -> tuple[Session, SessionParts]:
        activity, memory = Activity(), ScopeMemory()
        buffer = CallBuffer(keep, 10_000, 10_000_000, 1, lambda ids: InterruptedError(), task_group, recorder)
        traits = LearnedTraits(ledger.refused_parameters, bodies, recorder)
        builder = RequestBuilder(URL, settings, bodies, traits, AnswerSizes(), None)
        known = KnownAnswers(ledger, buffer, activity, recorder, memory)
        parts = SessionParts(
            buffer,
            builder,
            activity,
            ledger,
            recorder,
            memory,
            None,  # type: ignore[arg-type]
            traits,
            known_answers=known,
        )
        return Session(URL, settings, parts), parts

    return make


async def keep(requests: Sequence[Request], deliver: Deliver, since: float | None) -> list[str]:
    await anyio.sleep_forever()
    return []


async def flushed(parts: SessionParts, count: int) -> list[str]:
    """Wait until the buffer has flushed a number of requests, and return their `custom_id`s."""
    with anyio.fail_after(10):
        while len(names := [name for requests in parts.buffer._running.values() for name in requests]) < count:
            await anyio.sleep(0.001)
    return names


def make_calls(count: int, start: int = 0) -> CallGroup:
    chats = [[{"role": "user", "content": f"Say number {place}."}] for place in range(start, start + count)]
    return CallGroup(APICall(CHAT, BODY, template=TEMPLATE), chats)


def custom_ids_of(calls: CallGroup) -> FirstOccurrences:
    digests, _ = TEMPLATE.fill(calls.values, URL, CHAT)
    return FirstOccurrences(digests)


@pytest.fixture
def answer_in_earlier_run(ledger, leave_job) -> Callable[[CallGroup], list[Answer]]:
    """Return a function that records an answer to each call, as an earlier run did, and returns the answers."""

    def answer(calls: CallGroup) -> list[Answer]:
        names = [*custom_ids_of(calls)]
        shard = Shard.of([Request(name, CHAT, "m", b"{}") for name in names])
        job = leave_job(FakeBatchAPI(), JobState.ENDED, shard)
        answers = [Answer.of({"choices": [{"message": {"content": f"Answer to {name}."}}]}) for name in names]
        ledger.requests.record(ledger.requests.request_ids(job), dict(zip(names, answers, strict=True)))
        ledger.jobs.mark_collected(job, MISSING_RESULT)
        return answers

    return answer


async def test_answered_calls_need_no_request(make_session, recorder, answer_in_earlier_run):
    calls = make_calls(2 * MIN_REQUESTS)
    answers = answer_in_earlier_run(calls)
    names = [*custom_ids_of(calls)]
    read: list[tuple[int, Outcome, str | None]] = []
    found: dict[int, list[Outcome]] = {}

    async def submit(start: int) -> None:
        reader = OutcomeReader(lambda *values: read.append(values))
        found[start] = await session.submit([calls[start : start + MIN_REQUESTS]], reader)

    async with anyio.create_task_group() as task_group:
        session, parts = make_session(task_group)
        task_group.start_soon(submit, 0)
        task_group.start_soon(submit, MIN_REQUESTS)

    assert [*found[0], *found[MIN_REQUESTS]] == answers
    assert [answer for _, answer, _ in read] == answers
    assert [name for *_, name in read] == names
    assert [index for index, *_ in read] == [*range(MIN_REQUESTS)] * 2
    assert [*parts.buffer.delivered] == names
    assert parts.memory.has_compared
    assert recorder.events == [
        ("batches", ["batch_0"]),
        *[("requested", MIN_REQUESTS), ("answered", MIN_REQUESTS)] * 2,
        ("reused", 2 * MIN_REQUESTS),
    ]


@pytest.mark.parametrize(
    ("count", "start", "repeats"),
    [(MIN_REQUESTS - 1, 0, 1), (MIN_REQUESTS, 1, 1), (MIN_REQUESTS, 0, 2)],
    ids=["few requests", "a request without an answer", "repeated requests"],
)
async def test_other_calls_go_through_the_buffer(make_session, recorder, answer_in_earlier_run, count, start, repeats):
    answer_in_earlier_run(make_calls(MIN_REQUESTS))
    calls = make_calls(count, start)
    async with anyio.create_task_group() as task_group:
        session, parts = make_session(task_group)
        task_group.start_soon(session.submit, [calls] * repeats)
        flushed_names = await flushed(parts, repeats * count)
        task_group.cancel_scope.cancel()
    digests = [name[:32] for name in custom_ids_of(calls)]
    expected = [f"{digest}-{time}" for time in range(repeats) for digest in digests]
    assert flushed_names == expected
    assert recorder.events == [("requested", repeats * count)]
    assert not parts.memory.has_compared


async def test_calls_reach_the_buffer_in_their_order(make_session):
    calls = [make_calls(MIN_REQUESTS), make_calls(1, MIN_REQUESTS), make_calls(MIN_REQUESTS, MIN_REQUESTS + 1)]
    names = [name for group in calls for name in custom_ids_of(group)]
    async with anyio.create_task_group() as task_group:
        session, parts = make_session(task_group)
        for group in calls:
            task_group.start_soon(session.submit, [group])
        assert await flushed(parts, len(names)) == names
        task_group.cancel_scope.cancel()


async def test_changes_of_the_caller_during_a_look_up_reach_no_request(make_session, ledger, monkeypatch):
    calls = make_calls(MIN_REQUESTS)
    names = [*custom_ids_of(calls)]

    def find_none(custom_ids: FirstOccurrences) -> None:
        for [message] in calls.values:
            message["content"] = "Something else."
        calls.values.reverse()

    monkeypatch.setattr(ledger.requests, "find_answers", find_none)
    async with anyio.create_task_group() as task_group:
        session, parts = make_session(task_group)
        task_group.start_soon(session.submit, [calls])
        assert await flushed(parts, MIN_REQUESTS) == names
        [requests] = parts.buffer._running.values()
        bodies = [orjson.loads(bytes(pending.request.body)) for pending in requests.values()]
        task_group.cancel_scope.cancel()
    texts = [body["messages"][0]["content"] for body in bodies]
    assert texts == [f"Say number {place}." for place in range(MIN_REQUESTS)]


async def test_a_call_that_is_cancelled_before_its_look_up_releases_its_custom_ids(make_session, ledger, monkeypatch):
    first, second = make_calls(MIN_REQUESTS), make_calls(MIN_REQUESTS, MIN_REQUESTS)
    find, may_go_on = ledger.requests.find_answers, threading.Event()

    def find_late(custom_ids: FirstOccurrences) -> object:
        may_go_on.wait(10)
        return find(custom_ids)

    monkeypatch.setattr(ledger.requests, "find_answers", find_late)
    async with anyio.create_task_group() as task_group:
        session, parts = make_session(task_group)
        task_group.start_soon(session.submit, [first])
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as cancelled:
            cancelled.start_soon(session.submit, [second])
            await anyio.wait_all_tasks_blocked()
            cancelled.cancel_scope.cancel()
        may_go_on.set()
        task_group.start_soon(session.submit, [second])
        names = await flushed(parts, 2 * MIN_REQUESTS)
        task_group.cancel_scope.cancel()
    assert sorted(names) == sorted([*custom_ids_of(first), *custom_ids_of(second)])


async def test_an_error_of_the_run_reaches_answered_calls(make_session, answer_in_earlier_run):
    calls = make_calls(MIN_REQUESTS)
    answer_in_earlier_run(calls)
    async with anyio.create_task_group() as task_group:
        session, parts = make_session(task_group)
        parts.buffer.fail(QuotaError("No credit."))
        with pytest.raises(QuotaError):
            await session.submit([calls])
    assert not len(parts.buffer.delivered)


async def test_requests_that_are_built_later_equal_those_that_are_built_at_once(make_session):
    async with anyio.create_task_group() as task_group:
        _, parts = make_session(task_group)
    single = APICall(CHAT, {**BODY, "messages": [{"role": "user", "content": "Alone."}]})
    columns = parts.requests.encode([make_calls(3), single, make_calls(2, 3)])
    names = FirstOccurrences(join_digests(columns))
    built = parts.requests.build(columns, names)
    later = parts.requests.build_lazily(columns, names)
    contents = [[(each.custom_id, bytes(each.body)) for each in requests] for requests in (built, later)]
    assert contents[0] == contents[1]
    assert len(later) == 6
    assert later[-1].custom_id == built[5].custom_id
    assert [each.custom_id for each in later[2:4]] == [names[2], names[3]]
    with pytest.raises(IndexError):
        later[6]
