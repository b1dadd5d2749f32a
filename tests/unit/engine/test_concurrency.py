"""Adaptive limit for the synchronous requests in flight, with a fake clock."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from distilabel_openai_batch.api.rate_limits import NO_RATE_LIMITS, RateLimits
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.concurrency import Attempt, Concurrency
from tests.unit.engine.fake_clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def limit(clock) -> Concurrency:
    # anyio 4.4 creates a capacity limiter in an event loop only.
    return Concurrency(100, Patience(first=1.0, longest=60.0), clock, clock.sleep)


def accept(limit: Concurrency, requests: int, limits: RateLimits = NO_RATE_LIMITS) -> None:
    for _ in range(requests):
        limit.note_accepted(limits)


async def refuse(limit: Concurrency, pause: float = 0.0) -> Attempt:
    """Begin an attempt, and refuse the attempt."""
    async with limit.admit() as attempt:
        limit.note_refused(attempt, pause)
    return attempt


async def test_the_limit_doubles_for_each_round_of_accepted_requests(limit):
    assert limit.size == 16
    sizes = []
    for _ in range(4):
        accept(limit, limit.size)
        sizes.append(limit.size)
    assert sizes == [32, 64, 100, 100]


async def test_the_limit_starts_below_its_highest_value(clock):
    assert Concurrency(4, Patience(), clock, clock.sleep).size == 4


async def test_a_refusal_halves_the_limit_and_ends_the_doubling(limit):
    await refuse(limit)
    assert limit.size == 8
    accept(limit, 7)
    assert limit.size == 8
    accept(limit, 1)
    assert limit.size == 9
    accept(limit, 9)
    assert limit.size == 10


async def test_refusals_of_requests_in_flight_together_count_once(limit):
    for _ in range(3):
        limit.note_refused(Attempt(decreases=0), 0)
    assert limit.size == 8
    await refuse(limit)
    assert limit.size == 4


async def test_the_limit_never_falls_below_one(limit):
    for _ in range(10):
        await refuse(limit)
    assert limit.size == 1
    accept(limit, 1)
    assert limit.size == 2


async def test_pauses_double_with_refusals_in_a_row(limit, clock):
    """No attempt begins during a pause; an accepted request ends the row."""
    begins = []
    for _ in range(4):
        start = clock.now
        await refuse(limit)
        begins.append(clock.now - start)
    assert begins == [0, 1, 2, 4]
    assert limit.refused_seconds == 7
    async with limit.admit():
        limit.note_accepted(NO_RATE_LIMITS)
    assert limit.refused_seconds == 0
    await refuse(limit)
    start = clock.now
    await refuse(limit)
    assert clock.now - start == 1


@pytest.mark.parametrize(("asked", "paused"), [(0, 1), (0.5, 1), (30, 30), (90, 90)])
async def test_a_pause_that_a_refusal_asks_for_is_kept(limit, clock, asked, paused):
    await refuse(limit, asked)
    start = clock.now
    async with limit.admit():
        assert clock.now - start == paused


@pytest.mark.parametrize(("pause", "paused"), [(0, 0), (7, 7), (3_600, 60)])
async def test_a_spent_rate_limit_pauses_the_next_attempts(limit, clock, pause, paused):
    accept(limit, 1, RateLimits(0, pause))
    start = clock.now
    async with limit.admit():
        assert clock.now - start == paused


async def test_the_rest_of_the_rate_limit_bounds_the_increase(limit):
    accept(limit, 16, RateLimits(remaining_requests=20))
    assert limit.size == 20
    accept(limit, 20, RateLimits(remaining_requests=3))
    assert limit.size == 20


async def test_a_server_with_few_slots_refuses_few_requests(clock, limit):
    """Each of 600 requests is accepted in the end, and five of six attempts are, with five or forty slots."""
    for slots in (5, 40):
        limit = Concurrency(100, Patience(first=1.0), clock, clock.sleep)
        in_flight, refusals = 0, 0

        async def send(limit: Concurrency, slots: int) -> None:
            nonlocal in_flight, refusals
            while True:
                async with limit.admit() as attempt:
                    if in_flight >= slots:
                        refusals += 1
                        limit.note_refused(attempt, 0)
                        continue
                    in_flight += 1
                    for _ in range(5):
                        await anyio.lowlevel.checkpoint()
                    in_flight -= 1
                    limit.note_accepted(NO_RATE_LIMITS)
                    return

        async with anyio.create_task_group() as task_group:
            for _ in range(600):
                task_group.start_soon(send, limit, slots)
        assert 0 < refusals < 120
