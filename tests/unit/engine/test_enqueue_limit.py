"""The limit of enqueued requests: sizes learned from refusals, the line of waiting jobs, and the number of trials."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio.lowlevel import checkpoint

from distilabel_openai_batch.engine.enqueue_limit import Admission, EnqueueLimit
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.ledger.states import Job, JobState

NO_PAUSE = PollSchedule(0.0, 0.0)


def make_limit(max_requests: int = 50_000, **arguments) -> EnqueueLimit:
    return EnqueueLimit(NO_PAUSE, max_requests, **arguments)


def make_job(requests: int, job_id: int = 0) -> Job:
    return Job(job_id, f"key-{job_id}", "owner", JobState.UPLOADED, "/v1/chat/completions", requests, 0.0)


def enqueue(limit: EnqueueLimit, job: Job) -> Admission:
    """Return the admission of a job whose batch is enqueued."""
    admission = Admission(limit)
    admission.enqueue(job)
    return admission


async def refuse(admission: Admission, job: Job) -> bool:
    """Refuse the batch of an enqueued job; return whether the job is to be created again."""
    admission.leave(was_accepted=False)
    return await admission.wait_for_capacity(job)


async def refuse_beside(limit: EnqueueLimit, others: list[int], requests: int) -> bool:
    """Refuse a job beside other jobs, and end one of them; return whether the job is to be created again."""
    results: list[bool] = []
    first, *_ = [enqueue(limit, make_job(size, job_id)) for job_id, size in enumerate(others)]
    job = make_job(requests, 99)
    admission = enqueue(limit, job)

    async def wait() -> None:
        results.append(await refuse(admission, job))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        first.leave(was_accepted=True)
    return results[0]


@pytest.mark.parametrize(
    ("others", "refused", "size"),
    [
        ([50_000] * 6, 50_000, 10_937),
        ([50_000] * 30, 50_000, 48_437),
        # Other runs have taken most of the quota → the refusal says little about the size of the quota.
        ([10], 50_000, 1_562),
        ([10], 5_000, 1_000),
    ],
)
def test_a_refusal_beside_other_jobs_sets_the_size_of_jobs(others, refused, size):
    """The size is a thirty-second of the enqueued requests, but at least a fiftieth of the largest job."""
    limit = make_limit()

    anyio.run(refuse_beside, limit, others, refused)

    assert limit.size == size
    assert not limit.is_too_large(size)
    assert limit.is_too_large(2 * size)


def test_the_size_counts_the_jobs_at_the_time_of_the_creation():
    """Jobs are created together and refused in turn; the last refused job was not alone when it was created."""

    async def refuse_all(limit: EnqueueLimit) -> None:
        jobs = [make_job(1_000, job_id) for job_id in range(8)]
        admissions = [enqueue(limit, job) for job in jobs]
        for admission in admissions:
            admission.leave(was_accepted=False)
        assert not await admissions[-1].wait_for_capacity(jobs[-1])

    limit = make_limit(1_000)
    anyio.run(refuse_all, limit)
    assert limit.size == 250


def test_a_small_job_waits_for_another_job_to_end():
    """Smaller jobs would be refused as well, so a job of the right size keeps its size."""
    assert anyio.run(refuse_beside, make_limit(), [1_000] * 40, 1_000)


def test_a_job_that_is_refused_alone_is_retried_three_times_and_then_halved():
    """Failed batches count against the quota for a while; after the retries the job can only become smaller."""

    async def refuse_four_times(limit: EnqueueLimit, requests: int) -> list[bool]:
        job = make_job(requests)
        admission = enqueue(limit, job)
        return [await refuse(admission, job) for _ in range(4)]

    limit = make_limit()
    assert anyio.run(refuse_four_times, limit, 900) == [True, True, True, False]
    assert limit.size == 450
    assert anyio.run(refuse_four_times, limit, 1) == [True, True, True, False]
    assert limit.size == 1
    assert not limit.is_too_large(1)


def test_two_refused_jobs_do_not_wait_for_each_other_forever():
    """A refused job waits for the other one until the other one is refused too; then both are retried as if alone."""
    created = []

    async def create_until_too_large(limit: EnqueueLimit, job: Job) -> None:
        admission = Admission(limit)
        while True:
            admission.enqueue(job)
            created.append(job.id)
            await anyio.wait_all_tasks_blocked()
            if not await refuse(admission, job):
                return

    async def refuse_both() -> None:
        limit = make_limit()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(create_until_too_large, limit, make_job(1, 0))
                task_group.start_soon(create_until_too_large, limit, make_job(1, 1))

    anyio.run(refuse_both)
    assert sorted(created) == [0] * 4 + [1] * 4


def test_few_jobs_are_on_trial_until_the_server_accepts_one():
    """A refused job was uploaded for nothing, so eight jobs are tried first; each accepted job allows two more."""

    async def count_admitted(accepted: int) -> int:
        limit, admitted = make_limit(), 0

        async def enter(stack: AsyncExitStack) -> None:
            nonlocal admitted
            admission = await stack.enter_async_context(limit.admit())
            assert admission
            admitted += 1
            if admitted <= accepted:
                admission.accept()
                admission.accept()
                admission.end_trial()

        async with AsyncExitStack() as stack, anyio.create_task_group() as task_group:
            for _ in range(100):
                task_group.start_soon(enter, stack)
            await anyio.wait_all_tasks_blocked()
            task_group.cancel_scope.cancel()
        await checkpoint()
        return admitted

    assert [anyio.run(count_admitted, accepted) for accepted in (0, 1, 8)] == [8, 10, 24]


def test_a_refused_job_waits_for_the_jobs_of_other_tasks_and_keeps_its_size():
    """A refusal beside another process's jobs says nothing about the size, however often it is repeated."""
    polls = [{7, 8}, {7, 8}, {7, 8, 9}, {8, 9}] * 5 + [set()] * 4
    results = iter(polls)

    async def find_sharing(job_id: int) -> set[int]:
        assert job_id == 1
        return next(results)

    limit, job = make_limit(find_sharing=find_sharing), make_job(50_000, 1)
    admission = Admission(limit)

    async def enqueue_and_refuse() -> bool:
        admission.enqueue(job)
        return await refuse(admission, job)

    assert [anyio.run(enqueue_and_refuse) for _ in range(5)] == [True] * 5
    assert limit.size is None
    assert [anyio.run(enqueue_and_refuse) for _ in range(4)] == [True, True, True, False]
    assert limit.size == 25_000


