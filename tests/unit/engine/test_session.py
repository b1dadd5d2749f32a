"""Sessions: repairs of answers with a schema, `custom_id`s, failures and the log of calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import anyio
import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import BodyTemplate, Request, Shard
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.calls import APICall, CallGroup, CallLog, ScopeMemory
from distilabel_openai_batch.engine.failure_log import FailureLog
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.request_builder import RequestBuilder
from distilabel_openai_batch.engine.session import Session, SessionParts
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.structured_output.options import parse_structured_output
from tests.support.schemas import COUNT
from tests.unit.engine.conftest import SESSION_SETTINGS

URL = "https://api.example.com/v1/"
CHAT = "/v1/chat/completions"
BAD = Failure("Bad.", 400)


class FakeBuffer:
    """Buffer that answers requests with texts in turn, or with other outcomes.

    Args:
        outcomes: the outcome of each request in turn; a text is the content of an answer.
    """

    def __init__(self, *outcomes: str | Outcome) -> None:
        self.outcomes = list(outcomes)
        self.flushes: list[list[Request]] = []
        self.gate: anyio.Event | None = None
        self.error: Exception | None = None

    async def submit(self, requests: Sequence[Request]) -> list[Outcome]:
        self.flushes.append(list(requests))
        if self.gate:
            await self.gate.wait()
        return [completion(text) if isinstance(text := self.outcomes.pop(0), str) else text for _ in requests]


class Recorder(Observer):
    """Observer that records failures and rejected answers."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, str | None]] = []
        self.rejected: list[str] = []
        self.requested = 0

    def on_requested(self, requests: int) -> None:
        self.requested += requests

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        self.failed.append((failure.message, custom_id))

    def on_rejected(self, failure: Failure, custom_id: str) -> None:
        self.rejected.append(custom_id)


def completion(*texts: str) -> Answer:
    """Return an answer with a choice for each text, for 10 tokens in and 1 out."""
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return Answer.of({"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": 1}})


def contents(outcome: Outcome) -> list[str | None]:
    assert isinstance(outcome, Answer)
    return [choice["message"]["content"] for choice in outcome.body["choices"]]


def make_call(text: str = "Hello", max_retries: int | None = None) -> APICall:
    """Return a call; with `max_retries` its answer must fit a schema."""
    schema = None if max_retries is None else parse_structured_output({"schema": COUNT, "max_retries": max_retries})
    return APICall(CHAT, {"model": "m", "messages": [{"role": "user", "content": text}]}, schema)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def make_session(ledger, bodies, recorder) -> Callable[..., Session]:
    """Return a function that creates the session of a process that begins now; keywords change its settings."""
    traits = LearnedTraits(ledger.refused_parameters, bodies, recorder)

    def make(buffer: FakeBuffer, failure_log: FailureLog | None = None, **changes) -> Session:
        changed = replace(SESSION_SETTINGS, **changes)
        parts = SessionParts(
            buffer,  # type: ignore[arg-type]
            RequestBuilder(URL, changed, bodies, traits, AnswerSizes(), None),
            Activity(),
            ledger,
            recorder,
            ScopeMemory(),
            None,  # type: ignore[arg-type]
            traits,
            failure_log or FailureLog(),
        )
        return Session(URL, changed, parts)

    return make


def custom_ids(buffer: FakeBuffer) -> list[list[str]]:
    return [[request.custom_id for request in requests] for requests in buffer.flushes]


async def test_each_call_gets_its_outcome_in_order(make_session):
    outcomes = await make_session(FakeBuffer("a", BAD, "c")).submit(make_call(text) for text in "abc")
    assert [contents(outcomes[0]), outcomes[1], contents(outcomes[2])] == [["a"], BAD, ["c"]]


async def test_a_failure_has_the_custom_id_of_its_request(make_session):
    buffer = FakeBuffer(BAD)
    [failure] = await make_session(buffer).submit([make_call()])
    assert failure.custom_id == buffer.flushes[0][0].custom_id


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (BAD, "Bad."),
        (APICall(CHAT, {"model": "m", "user": object()}), "JSON"),
        (make_call("x" * 2_000), "The request is too large: 2,"),
    ],
    ids=["a failure", "no JSON", "too large"],
)
async def test_a_call_that_cannot_be_submitted_fails_alone(make_session, recorder, call, message):
    buffer = FakeBuffer("a", "b")
    first, failure, last = await make_session(buffer).submit([make_call("a"), call, make_call("b")])
    assert [contents(first), contents(last)] == [["a"], ["b"]]
    assert message in failure.message
    assert [len(requests) for requests in buffer.flushes] == [2]
    assert recorder.failed == [(failure.message, None)]
    assert recorder.requested == 1


def make_group(*prompts: object) -> CallGroup:
    like = APICall(CHAT, {"model": "m", "prompt": ""})
    like.template = BodyTemplate(like.body, "prompt")
    return CallGroup(like, prompts)


