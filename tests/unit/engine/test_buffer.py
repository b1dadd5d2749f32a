"""The buffer: flushes of many callers, retries, failures and cancellations."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from distilabel_openai_batch.api.outcomes import OTHER_BATCH, Answer, Failure, Outcome, batch_failure
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine import buffer as buffer_module
from distilabel_openai_batch.engine import compact_ids
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.errors import BatchFailedError, InternalError, QuotaError, RequestsFailedError

CHAT = "/v1/chat/completions"
TRANSIENT = Failure("Try again.", 503)
PERMANENT = Failure("Bad.", 400, "bad")


class Server:
    """Source of answers that records its flushes.

    Args:
        outcome: returns the outcome of a request, given its `custom_id` and the number of its submission.

    Attributes:
        flushes: the `custom_id`s of each flush.
        retries: the kind of the outcome that each retry follows (`Request.retry_of`).
        in_progress: ids of batches in progress; if there are any, requests get no outcome.
        gate: the event before which no flush ends.
    """

    def __init__(self, outcome: Callable[[str, int], Outcome]) -> None:
        self._outcome = outcome
        self._submissions: dict[str, int] = {}
        self.flushes: list[list[str]] = []
        self.retries: list[str] = []
        self.in_progress: list[str] = []
        self.gate: anyio.Event | None = None

    async def answer(self, requests: Sequence[Request], deliver, since) -> list[str]:
        custom_ids = [request.custom_id for request in requests]
        self.flushes.append(custom_ids)
        self.retries += [request.retry_of for request in requests if request.retry_of]
        if self.gate:
            await self.gate.wait()
        await anyio.sleep(0)
        if self.in_progress:
            return self.in_progress
        outcomes = {}
        for custom_id in reversed(custom_ids):
            self._submissions[custom_id] = self._submissions.get(custom_id, 0) + 1
            outcomes[custom_id] = self._outcome(custom_id, self._submissions[custom_id])
        deliver(outcomes)
        return []


def answer(custom_id: str, time: int = 1) -> Answer:
    return Answer.of({"id": custom_id})


def requests(*custom_ids: str) -> list[Request]:
    return [Request(custom_id, CHAT, "m", b"{}") for custom_id in custom_ids]


class Body:
    """Body that has a length only."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return bytes(self.size)


class Recorder(Observer):
    """Observer that counts answers and failures."""

    def __init__(self) -> None:
        self.answered = self.failed = 0

    def on_answered(self, requests: int) -> None:
        self.answered += requests

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        self.failed += 1


class NotFinished(Exception):
    """Error for batches in progress that are not waited for."""


@asynccontextmanager
async def buffering(
    server: Server,
    max_requests: int = 1_000,
    max_attempts: int = 3,
    is_crowded: Callable[[], bool] = lambda: False,
    activity: Activity | None = None,
    observer: Observer | None = None,
    max_bytes: int = 1_000_000,
    **arguments,
):
    async with anyio.create_task_group() as task_group:
        yield CallBuffer(
            answer=server.answer,
            max_requests=max_requests,
            max_bytes=max_bytes,
            max_attempts=max_attempts,
            not_finished=lambda batch_ids: NotFinished(*batch_ids),
            task_group=task_group,
            observer=observer or Observer(),
            is_crowded=is_crowded,
            activity=activity,
            **arguments,
        )
        task_group.cancel_scope.cancel()


async def submit_all(buffer: CallBuffer, callers: Sequence[Sequence[str]]) -> list[object]:
    """Submit the requests of several callers at once; return the outcomes or the error of each caller."""
    results: list[object] = [None] * len(callers)

    async def submit(index: int) -> None:
        try:
            results[index] = await buffer.submit(requests(*callers[index]))
        except Exception as error:
            results[index] = error

    async with anyio.create_task_group() as task_group:
        for index in range(len(callers)):
            task_group.start_soon(submit, index)
    return results


