"""Jobs that a task of the session runs."""

from __future__ import annotations

import anyio
import pytest

from distilabel_openai_batch.engine.running_jobs import RunningJobs


async def test_tasks_wait_for_the_end_of_a_running_job():
    jobs, events = RunningJobs(), []

    async def wait() -> None:
        await jobs.wait_for(1)
        events.append("waited")

    async with anyio.create_task_group() as task_group:
        with jobs.running(1):
            assert 1 in jobs
            assert 2 not in jobs
            task_group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            events.append("ended")
    assert events == ["ended", "waited"]
    assert 1 not in jobs


async def test_a_job_that_fails_is_not_running_any_more():
    jobs = RunningJobs()

    def fail() -> None:
        with jobs.running(1):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert 1 not in jobs