async def test_at_most_max_jobs_are_admitted():
    limit, admitted = make_limit(max_jobs=2), 0

    async def enter() -> None:
        nonlocal admitted
        async with limit.admit():
            admitted += 1
            await anyio.sleep_forever()

    async with anyio.create_task_group() as task_group:
        for _ in range(2):
            task_group.start_soon(enter)
        await anyio.wait_all_tasks_blocked()
        assert not limit.is_crowded
        task_group.start_soon(enter)
        await anyio.wait_all_tasks_blocked()
        assert limit.is_crowded
        assert admitted == 2
        task_group.cancel_scope.cancel()


@pytest.mark.parametrize("max_jobs", [1, 100])
async def test_a_job_is_not_admitted_after_its_deadline(max_jobs):
    """The job waits for a place or for a trial; the deadline ends the wait, and later jobs are admitted as before."""
    limit = make_limit(max_jobs=max_jobs)
    async with AsyncExitStack() as stack:
        for _ in range(min(max_jobs, 8)):
            assert await stack.enter_async_context(limit.admit())
        async with limit.admit(time.monotonic() + 0.01) as admission:
            assert admission is None
    async with limit.admit(time.monotonic() + 5.0) as admission:
        assert admission


async def test_a_job_that_dies_frees_its_capacity():
    """Otherwise a refused job would wait for a job that no task runs."""
    limit = make_limit()

    async def die() -> None:
        async with limit.admit() as admission:
            assert admission
            admission.enqueue(make_job(1_000))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await die()
    with anyio.fail_after(5):
        with limit.admit_resumed() as admission:
            admission.enqueue(make_job(10))
            assert await refuse(admission, make_job(10))
    assert limit.size is None