async def test_waiting_callers_share_a_flush():
    """Each caller gets the outcomes of its requests in order."""
    server = Server(answer)
    callers = [["a", "b"], ["c"], [], ["d", "e", "f"]]
    async with buffering(server) as buffer:
        results = await submit_all(buffer, callers)
    assert server.flushes == [["a", "b", "c", "d", "e", "f"]]
    assert sorted(buffer.delivered) == ["a", "b", "c", "d", "e", "f"]
    assert results == [[answer(custom_id) for custom_id in caller] for caller in callers]


class CopyingServer(Server):
    """Server that answers under texts that equal the `custom_id`s, as the ledger does, and records nothing."""

    async def answer(self, requests: Sequence[Request], deliver, since) -> list[str]:
        await anyio.sleep(0)
        answered = self._outcome("", 1)
        deliver({"".join([*request.custom_id]): answered for request in requests})
        return []


async def test_answered_requests_leave_one_reference_each_in_memory():
    """The buffer keeps neither a copy of a `custom_id`, nor the room of the requests that waited."""
    custom_ids = [f"{number:032x}-0" for number in range(4_000)]
    async with buffering(CopyingServer(answer), max_requests=4_000) as buffer:
        tracemalloc.start()
        try:
            await buffer.submit(requests(*custom_ids))
            gc.collect()
            # Other threads and a measurement of coverage allocate memory too.
            files = [
                tracemalloc.Filter(True, name) for name in (__file__, buffer_module.__file__, compact_ids.__file__)
            ]
            kept = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(files).traces)
        finally:
            tracemalloc.stop()
    assert [*buffer.delivered] == custom_ids
    assert kept < 24 * len(custom_ids)


async def test_a_full_job_is_flushed_at_once():
    """The rest is flushed when all callers wait."""
    server = Server(answer)
    async with buffering(server, max_requests=2) as buffer:
        await submit_all(buffer, [["a", "b", "c"], ["d", "e"]])
    assert server.flushes == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(
    ("count", "size", "jobs"),
    [(150, 2_000_200, [99, 51]), (250, 1_000_500, [199, 51]), (200, 1_000_000, [200]), (3, 150_000_000, [1, 1, 1])],
    ids=["150 images", "250 long prompts", "exactly one job", "one request in each job"],
)
async def test_a_flush_fills_a_job_to_its_bytes(count, size, jobs):
    """The request that exceeds the bytes begins the next job."""
    server = Server(answer)
    line = Request("", CHAT, "m", b"").size
    sent = [Request(f"{number:04}", CHAT, "m", Body(size - line - 4)) for number in range(count)]
    async with buffering(server, 50_000, max_bytes=200_000_000) as buffer:
        await buffer.submit(sent)
    assert [len(flush) for flush in server.flushes] == jobs


async def test_requests_of_another_model_do_not_shorten_a_job():
    server = Server(answer)
    sent = [Request(f"{model}{number}", CHAT, model, b"{}") for number in range(3) for model in "ab"]
    async with buffering(server, max_requests=2) as buffer:
        await buffer.submit(sent)
    assert server.flushes == [["a0", "a1"], ["b0", "b1"], ["a2", "b2"]]


async def test_retries_are_cut_by_bytes_too():
    server = Server(lambda custom_id, time: TRANSIENT if time == 1 else answer(custom_id))
    line = Request("", CHAT, "m", b"").size
    sent = [Request(f"{number:04}", CHAT, "m", Body(100 - line - 4)) for number in range(5)]
    async with buffering(server, max_bytes=250) as buffer:
        await buffer.submit(sent)
    assert [len(flush) for flush in server.flushes] == [2, 2, 2, 2, 2]
    assert server.retries == ["failed request"] * 5


async def test_retries_wait_to_be_batched_together_while_jobs_wait_for_others():
    """A full job of retries is flushed; the rest is flushed when no job waits for a place any more."""
    server = Server(lambda custom_id, time: TRANSIENT if custom_id.isupper() and time == 1 else answer(custom_id))
    crowded, last = True, anyio.Event()

    async def answer_the_last_flush_later(requests: Sequence[Request], deliver, since) -> list[str]:
        if requests[0].custom_id == "d":
            await last.wait()
        return await server.answer(requests, deliver, since)

    async with buffering(server, 3, is_crowded=lambda: crowded) as buffer, anyio.create_task_group() as task_group:
        buffer._answer = answer_the_last_flush_later
        for names in ("aA1", "bB2", "d34"):
            task_group.start_soon(buffer.submit, requests(*names))
        await anyio.wait_all_tasks_blocked()
        assert server.flushes == [["a", "A", "1"], ["b", "B", "2"]]
        crowded = False
        last.set()
    assert server.flushes[2:] == [["d", "3", "4"], ["A", "B"]]


