"""Upload, download and deletion of files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.files import RESULTS_VISIBLE_SECONDS, is_input_file_refused
from tests.support.batch_api import API_KEY, CALLS, INPUT, LIMIT, LOGGER, calls_made, connect, refusal, reply

# Uploads.


async def test_an_upload_sends_the_file_with_name_and_purpose(api, server, input_file):
    """The bytes are unchanged, and the name ends in .jsonl, which the API requires."""
    route = CALLS["upload"].route(server).mock(return_value=CALLS["upload"].success)
    assert await api.files.upload(input_file, "input.jsonl") == "file-1"
    request = route.calls.last.request
    assert request.headers["content-type"].startswith("multipart/form-data")
    assert request.headers["authorization"] == f"Bearer {API_KEY}"
    assert b'name="purpose"\r\n\r\nbatch\r\n' in request.content
    assert b'name="file"; filename="input.jsonl"' in request.content
    assert b"\r\n\r\n" + INPUT + b"\r\n" in request.content


def file_reply(status: str, **fields: object) -> httpx.Response:
    """Return a file object as Azure writes it."""
    return reply({"id": "file-1", "object": "file", "status": status, **fields})


async def test_a_pending_upload_is_polled_until_it_is_ready(api, server, clock, input_file):
    """The pauses grow, and any other status than `pending` or `running` means ready."""
    CALLS["upload"].route(server).mock(return_value=file_reply("pending"))
    server.get("/files/file-1").mock(
        side_effect=[file_reply("pending"), httpx.Response(503), file_reply("running"), file_reply("ready")]
    )
    assert await api.files.upload(input_file, "input.jsonl") == "file-1"
    assert clock.pauses == [0.5, 1.0, 0.5, 2.0]


@pytest.mark.parametrize("status", ["error", "deleted"])
async def test_an_upload_that_the_server_cannot_use_is_an_error(api, server, input_file, status):
    """The error quotes the server."""
    CALLS["upload"].route(server).mock(return_value=file_reply("pending"))
    server.get("/files/file-1").mock(return_value=file_reply(status, status_details="There is a byte-order mark."))
    with pytest.raises(errors.RunError, match=f"file-1, its status is {status}: There is a byte-order mark."):
        await api.files.upload(input_file, "input.jsonl")


async def test_a_pending_upload_is_given_up_after_half_an_hour(api, server, clock, input_file):
    CALLS["upload"].route(server).mock(return_value=file_reply("pending"))
    server.get("/files/file-1").mock(return_value=file_reply("pending"))
    with pytest.raises(errors.RunError, match="file-1 is still pending 1,800 s after its upload"):
        await api.files.upload(input_file, "input.jsonl")
    assert 1_800 <= clock.now <= 1_900


def file_list(**names: str) -> httpx.Response:
    """Return the list of files with the given ids and names."""
    files = [{"id": file_id, "object": "file", "filename": name} for file_id, name in names.items()]
    return reply({"object": "list", "data": files})


async def test_a_leftover_of_a_repeated_upload_is_deleted(api, server, input_file):
    """Only files with the upload's name are deleted, because no other upload has the same name."""
    CALLS["upload"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["upload"].success])
    names = {"file-0": "input.jsonl", "file-1": "input.jsonl", "file-2": "another.jsonl"}
    server.get("/files").mock(return_value=file_list(**names))
    server.delete("/files/file-0").mock(return_value=reply({"id": "file-0", "deleted": True}))
    assert await api.files.upload(input_file, "input.jsonl") == "file-1"
    assert calls_made(server)[-1] == "DELETE /files/file-0"


STORAGE_FULL = "You have exceeded your file storage quota. Organizations are limited to 100 GB of files."
FULL_STORAGE_REPLIES = [
    refusal(400, STORAGE_FULL),
    refusal(403, STORAGE_FULL),
    refusal(429, "Quota exceeded for metric: file_storage_bytes", code="RESOURCE_EXHAUSTED"),
    refusal(400, "The quota for files without expiry is reached. The maximum is 500.", code="quotaExceeded"),
    httpx.Response(507, html="<h1>Insufficient Storage</h1>"),
]


@pytest.mark.parametrize("answer", FULL_STORAGE_REPLIES)
async def test_a_full_file_storage_is_an_error_with_advice(api, server, clock, input_file, answer):
    """No status code makes the upload wait for hours here; the engine knows when a job frees files."""
    CALLS["upload"].route(server).mock(return_value=answer)
    with pytest.raises(errors.StorageFullError, match=r"storage is full\. Delete files.*expire.*`delete_files=True`"):
        await api.files.upload(input_file, "input.jsonl")
    assert calls_made(server) == ["POST /files"]


