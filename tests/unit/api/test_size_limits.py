"""Limits on the sizes of replies and files, and the refusal of encodings that were not requested."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import size_limits, transport
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.size_limits import AnswerSizes, SizeLimit, answer_bytes
from tests.support.batch_api import CALLS, batch, connect, reply

MEBIBYTE = 2**20


def chat(**fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [], **fields}


@pytest.mark.parametrize(
    ("body", "least"),
    [
        (chat(max_tokens=128), 128 * 4),
        (chat(max_completion_tokens=128_000), 128_000 * 20),
        (chat(), 262_144 * 20),
        (chat(max_tokens=100, n=8), 8 * 100 * 20),
        (chat(max_tokens=4_000, logprobs=True), 4_000 * 300),
        (chat(max_tokens=4_000, logprobs=True, top_logprobs=20), 4_000 * 21 * 300),
        ({"model": "m", "prompt": "", "max_tokens": 4_000, "logprobs": 5}, 4_000 * 6 * 300),
        (chat(max_tokens=100, audio={"voice": "alloy", "format": "pcm16"}), 100 * 6_400),
        ({"model": "m", "input": "", "dimensions": 8}, 8 * 25),
        ({"model": "m", "input": ""}, 4_096 * 25),
        ({"model": "m", "input": "", "max_output_tokens": 4_000}, 4_000 * 20),
        ({"model": "m", "input": [{"role": "user", "content": ""}]}, 262_144 * 20),
        ({"model": "m", "input": "", "max_output_tokens": 99, "include": [""], "top_logprobs": 20}, 99 * 21 * 300),
    ],
)
def test_the_limit_of_a_line_is_above_the_largest_answer_to_the_request(body, least):
    """The second number is the product of `n`, the tokens and the bytes of a long token with its log probabilities."""
    assert answer_bytes(body) > least
    sizes = AnswerSizes()
    sizes.add(body)
    assert sizes.limit(60).line_bytes >= answer_bytes(body)
    assert sizes.limit(60).file_bytes >= 60 * answer_bytes(body)


@given(
    st.dictionaries(
        st.sampled_from(["n", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "audio", "input"]),
        st.none() | st.booleans() | st.integers(-5, 9) | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    )
)
def test_a_parameter_without_sense_gives_a_limit(body):
    """The server decides about such a parameter."""
    assert answer_bytes(body) >= MEBIBYTE


def test_small_requests_have_a_limit_in_megabytes():
    """A line of 400 MB took 1.6 GB of memory."""
    sizes = AnswerSizes()
    sizes.add(chat(max_tokens=128))
    assert sizes.limit(60) == SizeLimit(16 * MEBIBYTE, 60 * answer_bytes(chat(max_tokens=128)))
    assert sizes.limit(60).file_bytes < 64 * MEBIBYTE


def test_the_largest_request_decides():
    sizes = AnswerSizes()
    for tokens in (10, 1_000_000, 10):
        sizes.add(chat(max_tokens=tokens))
    assert sizes.limit(1).line_bytes == answer_bytes(chat(max_tokens=1_000_000))


@pytest.mark.parametrize(
    ("requests", "total", "answers"),
    [(3, 0, 3), (3, 60, 60), (0, 60, 60), (0, 0, 100_000), (3, 10**9, 100_000), (200_000, 0, 200_000)],
)
def test_the_server_counts_requests_only_up_to_the_largest_batch(requests, total, answers):
    """An adopted job may hold fewer requests than its batch."""
    assert AnswerSizes().limit(requests, total).file_bytes == max(answers, 16) * MEBIBYTE


# Downloads.


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    ("parts", "limit", "excess"),
    [
        ([b"x" * 11], SizeLimit(10, 100), "a line of the file exceeds 10 bytes"),
        ([b"x" * 6, b"x" * 5 + b"\n"], SizeLimit(10, 100), "a line of the file exceeds 10 bytes"),
        ([b"a\n" + b"x" * 6, b"x" * 5 + b"\n"], SizeLimit(10, 100), "a line of the file exceeds 10 bytes"),
        ([b"x\n" * 3, b"x\n" * 3], SizeLimit(10, 11), "the file exceeds 11 bytes"),
    ],
)
async def test_a_download_above_its_limit_is_stopped_with_an_error(server, clock, tmp_path, parts, limit, excess):
    """The error names the file and the limit, and comes at once."""
    route = server.get("/files/file-2/content").mock(
        side_effect=lambda request: httpx.Response(200, content=chunks(*parts, b"never read"))
    )
    async with connect() as api:
        with pytest.raises(errors.RunError, match=f"download of file file-2 was stopped: {excess}"):
            await api.files.download("file-2", tmp_path / "output", limit)
    assert (route.call_count, clock.pauses) == (1, [])


@pytest.mark.parametrize("parts", [[b"x" * 10 + b"\n" + b"y" * 10], [b"x" * 5, b"x" * 5, b"\n", b"y" * 10 + b"\n"]])
async def test_a_download_at_its_limit_is_complete(server, tmp_path, parts):
    server.get("/files/file-2/content").mock(return_value=httpx.Response(200, content=chunks(*parts)))
    async with connect() as api:
        await api.files.download("file-2", tmp_path / "output", SizeLimit(10, 22))
    assert (tmp_path / "output").read_bytes() == b"".join(parts)


async def test_a_continued_download_measures_the_whole_file(server, clock, tmp_path):
    """A cut line goes on in the next reply."""

    async def cut() -> AsyncIterator[bytes]:
        yield b"x" * 6
        raise httpx.ReadError("cut")

    rest = httpx.Response(206, content=chunks(b"x" * 5 + b"\n"))
    server.get("/files/file-2/content").mock(side_effect=[httpx.Response(200, content=cut()), rest])
    async with connect() as api:
        with pytest.raises(errors.RunError, match="a line of the file exceeds 10 bytes"):
            await api.files.download("file-2", tmp_path / "output", SizeLimit(10, 100))


BOMB = gzip.compress(b"0" * 1_000_000)


@asynccontextmanager
async def connect_to(
    handle: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[BatchAPI]:
    """Open a `BatchAPI` whose client gets replies from a function, bytes unread; respx would decode the bytes."""

    class MockedClient(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            super().__init__(transport=httpx.MockTransport(handle), **options)

    monkeypatch.setattr(transport.httpx, "AsyncClient", MockedClient)
    async with connect() as api:
        yield api


@pytest.mark.parametrize(
    ("encoding", "content"),
    [("gzip", BOMB), ("gzip", b'{"custom_id":"a"}\n'), ("br", BOMB), ("GZIP, deflate", BOMB)],
    ids=["bomb", "false header", "another encoding", "two encodings"],
)
@pytest.mark.parametrize("name", ["download", "retrieve", "create", "upload"])
async def test_an_encoding_that_was_not_requested_is_an_error(clock, input_file, monkeypatch, name, encoding, content):
    """The reply is not decoded, and the error names the encoding within a minute."""
    requested = set()

    def handle(request: httpx.Request) -> httpx.Response:
        requested.add(request.headers["accept-encoding"])
        if name == "create" and request.method == "GET":
            return reply({"data": []})
        return httpx.Response(200, headers={"content-encoding": encoding}, stream=httpx.ByteStream(content))

    async with connect_to(handle, monkeypatch) as api:
        with pytest.raises(errors.ConnectionFailedError, match=rf"encoded \('{encoding.lower()}'\)"):
            await CALLS[name].make(api, input_file)
    assert requested == {"identity"}
    assert clock.now < 120


async def test_the_status_of_an_encoded_error_counts(clock, monkeypatch):
    """The page of a proxy is dropped."""
    failed = httpx.Response(503, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(BOMB))
    replies = iter([failed, reply(batch())])
    async with connect_to(lambda request: next(replies), monkeypatch) as api:
        assert (await api.retrieve("batch_1")).id == "batch_1"
    assert clock.pauses == [0.5]


@pytest.mark.parametrize(
    ("name", "status_code"),
    [
        *product(["retrieve", "create", "upload"], [200, 503, 400]),
        ("download", 503),
        ("download", 400),
    ],
)
async def test_a_reply_above_the_limit_is_an_error(server, clock, input_file, monkeypatch, name, status_code):
    """A poll may be answered with gigabytes; a file's content has a limit of its own."""
    monkeypatch.setattr(size_limits, "_REPLY_BYTES", 100)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 50
            yield b" " * 50

    CALLS[name].route(server).mock(side_effect=lambda request: httpx.Response(status_code, content=endless()))
    if name == "create":
        server.get("/batches").mock(return_value=reply({"data": []}))
    async with connect() as api:
        with pytest.raises(errors.ConnectionFailedError, match="exceeds 100 bytes"):
            await CALLS[name].make(api, input_file)
    assert read < 5_000


async def test_a_file_behind_a_redirection_has_the_limit_of_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(size_limits, "_REPLY_BYTES", 100)
    server.get("/files/file-2/content").respond(302, headers={"location": "https://api.example.com/v1/storage/2"})
    server.get("/storage/2").respond(content=b"x" * 500)
    async with connect() as api:
        await api.files.download("file-2", tmp_path / "output", SizeLimit(1_000, 1_000))
    assert (tmp_path / "output").stat().st_size == 500
