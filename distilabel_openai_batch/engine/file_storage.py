"""Uploads while the server's file storage is full: they wait for jobs of the run to free their files.

OpenAI limits the bytes of an organization's or project's files, Azure the number of a resource's files.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Set
from math import inf

import anyio

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import JobSettings

# The server may count a deleted file for a while → after the last job has ended, an upload is repeated this often.
_RETRIES_ALONE = 3
_PAUSES = Patience(first=15.0)


async def _find_none() -> Set[int]:
    return frozenset()


class FileStorage:
    """The server's file storage, as far as the jobs of a session fill it and free it.

    Args:
        settings: the settings of jobs.
        observer: receives the refusals that are waited out.
        find_others: returns the ids of other sessions' jobs in progress at the same server.
    """

    def __init__(
        self, settings: JobSettings, observer: Observer, find_others: Callable[[], Awaitable[Set[int]]] = _find_none
    ) -> None:
        self._may_free = settings.delete_files and settings.wait
        self._schedule = settings.schedule
        self._observer = observer
        self._find_others = find_others
        self._jobs: set[int] = set()
        self._attempts = 0
        self._releases = 0
        self._retries_alone = 0
        self._changed = anyio.Event()
        self._first_in_line = anyio.Lock()

    def hold(self, job_id: int) -> None:
        """Note that a job has files on the server, which its end may free."""
        self._jobs.add(job_id)

    def release(self, job_id: int) -> None:
        """Note the end of a job; a job without files on the server changes nothing."""
        if job_id in self._jobs:
            self._jobs.remove(job_id)
            self._note_release()

    async def upload(self, job_id: int, attempt: Callable[[], Awaitable[str]], deadline: float = inf) -> str | None:
        """Upload a job's file; while the storage is full, wait until another job ends, and upload the file again.

        Args:
            job_id: the job, which has files on the server then.
            attempt: uploads the file, and returns the id of the file.
            deadline: the time until which to wait, in seconds since the epoch.

        Returns:
            The id of the file; `None` if the deadline passed first.

        Raises:
            StorageFullError: the storage is full, and no job of the run will free files.
            RunError: the server refuses the file, cannot use it, or could not be reached.
        """
        releases = self._releases
        try:
            return await self._try(job_id, attempt)
        except errors.StorageFullError as error:
            refusal = error
        # Files that one job frees make room for few uploads, and the server would refuse all others again → wait in
        # line.
        async with self._first_in_line:
            while True:
                if releases == self._releases:
                    with anyio.move_on_after(deadline - time.time()) as waiting:
                        await self._wait_for_release(refusal)
                    if waiting.cancelled_caught:
                        return None
                releases = self._releases
                try:
                    return await self._try(job_id, attempt)
                except errors.StorageFullError as error:
                    refusal = error

    async def _wait_for_release(self, refusal: errors.StorageFullError) -> None:
        """Wait until the storage may have room again.

        Raises:
            StorageFullError: the refusal, if no job will free files.
        """
        if not self._may_free:
            raise refusal
        releases = self._releases
        if self._jobs:
            self._observer.on_storage_full(str(refusal))
        # An upload that has not returned may have taken the last room, and its job will free files.
        while self._jobs or self._attempts:
            await self._changed.wait()
            if self._releases != releases:
                return
        if others := await self._find_others():
            self._observer.on_storage_full(str(refusal))
            while others <= await self._find_others():
                await anyio.sleep(self._schedule.interval(0.0))
            self._note_release()
        elif self._releases and self._retries_alone < _RETRIES_ALONE:
            self._retries_alone += 1
            await anyio.sleep(_PAUSES.pause(self._retries_alone))
        else:
            raise refusal

    async def _try(self, job_id: int, attempt: Callable[[], Awaitable[str]]) -> str:
        """Make an attempt; after a success the job has files on the server."""
        self._attempts += 1
        try:
            file_id = await attempt()
            self.hold(job_id)
        finally:
            self._attempts -= 1
            self._note_change()
        return file_id

    def _note_release(self) -> None:
        """Let the first upload in line try again."""
        self._releases += 1
        self._retries_alone = 0
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
