"""The buffer: many callers, one flush, and each gets its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.errors import QuotaError, RequestsFailedError

PASSING = Failure("Try again.", 503)
BAD = Failure("Bad.", 400, "bad")


class Server:
    """Answers each request as it is told to, and remembers what it was asked together.

    Args:
        outcome: what becomes of a request when it is asked for the so-manieth time.
    """

    def __init__(self, outcome: Callable[[str, int], Outcome]) -> None:
        self._outcome = outcome
        self._asked: dict[str, int] = {}
        self.flushes: list[list[str]] = []
        self.under_way: list[str] = []
        self.gate: anyio.Event | None = None

    async def answer(self, requests: Sequence[Request], take, since) -> list[str]:
        custom_ids = [request.custom_id for request in requests]
        self.flushes.append(custom_ids)
        if self.gate:
            await self.gate.wait()
        await anyio.sleep(0)
        if self.under_way:
            return self.under_way
        outcomes = {}
        for custom_id in reversed(custom_ids):
            self._asked[custom_id] = self._asked.get(custom_id, 0) + 1
            outcomes[custom_id] = self._outcome(custom_id, self._asked[custom_id])
        take(outcomes)
        return []


def answer(custom_id: str, time: int = 1) -> Answer:
    return Answer.of({"id": custom_id})


def requests(*custom_ids: str) -> list[Request]:
    return [Request(custom_id, "/v1/chat/completions", "m", b"{}") for custom_id in custom_ids]


class NotFinished(Exception):
    """What is raised where batches are not waited for."""


@asynccontextmanager
async def buffering(
    server: Server, max_requests: int = 1_000, max_attempts: int = 3, is_crowded: Callable[[], bool] = lambda: False
):
    async with anyio.create_task_group() as task_group:
        yield CallBuffer(
            answer=server.answer,
            is_full=lambda requests, size: requests >= max_requests,
            max_attempts=max_attempts,
            not_finished=lambda batch_ids: NotFinished(*batch_ids),
            task_group=task_group,
            progress=Progress(logging.getLogger("test")),
            is_crowded=is_crowded,
        )
        task_group.cancel_scope.cancel()


async def ask_all(buffer: CallBuffer, callers: Sequence[Sequence[str]]) -> list[object]:
    """What each caller is given, or the error that it gets."""
    results: list[object] = [None] * len(callers)

    async def ask(index: int) -> None:
        try:
            results[index] = await buffer.ask(requests(*callers[index]))
        except Exception as error:
            results[index] = error

    async with anyio.create_task_group() as task_group:
        for index in range(len(callers)):
            task_group.start_soon(ask, index)
    return results


async def test_callers_who_all_wait_are_answered_together():
    """One flush, however many they are, and each gets its own in order."""
    server = Server(answer)
    callers = [["a", "b"], ["c"], [], ["d", "e", "f"]]
    async with buffering(server) as buffer:
        results = await ask_all(buffer, callers)
    assert server.flushes == [["a", "b", "c", "d", "e", "f"]]
    assert results == [[answer(custom_id) for custom_id in caller] for caller in callers]


async def test_a_full_job_does_not_wait():
    """It is flushed as soon as it is full, and the rest when all wait."""
    server = Server(answer)
    async with buffering(server, max_requests=2) as buffer:
        await ask_all(buffer, [["a", "b", "c"], ["d", "e"]])
    assert server.flushes == [["a", "b"], ["c", "d"], ["e"]]


async def test_what_is_asked_again_is_gathered_while_jobs_wait_for_others():
    """Until there is enough for a job; and when nobody waits for a place any more, the rest is asked too."""
    server = Server(lambda custom_id, time: PASSING if custom_id.isupper() and time == 1 else answer(custom_id))
    crowded, last = True, anyio.Event()

    async def answer_the_last_one_later(requests: Sequence[Request], take, since) -> list[str]:
        if requests[0].custom_id == "d":
            await last.wait()
        return await server.answer(requests, take, since)

    async with buffering(server, 3, is_crowded=lambda: crowded) as buffer, anyio.create_task_group() as task_group:
        buffer._answer = answer_the_last_one_later
        for names in ("aA1", "bB2", "d34"):
            task_group.start_soon(buffer.ask, requests(*names))
        await anyio.wait_all_tasks_blocked()
        assert server.flushes == [["a", "A", "1"], ["b", "B", "2"]]
        crowded = False
        last.set()
    assert server.flushes[2:] == [["d", "3", "4"], ["A", "B"]]


async def test_a_new_request_takes_those_along_that_are_asked_again():
    """Its caller has waited for nothing yet."""
    server = Server(lambda custom_id, time: PASSING if custom_id == "a" and time == 1 else answer(custom_id))
    async with buffering(server, is_crowded=lambda: True) as buffer, anyio.create_task_group() as task_group:
        task_group.start_soon(buffer.ask, requests("a"))
        while not server.flushes:
            await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        task_group.start_soon(buffer.ask, requests("b"))
    assert server.flushes == [["a"], ["a", "b"]]


async def test_each_round_is_a_flush():
    """Callers that ask again after their answer are gathered again."""
    server = Server(answer)

    async def rounds(buffer: CallBuffer, name: str) -> None:
        for number in range(3):
            await buffer.ask(requests(f"{name}{number}"))

    async with buffering(server) as buffer, anyio.create_task_group() as task_group:
        for name in "ab":
            task_group.start_soon(rounds, buffer, name)
    assert [sorted(flush) for flush in server.flushes] == [["a0", "b0"], ["a1", "b1"], ["a2", "b2"]]


async def test_a_cancelled_caller_does_not_poison_the_others():
    """They get their answers all the same."""
    server = Server(answer)
    server.gate = anyio.Event()
    results = []
    async with buffering(server) as buffer, anyio.create_task_group() as task_group:

        async def stay() -> None:
            results.extend(await buffer.ask(requests("a")))

        async def leave() -> None:
            with anyio.move_on_after(0.01):
                await buffer.ask(requests("b"))
            server.gate.set()

        task_group.start_soon(stay)
        task_group.start_soon(leave)
    assert results == [answer("a")]


async def cancelled_at_once(scope: anyio.CancelScope) -> None:
    scope.cancel()


async def cancelled_when_all_wait(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def ask_and_leave(buffer: CallBuffer, custom_ids: Sequence[str], cancel=cancelled_at_once) -> None:
    """A caller who is cancelled while it waits."""
    async with anyio.create_task_group() as task_group:
        with anyio.CancelScope() as scope:
            task_group.start_soon(cancel, scope)
            await buffer.ask(requests(*custom_ids))


async def test_who_left_before_the_flush_is_not_asked_for():
    """So whoever then asks the same, under the number that was given back, asks it once."""
    server = Server(answer)
    async with buffering(server) as buffer:
        await ask_and_leave(buffer, ["a", "b"])
        assert await ask_all(buffer, [["c", "a"]]) == [[answer("c"), answer("a")]]
    assert server.flushes == [["c", "a"]]


async def test_a_failure_is_not_for_who_asked_since():
    """What was left while it was under way is asked by a flush of its own, and no further."""
    server = Server(lambda custom_id, time: PASSING if custom_id == "a" and time == 1 else answer(custom_id))
    first, second = anyio.Event(), anyio.Event()
    async with buffering(server) as buffer, anyio.create_task_group() as task_group:
        server.gate = first
        task_group.start_soon(ask_all, buffer, [["b"]])
        await ask_and_leave(buffer, ["a"], cancelled_when_all_wait)
        await anyio.wait_all_tasks_blocked()
        server.gate = second
        task_group.start_soon(ask_all, buffer, [["a"]])
        await anyio.wait_all_tasks_blocked()
        first.set()
        await anyio.wait_all_tasks_blocked()
        second.set()
    assert server.flushes == [["a", "b"], ["a"]]


async def test_a_failure_that_is_kept_back_is_dropped_with_who_left():
    """It takes nothing from whoever asks the same since."""
    server = Server(lambda custom_id, time: BAD if custom_id == "a" and time == 1 else answer(custom_id))
    other, again = anyio.Event(), anyio.Event()

    async def answer_in_turn(requests: Sequence[Request], take, since) -> list[str]:
        if requests[0].custom_id == "b":
            await other.wait()
        elif ["a"] in server.flushes:
            await again.wait()
        return await server.answer(requests, take, since)

    with anyio.fail_after(5):
        async with buffering(server, max_requests=1) as buffer, anyio.create_task_group() as task_group:
            buffer._answer = answer_in_turn
            task_group.start_soon(ask_all, buffer, [["b"]])
            await ask_and_leave(buffer, ["a"], cancelled_when_all_wait)
            task_group.start_soon(buffer.ask, requests("a"))
            await anyio.wait_all_tasks_blocked()
            other.set()
            await anyio.wait_all_tasks_blocked()
            again.set()
    assert server.flushes == [["a"], ["b"], ["a"]]


async def test_the_end_does_not_wait_for_who_left():
    """Batches that are under way are named, though the last who asked is gone."""
    server = Server(answer)
    server.under_way, server.gate = ["batch_1"], anyio.Event()
    results = []

    async def stay() -> None:
        results.extend(await ask_all(buffer, [["a"]]))

    with anyio.fail_after(5):
        async with buffering(server) as buffer, anyio.create_task_group() as task_group:
            task_group.start_soon(stay)
            await anyio.wait_all_tasks_blocked()
            server.gate.set()
            await ask_and_leave(buffer, ["b"])
    assert isinstance(results[0], NotFinished)
    assert server.flushes == [["a"]]


async def test_what_passes_is_asked_again_up_to_the_limit():
    """Together with whatever else is asked then, and no further."""
    server = Server(lambda custom_id, time: PASSING if custom_id == "never" or time < 3 else answer(custom_id))
    async with buffering(server, max_attempts=3) as buffer:
        results = await ask_all(buffer, [["a", "never"], ["b"]])
    assert results == [[answer("a"), PASSING], [answer("b")]]
    assert [sorted(flush) for flush in server.flushes] == [["a", "b", "never"]] * 3


async def test_what_does_not_pass_is_a_failure_at_once():
    """Of its row alone."""
    server = Server(lambda custom_id, time: BAD if custom_id == "b" else answer(custom_id))
    async with buffering(server) as buffer:
        assert await ask_all(buffer, [["a", "b", "c"]]) == [[answer("a"), BAD, answer("c")]]
    assert len(server.flushes) == 1


async def test_an_account_without_money_concerns_everybody():
    """Those who wait, and those who come later."""
    server = Server(
        lambda custom_id, time: Failure("Pay.", 429, "insufficient_quota") if custom_id == "a" else answer("")
    )
    async with buffering(server) as buffer:
        results = await ask_all(buffer, [["a"], ["b"]])
        with pytest.raises(QuotaError, match="Pay"):
            await buffer.ask(requests("c"))
        assert buffer.failed
    assert isinstance(results[0], QuotaError)


@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_when_all_fail_alike_it_is_an_error(size):
    """In one job or in several: a dataset of `None`s helps nobody."""
    async with buffering(Server(lambda custom_id, time: BAD), max_requests=size) as buffer:
        [error] = await ask_all(buffer, [["a", "b", "c", "d"]])
    assert isinstance(error, RequestsFailedError)
    assert str(error) == "All 4 requests failed: Bad. (400, bad)"


async def test_when_they_fail_in_different_ways_each_row_has_its_own_reason():
    """That is no error of the run."""
    other = Failure("Also bad.", 422)
    server = Server(lambda custom_id, time: BAD if custom_id == "a" else other)
    async with buffering(server) as buffer:
        assert await ask_all(buffer, [["a", "b"]]) == [[BAD, other]]


async def test_an_error_reaches_everybody():
    """As it is, not as a group."""

    class Broken(Exception):
        pass

    def breaks(custom_id: str, time: int) -> Outcome:
        raise Broken

    async with buffering(Server(breaks)) as buffer:
        results = await ask_all(buffer, [["a"], ["b", "c"]])
    assert [type(result) for result in results] == [Broken, Broken]


async def test_batches_that_are_not_waited_for_are_named():
    """Once all are submitted."""
    server = Server(answer)
    server.under_way = ["batch_1"]
    async with buffering(server, max_requests=1) as buffer:
        [error] = await ask_all(buffer, [["a", "b"]])
    assert isinstance(error, NotFinished)
    assert error.args == ("batch_1", "batch_1")
    assert server.flushes == [["a"], ["b"]]


async def test_failures_are_no_error_while_batches_are_under_way():
    """What those answer is not known yet, so it is they that are named."""
    server = Server(lambda custom_id, time: BAD)

    async def answer_or_submit(requests: Sequence[Request], take, since) -> list[str]:
        return ["batch_1"] if requests[0].custom_id == "a" else await server.answer(requests, take, since)

    async with buffering(server, max_requests=1) as buffer:
        buffer._answer = answer_or_submit
        error, failures = await ask_all(buffer, [["a", "b"], ["c"]])
    assert isinstance(error, NotFinished)
    assert failures == [BAD]


OUTCOMES = st.sampled_from(["answer", "passing", "bad", "worse"])


@given(
    callers=st.lists(st.lists(st.lists(OUTCOMES, min_size=1, max_size=4), max_size=5), max_size=6),
    max_requests=st.integers(1, 7),
    max_attempts=st.integers(1, 4),
)
@settings(deadline=None)
def test_everybody_gets_its_own(callers, max_requests, max_attempts):
    """Any mix of callers, sizes and outcomes: each request's last outcome, in its caller's order."""
    said = {"answer": None, "passing": PASSING, "bad": BAD, "worse": Failure("Worse.", 422)}
    script = {f"{c}-{r}": plan for c, caller in enumerate(callers) for r, plan in enumerate(caller)}

    def outcome(custom_id: str, time: int) -> Outcome:
        plan = script[custom_id]
        return said[plan[min(time, len(plan)) - 1]] or answer(custom_id)

    def last(custom_id: str) -> Outcome:
        for time in range(1, max_attempts + 1):
            if (result := outcome(custom_id, time)) is not PASSING:
                break
        return result

    async def run() -> list[object]:
        async with buffering(Server(outcome), max_requests, max_attempts) as buffer:
            return await ask_all(buffer, [[f"{c}-{r}" for r in range(len(caller))] for c, caller in enumerate(callers)])

    right = [[last(f"{c}-{r}") for r in range(len(caller))] for c, caller in enumerate(callers)]
    results = anyio.run(run)
    if any(isinstance(result, RequestsFailedError) for result in results):
        # Nothing was answered, and all that is settled failed alike.
        assert not any(isinstance(result, Answer) for caller in right for result in caller)
    else:
        assert results == right