@pytest.mark.parametrize("max_bytes", [1_000, 100_000])
@pytest.mark.parametrize(
    ("prompt", "message"),
    [(object(), "JSON"), ("\ud800", "JSON"), ("x" * 200_000, "The request is too large: 2")],
    ids=["no JSON", "surrogate", "too large"],
)
async def test_a_call_of_a_group_that_cannot_be_submitted_fails_alone(make_session, prompt, message, max_bytes):
    buffer = FakeBuffer(*"abcd")
    calls = [make_group(), make_call("a"), make_group("b", prompt, "c"), make_group(), make_call("d", max_retries=0)]
    first, second, failure, *last = await make_session(buffer, max_bytes=max_bytes).submit(calls)
    assert [contents(outcome) for outcome in (first, second, last[0])] == [["a"], ["b"], ["c"]]
    assert message in failure.message
    # The schema belongs to the last call, whose answer does not fit.
    assert isinstance(last[1], Failure)
    alone = APICall(CHAT, {"model": "m", "prompt": "c"}).build(URL, CHAT)
    request = buffer.flushes[0][2]
    assert (bytes(request.body), request.custom_id) == (alone[0], f"{alone[1]}-0")


async def test_a_group_without_calls_has_no_outcome(make_session):
    assert await make_session(FakeBuffer()).submit([make_group()]) == []


async def test_an_answer_that_does_not_fit_its_schema_is_submitted_again(make_session, recorder):
    """The second request shows the model its answer; other calls wait for no repair."""
    buffer = FakeBuffer("no", "free text", '{"count": 1}')
    repaired, plain = await make_session(buffer).submit([make_call("a", max_retries=1), make_call("b")])
    assert contents(repaired) == ['{"count":1}']
    assert contents(plain) == ["free text"]
    assert repaired.tokens == (20, 2)
    assert [len(requests) for requests in buffer.flushes] == [2, 1]
    assert '"no"' in bytes(buffer.flushes[1][0].body).decode()
    assert buffer.flushes[1][0].retry_of == "unfit answer"
    assert recorder.rejected == []


async def test_an_answer_that_is_not_repaired_is_a_failure_with_the_first_custom_id(make_session, recorder):
    buffer = FakeBuffer("no", "never")
    with CallLog().activate() as log:
        [failure] = await make_session(buffer).submit([make_call(max_retries=1)])
    first = buffer.flushes[0][0].custom_id
    assert isinstance(failure, Failure)
    assert failure.custom_id == first
    assert recorder.rejected == [first]
    assert log.outcomes == [failure]


async def test_the_log_shows_the_failure_of_an_answer_that_fits_in_part(make_session):
    """The caller gets the choices that fit; the log says why a choice is missing."""
    with CallLog().activate() as log:
        [outcome] = await make_session(FakeBuffer(completion('{"count": 1}', "no"))).submit([make_call(max_retries=0)])
    assert contents(outcome) == ['{"count":1}', None]
    [custom_id] = {failure.custom_id for failure in outcome.choice_failures.values()}
    [logged] = log.outcomes
    assert isinstance(logged, Failure)
    assert logged.custom_id == custom_id
    assert logged.message.startswith("1 of 2 generations")


async def test_the_log_has_the_outcomes_of_each_submission(make_session):
    session = make_session(FakeBuffer("a", BAD, "c"))
    with CallLog().activate() as log:
        first = await session.submit([make_call("a"), make_call("b")])
        second = await session.submit([make_call("c")])
    await make_session(FakeBuffer("d")).submit([make_call("d")])
    assert log.calls == [first, second]


async def test_equal_calls_are_different_requests(make_session):
    buffer = FakeBuffer("a", "b", "c")
    session = make_session(buffer)
    await session.submit([make_call(), make_call()])
    await session.submit([make_call()])
    [[first, second], [third]] = custom_ids(buffer)
    digest = first.partition("-")[0]
    assert [first, second, third] == [f"{digest}-0", f"{digest}-1", f"{digest}-2"]


async def test_a_cancelled_caller_releases_its_custom_ids(make_session):
    """The next equal calls are the same requests, which may be in progress."""
    buffer = FakeBuffer("a", "b", "c")
    session = make_session(buffer)
    buffer.gate = anyio.Event()
    with anyio.move_on_after(0.01):
        await session.submit([make_call(), make_call(), BAD])
    buffer.gate.set()
    await session.submit([make_call(), make_call(), make_call()])
    cancelled, again = custom_ids(buffer)
    assert again[:2] == cancelled
    assert len(set(again)) == 3


async def test_without_reuse_the_numbers_begin_behind_the_last_delivered_answer(make_session, ledger):
    """An answer that was billed and never delivered is used all the same."""
    buffer = FakeBuffer("a", "b", "c")
    await make_session(buffer).submit([make_call()])
    [request] = buffer.flushes[0]
    job, _ = ledger.jobs.plan(Shard.of([request]))
    ledger.requests.record(ledger.requests.request_ids(job), {request.custom_id: completion("a")})
    created = ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-in"), Batch("batch_0", "completed"))
    ledger.jobs.mark_collected(ledger.jobs.mark_ended(created, Batch("batch_0", "completed")), MISSING_RESULT)

    await make_session(buffer, reuse_answers=False).submit([make_call()])
    ledger.requests.mark_delivered([request.custom_id], 1.0)
    await make_session(buffer, reuse_answers=False).submit([make_call()])
    assert [custom_id[-2:] for [custom_id] in custom_ids(buffer)] == ["-0", "-0", "-1"]


