"""What is learnt from a server that does not take so many tokens at once, and how many jobs are tried before."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.settings import PollSchedule

AT_ONCE = PollSchedule(0.0, 0.0)


def room() -> Room:
    return Room(AT_ONCE, max_requests=50_000)


@pytest.mark.parametrize(
    ("others", "refused", "size"),
    [
        ([50_000] * 6, 50_000, 10_937),
        ([50_000] * 30, 50_000, 48_437),
        # Others than this run have taken what the limit allows: that says nothing of how large it is.
        ([10], 50_000, 1_562),
        ([10], 5_000, 1_000),
    ],
)
def test_a_refusal_beside_others_says_how_large_a_job_should_be(others, refused, size):
    """A thirty-second of what there would have been, but never a fiftieth of the largest job."""
    jobs = room()

    anyio.run(refused_and_freed, jobs, others, refused)

    assert jobs.size == size
    assert not jobs.is_too_large(size)
    assert jobs.is_too_large(2 * size)


async def refused_and_freed(jobs: Room, others: list[int], requests: int) -> bool:
    """What a job is told that was refused, once another one has ended."""
    told: list[bool] = []
    for number, these in enumerate(others):
        jobs.enter(number, these)
    enqueued = jobs.enter(99, requests)
    jobs.leave(99, was_taken=False)

    async def wait() -> None:
        told.append(await jobs.wait(99, requests, enqueued))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        jobs.leave(0, was_taken=True)
    return told[0]


def test_it_counts_who_was_there_when_it_came():
    """Many are created at once, and refused one after another: the last one, alone by then, was not refused alone."""

    async def refuse_all(jobs: Room) -> None:
        enqueued = [jobs.enter(number, 1_000) for number in range(8)]
        for number in range(8):
            jobs.leave(number, was_taken=False)
        assert not await jobs.wait(7, 1_000, enqueued[-1])

    jobs = Room(AT_ONCE, max_requests=1_000)
    anyio.run(refuse_all, jobs)
    assert jobs.size == 250


def test_what_fits_as_well_as_any_waits_for_another_to_end():
    """It is small already: smaller ones would not get in either."""
    assert anyio.run(refused_and_freed, room(), [1_000] * 40, 1_000)


def test_alone_it_is_tried_again_and_then_halved():
    """Failed batches count for a while; after that nothing is left but to ask for less, down to one request."""

    async def try_alone(jobs: Room, requests: int) -> list[bool]:
        return [await jobs.wait(requests, requests, requests) for _ in range(4)]

    jobs = room()
    assert anyio.run(try_alone, jobs, 900) == [True, True, True, False]
    assert jobs.size == 450
    assert anyio.run(try_alone, jobs, 1) == [True, True, True, False]
    assert jobs.size == 1
    assert not jobs.is_too_large(1)


def test_two_that_do_not_fit_do_not_wait_for_each_other_for_ever():
    """Each is the other's hope until that is refused too; then both are tried as if they were alone."""
    tried = []

    async def refuse(jobs: Room, job_id: int) -> None:
        while True:
            enqueued = jobs.enter(job_id, 1)
            tried.append(job_id)
            await anyio.wait_all_tasks_blocked()
            jobs.leave(job_id, was_taken=False)
            if not await jobs.wait(job_id, 1, enqueued):
                return

    async def refuse_both() -> None:
        jobs = room()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(refuse, jobs, 0)
                task_group.start_soon(refuse, jobs, 1)

    anyio.run(refuse_both)
    assert sorted(tried) == [0] * 4 + [1] * 4


def test_few_are_tried_before_the_server_has_taken_any():
    """What is refused was uploaded for nothing; each one that is taken makes way for two."""

    async def tried(accepted: int) -> int:
        jobs, begun = room(), 0

        async def begin(stack: AsyncExitStack) -> None:
            nonlocal begun
            over = await stack.enter_async_context(jobs.trial())
            begun += 1
            if begun <= accepted:
                jobs.accept()
                over()
                over()

        async with AsyncExitStack() as stack, anyio.create_task_group() as task_group:
            for _ in range(100):
                task_group.start_soon(begin, stack)
            await anyio.wait_all_tasks_blocked()
            task_group.cancel_scope.cancel()
        await checkpoint()
        return begun

    assert [anyio.run(tried, accepted) for accepted in (0, 1, 8)] == [8, 10, 24]


def test_what_a_job_of_another_task_leaves_says_nothing():
    """It waits until one of those has ended, however often it is refused, and stays as large as it is."""
    looks = [{7, 8}, {7, 8}, {7, 8, 9}, {8, 9}] * 5 + [set()] * 4
    left = iter(looks)

    async def beside(job_id: int) -> set[int]:
        assert job_id == 1
        return next(left)

    jobs = Room(AT_ONCE, 50_000, beside)

    async def refused() -> bool:
        enqueued = jobs.enter(1, 50_000)
        jobs.leave(1, was_taken=False)
        return await jobs.wait(1, 50_000, enqueued)

    assert [anyio.run(refused) for _ in range(5)] == [True] * 5
    assert jobs.size is None
    assert [anyio.run(refused) for _ in range(4)] == [True, True, True, False]
    assert jobs.size == 25_000