async def test_an_account_without_money_is_no_full_file_storage(api, server, input_file):
    """The code decides, whatever the message says."""
    CALLS["upload"].route(server).mock(return_value=refusal(429, STORAGE_FULL, code="insufficient_quota"))
    with pytest.raises(errors.QuotaError):
        await api.files.upload(input_file, "input.jsonl")


async def test_words_about_storage_mean_nothing_in_another_call(api, server):
    CALLS["create"].route(server).mock(return_value=refusal(400, STORAGE_FULL))
    with pytest.raises(errors.RunError) as raised:
        await api.create("file-1", "/v1/chat/completions", "24h", "key", {})
    assert type(raised.value) is errors.RunError


async def test_the_leftover_of_an_upload_that_filled_the_storage_is_deleted(api, server, input_file):
    """The reply to the first upload was lost."""
    CALLS["upload"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), refusal(400, STORAGE_FULL)])
    server.get("/files").mock(return_value=file_list(**{"file-0": input_file.name}))
    server.delete("/files/file-0").mock(return_value=reply({"id": "file-0", "deleted": True}))
    with pytest.raises(errors.StorageFullError):
        await api.files.upload(input_file, "input.jsonl")
    assert calls_made(server)[-1] == "DELETE /files/file-0"


# Deletion and the list.


async def test_all_files_with_a_name_are_deleted(api, server):
    server.get("/files").mock(return_value=file_list(a="x.jsonl", b="y.jsonl", c="x.jsonl"))
    deletions = server.delete(path__regex="/files/[ac]$").mock(return_value=reply({"deleted": True}))
    await api.files.delete_by_name("x.jsonl")
    assert deletions.call_count == 2


@pytest.mark.parametrize(
    "failure", [refusal(403), refusal(404), httpx.Response(503), httpx.ConnectError("gone"), reply({"data": None})]
)
async def test_a_server_without_a_list_of_files_is_ignored(api, server, clock, failure):
    """Leftover files cost nothing, so a failure is neither raised nor retried."""
    server.get("/files").mock(side_effect=[failure])
    await api.files.delete_by_name("x.jsonl")
    assert calls_made(server) == ["GET /files"]
    assert clock.pauses == []


@pytest.mark.parametrize("failure", [refusal(403, "Not you."), httpx.ConnectError("Not you")])
async def test_a_failed_deletion_is_logged(api, server, clock, caplog, failure):
    server.delete("/files/file-1").mock(side_effect=[failure])
    with caplog.at_level(logging.WARNING, LOGGER.name):
        await api.files.delete("file-1")
    assert "Could not delete file file-1 from the server: Not you." in caplog.text
    assert clock.pauses == []


async def test_refused_deletions_of_one_kind_are_logged_once(api, server, caplog):
    """A server may delete no file at all, and a run has hundreds."""
    server.delete(path__startswith="/files/").mock(
        side_effect=[refusal(400, "No."), refusal(400, "No."), refusal(404, "Gone."), refusal(400, "No.")]
    )
    with caplog.at_level(logging.WARNING, LOGGER.name):
        for number in range(4):
            await api.files.delete(f"file-{number}")
    assert [message.split(" from ")[0] for message in caplog.messages] == [
        "Could not delete file file-0",
        "Could not delete file file-2",
    ]


async def test_the_check_of_the_list_makes_one_call(api, server):
    await api.files.check_list()
    assert calls_made(server) == ["GET /files"]
    assert server.calls.last.request.url.params["limit"] == "1"
    server.get("/files").mock(return_value=refusal(404, "Not Found"))
    with pytest.raises(errors.RunError, match="Not Found"):
        await api.files.check_list()


# Downloads.


CONTENT = bytes(range(256)) * 40