async def test_a_new_request_is_flushed_at_once_with_the_retries():
    """The caller of a new request has not waited yet."""
    server = Server(lambda custom_id, time: TRANSIENT if custom_id == "a" and time == 1 else answer(custom_id))
    async with buffering(server, is_crowded=lambda: True) as buffer, anyio.create_task_group() as task_group:
        task_group.start_soon(buffer.submit, requests("a"))
        while not server.flushes:
            await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        task_group.start_soon(buffer.submit, requests("b"))
    assert server.flushes == [["a"], ["a", "b"]]


async def test_each_round_is_a_flush():
    """Callers that submit again after their answer share a flush again."""
    server = Server(answer)

    async def rounds(buffer: CallBuffer, name: str) -> None:
        for number in range(3):
            await buffer.submit(requests(f"{name}{number}"))

    async with buffering(server) as buffer, anyio.create_task_group() as task_group:
        for name in "ab":
            task_group.start_soon(rounds, buffer, name)
    assert [sorted(flush) for flush in server.flushes] == [["a0", "b0"], ["a1", "b1"], ["a2", "b2"]]


async def test_other_callers_of_a_flush_get_their_answers_when_one_is_cancelled():
    server = Server(answer)
    server.gate = anyio.Event()
    results = []
    async with buffering(server) as buffer, anyio.create_task_group() as task_group:

        async def stay() -> None:
            results.extend(await buffer.submit(requests("a")))

        async def leave() -> None:
            with anyio.move_on_after(0.01):
                await buffer.submit(requests("b"))
            server.gate.set()

        task_group.start_soon(stay)
        task_group.start_soon(leave)
    assert results == [answer("a")]


async def cancel_at_once(scope: anyio.CancelScope) -> None:
    scope.cancel()