async def test_azure_paths_have_no_version(make_session):
    buffer = FakeBuffer("a")
    await make_session(buffer, azure_api_version="2025-04-01-preview").submit([make_call()])
    [[request]] = buffer.flushes
    assert request.endpoint == "/chat/completions"
    assert json.loads(bytes(request.body))["model"] == "m"


def limited_call(text: str = "Hello") -> APICall:
    return APICall(CHAT, {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 8})


def cut(text: str) -> Answer:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    return Answer.of({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 8}})


SPENT = Failure("The limit was spent.", 200, "length", (10, 8))


def sent_limits(buffer: FakeBuffer) -> list[list[int]]:
    return [[json.loads(bytes(request.body))["max_tokens"] for request in requests] for requests in buffer.flushes]


@pytest.mark.parametrize("first", [cut("Half"), SPENT], ids=["cut", "spent"])
async def test_limited_answers_are_requested_again_with_twice_the_limit(make_session, first):
    buffer = FakeBuffer("a", first, cut("More"), "whole")

    outcomes = await make_session(buffer, on_truncated="retry").submit([limited_call("a"), limited_call("b")])

    assert [contents(outcome) for outcome in outcomes] == [["a"], ["whole"]]
    assert sent_limits(buffer) == [[8, 8], [16], [32]]
    assert [[request.retry_of for request in requests] for requests in buffer.flushes] == [
        ["", ""],
        ["cut answer"],
        ["cut answer"],
    ]


@pytest.mark.parametrize("on_truncated", ["keep", "fail", None])
async def test_limited_answers_are_requested_again_on_request_only(make_session, on_truncated):
    buffer = FakeBuffer(cut("Half"))

    await make_session(buffer, on_truncated=on_truncated).submit([limited_call()])

    assert sent_limits(buffer) == [[8]]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(cut("Half"), BAD, "Half"), (cut("Half"), SPENT, "Half"), (SPENT, BAD, SPENT), (SPENT, cut("Half"), "Half")],
)
async def test_retry_replaces_an_outcome_only_if_it_is_better(make_session, first, second, expected):
    buffer = FakeBuffer(first, second, *[BAD] * 3)

    [outcome] = await make_session(buffer, on_truncated="retry").submit([limited_call()])

    assert (outcome if isinstance(outcome, Failure) else contents(outcome)[0]) == expected


@pytest.mark.parametrize(
    ("outcomes", "call", "replaced"),
    [
        ([completion("Whole.")], limited_call(), []),
        ([cut("Half"), cut("More"), "Whole."], limited_call(), [0, 1]),
        ([SPENT, "Whole."], limited_call(), [0]),
        ([SPENT] * 4, limited_call(), [0, 1, 2]),
        ([cut("Half"), BAD], limited_call(), [1]),
        ([SPENT, BAD], limited_call(), [1]),
        (["no", '{"count": 1}'], make_call(max_retries=1), [0]),
        (["no", "never", '{"count": 1}'], make_call(max_retries=2), [0, 1]),
        (["no", "never"], make_call(max_retries=1), [1]),
        ([completion("no", '{"count": 1}'), '{"count": 2}'], make_call(max_retries=1), []),
    ],
)
async def test_requests_without_a_part_in_the_answer_of_a_row_are_replaced(make_session, outcomes, call, replaced):
    """Each row counts once: as the request whose outcome the row has, usable or not."""
    buffer, log = FakeBuffer(*outcomes), FailureLog()

    await make_session(buffer, log, on_truncated="retry").submit([call])

    assert log.is_replaced == {custom_ids(buffer)[place][0]: True for place in replaced}


async def test_request_counts_again_when_a_run_keeps_its_answer(make_session):
    buffer = FakeBuffer(cut("Half"), "Whole.")
    await make_session(buffer, on_truncated="retry").submit([limited_call()])
    first = custom_ids(buffer)[0][0]
    log = FailureLog(replaced_before={first, "other-0"})

    await make_session(FakeBuffer(cut("Half")), log).submit([limited_call()])

    assert log.is_replaced == {first: False}


async def test_answer_that_stays_empty_is_rejected(make_session, recorder):
    """The buffer reports no failure for an answer that is requested again."""
    buffer = FakeBuffer(*[SPENT] * 4)

    [outcome] = await make_session(buffer, on_truncated="retry").submit([limited_call()])

    assert outcome == SPENT
    assert sent_limits(buffer) == [[8], [16], [32], [64]]
    assert recorder.rejected == [buffer.flushes[-1][0].custom_id]


async def test_loader_requests_no_cut_answer_again_that_nobody_has_paid_for(make_session):
    run = SubmissionRun("name", waits=True, submits=False)
    buffer = FakeBuffer(cut("Half"))

    [outcome] = await make_session(buffer, on_truncated="retry", run=run).submit([limited_call()])

    assert contents(outcome) == ["Half"]
    assert sent_limits(buffer) == [[8]]