class BrokenStream(httpx.AsyncByteStream):
    """Body that breaks off after some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
        raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


def broken_download(content: bytes, status_code: int = 200) -> httpx.Response:
    """Return a download that breaks off after `content`."""
    return httpx.Response(status_code, stream=BrokenStream(content))


async def test_a_download_replaces_the_target_by_the_file(api, server, tmp_path):
    path = tmp_path / "output.jsonl"
    path.write_bytes(b"left over")
    CALLS["download"].route(server).mock(return_value=httpx.Response(200, content=CONTENT))
    await api.files.download("file-2", path, LIMIT)
    assert path.read_bytes() == CONTENT
    assert "range" not in server.calls.last.request.headers


async def test_a_new_file_that_is_not_visible_yet_is_retried(api, server, clock, tmp_path):
    """After `RESULTS_VISIBLE_SECONDS` the file counts as missing."""
    route = CALLS["download"].route(server)
    route.mock(side_effect=[refusal(404), refusal(410), httpx.Response(200, content=CONTENT)])
    await api.files.download("file-2", tmp_path / "output", LIMIT, is_new=True)
    assert (tmp_path / "output").read_bytes() == CONTENT
    assert clock.pauses == [0.5, 1.0]

    route.mock(side_effect=None, return_value=refusal(404))
    with pytest.raises(errors.RunError) as caught:
        await api.files.download("file-2", tmp_path / "output", LIMIT, is_new=True)
    assert caught.value.status_code == 404
    assert RESULTS_VISIBLE_SECONDS <= clock.now <= 2 * RESULTS_VISIBLE_SECONDS + 60


async def test_an_old_file_that_is_not_found_is_not_retried(api, server, clock, tmp_path):
    CALLS["download"].route(server).mock(return_value=refusal(404))
    with pytest.raises(errors.RunError):
        await api.files.download("file-2", tmp_path / "output", LIMIT)
    assert not clock.pauses


async def test_an_empty_file_is_downloaded(api, server, tmp_path):
    """Some servers have an empty file where others have none."""
    CALLS["download"].route(server).mock(return_value=httpx.Response(200, content=b""))
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == b""


async def test_a_download_that_breaks_off_is_resumed(api, server, tmp_path):
    """Each attempt requests the missing bytes and appends them once."""
    route = CALLS["download"].route(server)
    route.mock(
        side_effect=[
            broken_download(CONTENT[:1_000]),
            httpx.Response(503),
            broken_download(CONTENT[1_000:1_500], 206),
            httpx.ReadTimeout("timed out"),
            httpx.Response(206, content=CONTENT[1_500:]),
        ]
    )
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT
    ranges = [call.request.headers.get("range") for call in route.calls]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-", "bytes=1500-"]
    assert {call.request.headers["accept-encoding"] for call in route.calls} == {"identity"}


async def test_a_download_from_a_server_without_ranges_is_restarted(api, server, tmp_path):
    """A reply with status 200 is the whole file, so nothing is appended."""
    CALLS["download"].route(server).mock(
        side_effect=[
            broken_download(CONTENT[:1_000]),
            broken_download(CONTENT[:300]),
            httpx.Response(200, content=CONTENT),
        ]
    )
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT


async def test_a_download_that_is_always_cut_ends_after_five_whole_tries(api, server, clock, tmp_path):
    """Other failures between the tries do not count. The error names the file, the bytes and the setting that helps."""
    sizes = [1_000, 300, 9_000, 20, 500]
    replies = [answer for size in sizes for answer in (httpx.Response(503), broken_download(CONTENT[:size]))]
    CALLS["download"].route(server).mock(side_effect=replies)
    with pytest.raises(errors.RunError, match=r"file-2.*5 tries.*9,000 bytes.*`max_requests_per_job`"):
        await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)


async def test_a_download_that_is_continued_may_be_cut_any_number_of_times(api, server, clock, tmp_path):
    """Each try brings new bytes, also if a try in between starts at the first byte."""
    route = CALLS["download"].route(server)

    def answer(request: httpx.Request) -> httpx.Response:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        if start + 100 >= len(CONTENT):
            return httpx.Response(206, content=CONTENT[start:])
        if route.call_count % 4 == 3 and start < 500:
            return broken_download(CONTENT[: start + 100])
        return broken_download(CONTENT[start : start + 100], 206 if start else 200)

    route.mock(side_effect=answer)
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT
    assert route.call_count > 100


async def test_a_download_without_a_first_byte_is_retried_for_long(api, server, clock, tmp_path):
    """An outage is waited out."""
    CALLS["download"].route(server).mock(
        side_effect=[*[broken_download(b"") for _ in range(20)], httpx.Response(200, content=CONTENT)]
    )
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT


async def test_a_download_that_breaks_off_after_its_last_byte_is_complete(api, server, tmp_path):
    """A 416 with a matching total means that all bytes are there: paid answers are kept."""
    route = CALLS["download"].route(server)

    def answer(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return httpx.Response(416, headers={"content-range": f"bytes */{len(CONTENT)}"})
        return broken_download(CONTENT) if route.call_count == 0 else httpx.Response(200, content=CONTENT)

    route.mock(side_effect=answer)
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT


async def test_a_download_whose_file_became_shorter_is_restarted(api, server, tmp_path):
    """A 416 with another total means that the bytes on the disk are not those of the file."""
    CALLS["download"].route(server).mock(
        side_effect=[
            broken_download(CONTENT),
            httpx.Response(416, headers={"content-range": "bytes */300"}),
            httpx.Response(200, content=CONTENT[:300]),
        ]
    )
    await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT[:300]


async def test_a_file_that_is_shorter_than_announced_is_resumed(clock, tmp_path):
    """The test uses a real socket, because only a socket checks the announced length."""
    ranges: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        requested = next((text.split("=")[1] for text in head.split("\r\n") if text.startswith("range:")), None)
        ranges.append(requested)
        start = int(requested.rstrip("-")) if requested else 0
        status = "206 Partial Content" if requested else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(CONTENT) - start}\r\n\r\n".encode())
        writer.write(CONTENT[start : start + 4_000])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"http://127.0.0.1:{port}/v1") as api:
            await api.files.download("file-2", tmp_path / "output.jsonl", LIMIT)
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT
    assert ranges == [None, "4000-", "8000-"]


async def test_an_error_of_the_disk_is_raised_without_a_retry(api, server, clock, tmp_path):
    CALLS["download"].route(server).mock(return_value=httpx.Response(200, content=CONTENT))
    with pytest.raises(OSError, match="No such file"):
        await api.files.download("file-2", tmp_path / "missing" / "output.jsonl", LIMIT)
    assert clock.pauses == []


async def test_a_growing_file_is_downloaded_from_its_last_byte(api, server, clock, tmp_path):
    """A failure leaves the bytes for the next call, which a run makes at its next poll."""
    path = tmp_path / "growing"
    route = CALLS["download"].route(server)
    route.mock(
        side_effect=[
            httpx.Response(200, content=CONTENT[:100]),
            httpx.Response(503),
            refusal(404),
            httpx.Response(206, content=CONTENT[100:300]),
        ]
    )
    for size in (100, 100, 100, 300):
        await api.files.download_more("file-2", path, LIMIT)
        assert path.read_bytes() == CONTENT[:size]
    assert route.calls.last.request.headers["range"] == "bytes=100-"
    assert clock.pauses == []


# The input file of a batch.


@pytest.mark.parametrize(
    ("answer", "exists"),
    [
        (reply({"id": "file-1", "status": "processed"}), True),
        (reply({"id": "file-1"}), True),
        (reply({"id": "file-1", "status": "deleted"}), False),
        (refusal(404, "No such File object: file-1"), False),
        (refusal(400, "No such File object: file-1"), False),
        (refusal(403), True),
        (refusal(405), True),
    ],
)
async def test_a_file_exists_unless_the_server_denies_it(api, server, answer, exists):
    """A server that refuses to say may have the file."""
    server.get("/files/file-1").mock(return_value=answer)
    assert await api.files.exists("file-1") is exists


async def test_the_look_for_a_file_is_retried(api, server, clock):
    server.get("/files/file-1").mock(side_effect=[httpx.Response(503), refusal(404)])
    assert not await api.files.exists("file-1")
    server.get("/files/file-1").mock(side_effect=httpx.ReadTimeout("timed out"))
    with pytest.raises(errors.ConnectionFailedError):
        await api.files.exists("file-1")


CANNOT_FIND = "Cannot find file file-1, or organization org-1 does not have access to it."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BatchError(CANNOT_FIND, "invalid_request", None, "file_id"), True),
        (BatchError("No such File object: file-1"), True),
        (BatchError("Invalid value.", param="input_file_id"), True),
        (BatchError("Input file not found."), True),
        (BatchError("No such model.", "model_not_found", None, "body.model"), False),
        (BatchError("Line about file-1.", line=3), False),
        (BatchError("Enqueued token limit reached with file-1.", "token_limit_exceeded"), False),
    ],
)
def test_a_failed_batch_whose_input_file_is_refused_is_recognised(error, expected):
    assert is_input_file_refused(Batch("b", "failed", errors=(BatchError("Other."), error)), "file-1") is expected


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (errors.RunError(CANNOT_FIND, status_code=400), True),
        (errors.RunError(CANNOT_FIND, status_code=404), True),
        (errors.RunError("No.", status_code=400, param="file_id"), True),
        (errors.RunError("No.", status_code=400), False),
        (errors.AuthenticationError(CANNOT_FIND, status_code=403), False),
        (errors.RunError(CANNOT_FIND, status_code=400, code="token_limit_exceeded"), False),
        (errors.RunError(CANNOT_FIND), False),
    ],
)
def test_a_creation_whose_input_file_is_refused_is_recognised(refusal, expected):
    assert is_input_file_refused(refusal, "file-1") is expected