async def cancel_when_all_wait(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def submit_and_cancel(buffer: CallBuffer, custom_ids: Sequence[str], cancel=cancel_at_once) -> None:
    """Submit requests as a caller that is cancelled while it waits."""
    async with anyio.create_task_group() as task_group:
        with anyio.CancelScope() as scope:
            task_group.start_soon(cancel, scope)
            await buffer.submit(requests(*custom_ids))


async def test_requests_of_a_caller_cancelled_before_the_flush_are_not_flushed():
    """The next caller reuses the released `custom_id`, and its request is submitted once."""
    server = Server(answer)
    async with buffering(server) as buffer:
        await submit_and_cancel(buffer, ["a", "b"])
        assert await submit_all(buffer, [["c", "a"]]) == [[answer("c"), answer("a")]]
    assert server.flushes == [["c", "a"]]


async def test_a_failure_is_not_delivered_to_a_later_flush_of_the_same_request():
    """The first caller was cancelled while its flush ran; the next caller's flush has its own outcome."""
    server = Server(lambda custom_id, time: TRANSIENT if custom_id == "a" and time == 1 else answer(custom_id))
    first, second = anyio.Event(), anyio.Event()
    async with buffering(server) as buffer, anyio.create_task_group() as task_group:
        server.gate = first
        task_group.start_soon(submit_all, buffer, [["b"]])
        await submit_and_cancel(buffer, ["a"], cancel_when_all_wait)
        await anyio.wait_all_tasks_blocked()
        server.gate = second
        task_group.start_soon(submit_all, buffer, [["a"]])
        await anyio.wait_all_tasks_blocked()
        first.set()
        await anyio.wait_all_tasks_blocked()
        second.set()
    assert server.flushes == [["a", "b"], ["a"]]


async def test_a_failure_that_was_held_back_is_dropped_with_its_caller():
    """The next caller with the same request waits for the outcome of its own flush."""
    server = Server(lambda custom_id, time: PERMANENT if custom_id == "a" and time == 1 else answer(custom_id))
    other, again = anyio.Event(), anyio.Event()

    async def answer_in_turn(requests: Sequence[Request], deliver, since) -> list[str]:
        if requests[0].custom_id == "b":
            await other.wait()
        elif ["a"] in server.flushes:
            await again.wait()
        return await server.answer(requests, deliver, since)

    with anyio.fail_after(5):
        async with buffering(server, max_requests=1) as buffer, anyio.create_task_group() as task_group:
            buffer._answer = answer_in_turn
            task_group.start_soon(submit_all, buffer, [["b"]])
            await submit_and_cancel(buffer, ["a"], cancel_when_all_wait)
            task_group.start_soon(buffer.submit, requests("a"))
            await anyio.wait_all_tasks_blocked()
            other.set()
            await anyio.wait_all_tasks_blocked()
            again.set()
    assert server.flushes == [["a"], ["b"], ["a"]]


async def test_a_cancelled_caller_does_not_delay_the_end():
    """The error names the batches in progress although the last caller was cancelled."""
    server = Server(answer)
    server.in_progress, server.gate = ["batch_1"], anyio.Event()
    results = []

    async def stay() -> None:
        results.extend(await submit_all(buffer, [["a"]]))

    with anyio.fail_after(5):
        async with buffering(server) as buffer, anyio.create_task_group() as task_group:
            task_group.start_soon(stay)
            await anyio.wait_all_tasks_blocked()
            server.gate.set()
            await submit_and_cancel(buffer, ["b"])
    assert isinstance(results[0], NotFinished)
    assert server.flushes == [["a"]]


async def test_transient_failures_are_retried_up_to_the_limit():
    """Retries of several callers share a flush."""
    server = Server(lambda custom_id, time: TRANSIENT if custom_id == "never" or time < 3 else answer(custom_id))
    async with buffering(server, max_attempts=3) as buffer:
        results = await submit_all(buffer, [["a", "never"], ["b"]])
    assert results == [[answer("a"), TRANSIENT], [answer("b")]]
    assert [sorted(flush) for flush in server.flushes] == [["a", "b", "never"]] * 3


async def test_a_permanent_failure_is_not_retried():
    """Only the request itself fails."""
    server = Server(lambda custom_id, time: PERMANENT if custom_id == "b" else answer(custom_id))
    async with buffering(server) as buffer:
        assert await submit_all(buffer, [["a", "b", "c"]]) == [[answer("a"), PERMANENT, answer("c")]]
    assert len(server.flushes) == 1


async def test_an_exhausted_quota_ends_the_run():
    """Waiting callers and later callers get the error."""
    server = Server(
        lambda custom_id, time: Failure("Pay.", 429, "insufficient_quota") if custom_id == "a" else answer("")
    )
    async with buffering(server) as buffer:
        results = await submit_all(buffer, [["a"], ["b"]])
        with pytest.raises(QuotaError, match="Pay"):
            await buffer.submit(requests("c"))
        assert buffer.error is not None
    assert isinstance(results[0], QuotaError)


@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_the_run_fails_if_all_requests_fail_alike(size):
    """Otherwise the dataset would consist of `None`; the number of jobs does not matter."""
    async with buffering(Server(lambda custom_id, time: PERMANENT), max_requests=size) as buffer:
        [error] = await submit_all(buffer, [["a", "b", "c", "d"]])
    assert isinstance(error, RequestsFailedError)
    assert str(error) == "All 4 requests failed: Bad. (400, bad)"


async def test_the_run_goes_on_if_requests_fail_in_different_ways():
    """Each request has its own failure."""
    other = Failure("Also bad.", 422)
    server = Server(lambda custom_id, time: PERMANENT if custom_id == "a" else other)
    async with buffering(server) as buffer:
        assert await submit_all(buffer, [["a", "b"]]) == [[PERMANENT, other]]


async def test_an_error_of_a_flush_reaches_every_caller():
    """Callers get an error of the run that names the exception, not the exception or a group."""

    class Broken(Exception):
        pass

    def breaks(custom_id: str, time: int) -> Outcome:
        raise Broken

    async with buffering(Server(breaks)) as buffer:
        results = await submit_all(buffer, [["a"], ["b", "c"]])
    assert [type(result) for result in results] == [InternalError] * 2
    assert all(isinstance(result.__cause__, Broken) for result in results)


async def test_the_error_names_all_batches_that_are_not_waited_for():
    """The run ends after all requests are submitted."""
    server = Server(answer)
    server.in_progress = ["batch_1"]
    async with buffering(server, max_requests=1) as buffer:
        [error] = await submit_all(buffer, [["a", "b"]])
    assert isinstance(error, NotFinished)
    assert error.args == ("batch_1", "batch_1")
    assert server.flushes == [["a"], ["b"]]


async def test_equal_failures_do_not_end_the_run_while_batches_are_in_progress():
    """The batches may yet have answers, so the error names them."""
    server = Server(lambda custom_id, time: PERMANENT)

    async def answer_or_submit(requests: Sequence[Request], deliver, since) -> list[str]:
        return ["batch_1"] if requests[0].custom_id == "a" else await server.answer(requests, deliver, since)

    async with buffering(server, max_requests=1) as buffer:
        buffer._answer = answer_or_submit
        error, failures = await submit_all(buffer, [["a", "b"], ["c"]])
    assert isinstance(error, NotFinished)
    assert failures == [PERMANENT]


OUTCOMES = st.sampled_from(["answer", "transient", "permanent", "other"])


@given(
    callers=st.lists(st.lists(st.lists(OUTCOMES, min_size=1, max_size=4), max_size=5), max_size=6),
    max_requests=st.integers(1, 7),
    max_attempts=st.integers(1, 4),
)
@settings(deadline=None)
def test_each_caller_gets_the_last_outcome_of_each_request(callers, max_requests, max_attempts):
    """Any mix of callers, sizes and outcomes is possible."""
    failures = {"answer": None, "transient": TRANSIENT, "permanent": PERMANENT, "other": Failure("Worse.", 422)}
    script = {f"{c}-{r}": plan for c, caller in enumerate(callers) for r, plan in enumerate(caller)}

    def outcome(custom_id: str, time: int) -> Outcome:
        plan = script[custom_id]
        return failures[plan[min(time, len(plan)) - 1]] or answer(custom_id)

    def last(custom_id: str) -> Outcome:
        for time in range(1, max_attempts + 1):
            if (result := outcome(custom_id, time)) is not TRANSIENT:
                break
        return result

    async def run() -> list[object]:
        async with buffering(Server(outcome), max_requests, max_attempts) as buffer:
            return await submit_all(
                buffer, [[f"{c}-{r}" for r in range(len(caller))] for c, caller in enumerate(callers)]
            )

    expected = [[last(f"{c}-{r}") for r in range(len(caller))] for c, caller in enumerate(callers)]
    results = anyio.run(run)
    if any(isinstance(result, RequestsFailedError) for result in results):
        # No request was answered, and all failures are alike.
        assert not any(isinstance(result, Answer) for caller in expected for result in caller)
    else:
        assert results == expected


async def test_a_held_buffer_flushes_full_jobs_alone():
    """The rest is flushed after the release, together with the calls that arrived meanwhile."""
    server = Server(answer)
    async with buffering(server, max_requests=3) as buffer, anyio.create_task_group() as task_group:
        buffer.hold()
        task_group.start_soon(buffer.submit, requests("a", "b", "c", "d"))
        await anyio.wait_all_tasks_blocked()
        assert server.flushes == [["a", "b", "c"]]
        task_group.start_soon(buffer.submit, requests("e"))
        await anyio.wait_all_tasks_blocked()
        buffer.release()
    assert server.flushes == [["a", "b", "c"], ["d", "e"]]


async def test_calls_after_a_release_are_flushed_until_the_next_hold():
    server = Server(answer)
    async with buffering(server) as buffer, anyio.create_task_group() as task_group:
        buffer.hold()
        buffer.release()
        await buffer.submit(requests("a"))
        buffer.hold()
        task_group.start_soon(buffer.submit, requests("b"))
        await anyio.wait_all_tasks_blocked()
        assert server.flushes == [["a"]]
        buffer.release()


async def test_a_flush_waits_for_local_work():
    """Results that are being read are about to make further calls."""
    server, activity = Server(answer), Activity()
    async with buffering(server, activity=activity) as buffer, anyio.create_task_group() as task_group:
        with activity.busy():
            task_group.start_soon(buffer.submit, requests("a"))
            await anyio.wait_all_tasks_blocked()
            task_group.start_soon(buffer.submit, requests("b"))
            await anyio.wait_all_tasks_blocked()
            assert not server.flushes
    assert server.flushes == [["a", "b"]]


async def test_a_held_buffer_reports_no_batches_in_progress():
    """Jobs that are not waited for end the run when all calls are submitted."""
    server, errors = Server(answer), []
    server.in_progress = ["batch_1"]

    async def submit(*custom_ids: str) -> None:
        try:
            await buffer.submit(requests(*custom_ids))
        except NotFinished as error:
            errors.append(error.args)

    async with buffering(server, max_requests=2) as buffer, anyio.create_task_group() as task_group:
        buffer.hold()
        task_group.start_soon(submit, "a", "b")
        await anyio.wait_all_tasks_blocked()
        assert not errors
        buffer.release()
    assert errors == [("batch_1",)]


async def test_equal_failures_end_the_run_when_no_call_is_on_its_way():
    """A later call may be answered."""
    server = Server(lambda custom_id, time: PERMANENT if custom_id == "a" else answer(custom_id))
    async with buffering(server, max_requests=1) as buffer:
        buffer.hold()
        [first, second] = await submit_all(buffer, [["a"], ["b"]])
    assert (first, second) == ([PERMANENT], [answer("b")])


REJECTED = batch_failure("batch_1", "no_model: No such model.")


@pytest.mark.parametrize(
    "others", [{}, {"b": OTHER_BATCH}, {"b": batch_failure("batch_2", "no_model: No such model.")}]
)
async def test_a_load_fails_if_the_server_rejected_all_its_batches(others):
    """Requests of batches that the load does not select say nothing about the selected ones."""
    server = Server(lambda custom_id, time: others.get(custom_id, REJECTED))
    async with buffering(server, max_requests=1, max_attempts=1, all_may_fail=True) as buffer:
        errors = await submit_all(buffer, [["a"], ["b"]])
    assert all(isinstance(error, BatchFailedError) and "no_model: No such model." in str(error) for error in errors)


@pytest.mark.parametrize("other", [answer("b"), PERMANENT, Failure("No answer.", None, "batch_expired")])
async def test_a_load_with_other_outcomes_returns_the_reason_of_a_rejected_batch(other):
    server = Server(lambda custom_id, time: REJECTED if custom_id == "a" else other)
    async with buffering(server, max_requests=1, max_attempts=1, all_may_fail=True) as buffer:
        assert await submit_all(buffer, [["a"], ["b"]]) == [[REJECTED], [other]]


async def test_refused_request_is_submitted_again_with_other_parameters():
    """The request keeps its `custom_id`; the run does not end although every first outcome is a refusal."""
    refusal = Failure("Unsupported parameter.", 400)

    def revise(request: Request, failure: Failure) -> Request | None:
        return structs.replace(request, body=b'{"revised":1}') if request.body == b"{}" else None

    server = Server(lambda custom_id, time: refusal if time == 1 or custom_id == "c" else answer(custom_id))
    async with buffering(server, revise=revise) as buffer:
        [outcomes] = await submit_all(buffer, [["a", "b", "c"]])
    assert server.flushes == [["a", "b", "c"], ["c", "b", "a"]]
    assert outcomes == [answer("a"), answer("b"), refusal]


async def test_spent_answer_that_its_caller_requests_again_is_no_failure():
    spent = Failure("Spent.", 200, "length", (1, 1))
    for retries_spent in (True, False):
        recorder = Recorder()
        async with buffering(Server(lambda *_: spent), observer=recorder, retries_spent=retries_spent) as buffer:
            assert await submit_all(buffer, [["a"]]) == [[spent]]
        assert (recorder.answered, recorder.failed) == ((1, 0) if retries_spent else (0, 1))
