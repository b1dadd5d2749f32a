"""Jobs that tasks of this session run, so that no two tasks run the same job, and the local work of these tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from distilabel_openai_batch.engine.activity import Activity


class RunningJobs:
    """The jobs that a task of this session runs now, by their ids in the ledger.

    Attributes:
        activity: the local work of the jobs' tasks.
    """

    def __init__(self) -> None:
        self.activity = Activity()
        self._ended: dict[int, anyio.Event] = {}

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._ended

    @contextmanager
    def running(self, job_id: int) -> Iterator[None]:
        """Mark a job as running for the context; tasks that wait for the job wait for the end of the context."""
        self._ended[job_id] = anyio.Event()
        try:
            yield
        finally:
            self._ended.pop(job_id).set()

    async def wait_for(self, job_id: int) -> None:
        """Wait until the task that runs a job is done with it."""
        await self._ended[job_id].wait()
