"""Uploads while the server's file storage is full: the line of waiting uploads, and its end."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
import pytest

from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine import file_storage
from distilabel_openai_batch.engine.file_storage import FileStorage
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.errors import StorageFullError
from tests.unit.engine.conftest import FAST_SETTINGS


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    """Shorten the pauses before an upload of a run without jobs."""
    monkeypatch.setattr(file_storage, "_PAUSES", Patience(0.001, 0.002))


class Recorder(Observer):
    """Observer that keeps the refusals that are waited out."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def on_storage_full(self, reason: str) -> None:
        self.reasons.append(reason)


class Server:
    """Server with room for a number of files.

    Attributes:
        room: the number of files that it still accepts.
        attempts: the number of uploads, refused ones too.
    """

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.attempts = 0

    async def upload(self) -> str:
        self.attempts += 1
        await anyio.sleep(0)
        if not self.room:
            raise StorageFullError("The storage is full.")
        self.room -= 1
        return f"file-{self.attempts}"


def make_storage(observer: Observer | None = None, find_others=None, **settings) -> FileStorage:
    chosen = replace(FAST_SETTINGS, **{"delete_files": True, **settings})
    arguments = {"find_others": find_others} if find_others else {}
    return FileStorage(chosen, observer or Observer(), **arguments)


async def test_an_upload_with_room_is_made_once():
    server = Server(room=1)
    assert await make_storage().upload(9, server.upload) == "file-1"
    assert server.attempts == 1


@pytest.mark.parametrize("settings", [{"delete_files": False}, {"wait": False}])
async def test_a_full_storage_is_an_error_if_no_job_will_free_files(settings):
    """Without `delete_files` files stay; a run that does not wait collects no job."""
    server, storage = Server(), make_storage(**settings)
    storage.hold(1)
    with pytest.raises(StorageFullError, match="full"):
        await storage.upload(9, server.upload)
    assert server.attempts == 1


async def test_a_full_storage_is_an_error_if_no_job_has_files():
    """Files of other programs fill the storage."""
    server = Server()
    with pytest.raises(StorageFullError):
        await make_storage().upload(9, server.upload)
    assert server.attempts == 1


async def test_uploads_wait_in_line_until_jobs_free_their_files():
    """Each end of a job leads to one further upload, and each upload that succeeds to a try of the next one."""
    server, observer = Server(), Recorder()
    storage = make_storage(observer)
    storage.hold(1)
    storage.hold(2)
    uploaded: list[str | None] = []

    async def upload(job_id: int) -> None:
        uploaded.append(await storage.upload(job_id, server.upload))

    async with anyio.create_task_group() as task_group:
        for job_id in (4, 5, 6):
            task_group.start_soon(upload, job_id)
        await anyio.wait_all_tasks_blocked()
        assert server.attempts == 3
        assert observer.reasons == ["The storage is full."]

        storage.release(1)
        await anyio.wait_all_tasks_blocked()
        assert server.attempts == 4
        assert uploaded == []

        server.room = 2
        storage.release(2)
        storage.hold(3)
        await anyio.wait_all_tasks_blocked()
        assert server.attempts == 7
        assert len(uploaded) == 2

        server.room = 1
        storage.release(3)
    assert len(uploaded) == 3
    assert server.attempts == 8


async def test_an_upload_that_has_not_returned_may_have_taken_the_last_room():
    """The refusal of another upload arrives first."""
    server, storage = Server(), make_storage()
    accepted = anyio.Event()
    uploaded: list[str | None] = []

    async def upload_slowly() -> str:
        await accepted.wait()
        return "file-slow"

    async def upload(job_id: int, attempt) -> None:
        uploaded.append(await storage.upload(job_id, attempt))

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(upload, 1, upload_slowly)
        task_group.start_soon(upload, 2, server.upload)
        await anyio.wait_all_tasks_blocked()
        assert (server.attempts, uploaded) == (1, [])
        accepted.set()
        await anyio.wait_all_tasks_blocked()
        assert (server.attempts, uploaded) == (1, ["file-slow"])
        server.room = 1
        storage.release(1)
    assert uploaded == ["file-slow", "file-2"]


async def test_a_refusal_is_raised_if_all_other_uploads_are_refused_too():
    server, storage = Server(), make_storage()

    async def upload(job_id: int) -> None:
        with pytest.raises(StorageFullError):
            await storage.upload(job_id, server.upload)

    async with anyio.create_task_group() as task_group:
        for job_id in range(3):
            task_group.start_soon(upload, job_id)
    assert server.attempts == 3


async def test_an_upload_after_the_last_job_is_repeated_a_few_times():
    """The server may count deleted files for a while."""
    server, storage = Server(), make_storage()
    storage.hold(1)
    storage.release(1)
    with pytest.raises(StorageFullError):
        await storage.upload(9, server.upload)
    assert server.attempts == 4


async def test_the_end_of_a_job_without_files_wakes_no_upload():
    server, storage = Server(), make_storage()
    storage.release(1)
    with pytest.raises(StorageFullError):
        await storage.upload(9, server.upload)
    assert server.attempts == 1


async def test_the_jobs_of_other_sessions_are_waited_for():
    """A sibling Task's jobs fill the storage; the first of them that ends may free it."""
    server, observer = Server(), Recorder()
    others = [{1, 2}, {1, 2}, {2}]

    async def find_others() -> set[int]:
        found = others.pop(0)
        server.room = not others
        return found

    assert await make_storage(observer, find_others).upload(9, server.upload) == "file-2"
    assert observer.reasons == ["The storage is full."]


async def test_the_deadline_ends_the_wait():
    server, storage = Server(), make_storage()
    storage.hold(1)
    assert await storage.upload(9, server.upload, time.time() - 1.0) is None
    assert server.attempts == 1
