"""A `BatchAPI` on a mocked server and a fake clock, and the replies of such a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import respx

from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.extra_fields import NO_EXTRA_FIELDS, ExtraFields
from distilabel_openai_batch.api.retention import DEFAULT_RETENTION, Retention
from distilabel_openai_batch.api.size_limits import SizeLimit
from distilabel_openai_batch.api.transport import Patience, sdk_client

BASE_URL = "https://api.example.com/v1"
API_KEY = "sk-this-key-must-not-leak"
CHAT = "/v1/chat/completions"
LOGGER = logging.getLogger("test_api")
NOW = 1_700_000_000.0
"""Seconds since the epoch at which the fake clock starts."""
LIMIT = SizeLimit(line_bytes=1_000, file_bytes=1_000_000)
"""Limit on the size of a downloaded file."""
INPUT = b'{"custom_id":"a"}\n{"custom_id":"b"}\n'
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


class Clock:
    """Fake clock that advances only while a task sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return NOW + self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def connect(
    base_url: str = BASE_URL,
    patience: Patience | None = None,
    retention: Retention = DEFAULT_RETENTION,
    extra_fields: ExtraFields = NO_EXTRA_FIELDS,
    headers: Mapping[str, str] | None = None,
    batch_api: str | None = None,
) -> AsyncIterator[BatchAPI]:
    """Open a `BatchAPI` whose SDK client would itself retry five times."""
    async with sdk_client(base_url, API_KEY, timeout=600.0, headers=headers).with_options(max_retries=5) as client:
        yield BatchAPI(client, patience or Patience(), LOGGER, retention, extra_fields, batch_api)


def batch(batch_id: str = "batch_1", status: str = "validating", **fields: object) -> dict[str, object]:
    """Return a batch object as the server writes it."""
    return {
        "id": batch_id,
        "object": "batch",
        "endpoint": CHAT,
        "errors": None,
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": status,
        "created_at": int(NOW),
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": {},
        **fields,
    }


def reply(content: object) -> httpx.Response:
    """Return a reply with status 200 and JSON content, whose text is the same with each release of httpx."""
    return httpx.Response(200, content=orjson.dumps(content), headers={"Content-Type": "application/json"})


def listing(*batches: dict[str, object], has_more: bool = False) -> httpx.Response:
    """Return a page of `GET /batches`."""
    return reply({"object": "list", "data": list(batches), "has_more": has_more})


def refusal(status_code: int, message: str = "No.", headers: dict[str, str] | None = None, **fields: object):
    """Return a refusal by the API."""
    body = {"error": {"message": message, "type": "error_type", "param": None, "code": None, **fields}}
    return httpx.Response(status_code, json=body, headers=headers)


def calls_made(server: respx.Router) -> list[str]:
    """Return the calls in their order, as method and path."""
    return [f"{call.request.method} {call.request.url.path.removeprefix('/v1')}" for call in server.calls]


@dataclass
class ApiCall:
    """A call of `BatchAPI`, its route on the server, and the server's successful reply."""

    method: str
    path: str
    make: Callable[[BatchAPI, Path], Awaitable[object]]
    success: httpx.Response

    def route(self, server: respx.Router) -> respx.Route:
        return server.request(self.method, self.path)


CALLS = {
    "upload": ApiCall(
        "POST",
        "/files",
        lambda api, path: api.files.upload(path, "input.jsonl"),
        reply({"id": "file-1", "object": "file", "purpose": "batch"}),
    ),
    "create": ApiCall(
        "POST", "/batches", lambda api, path: api.create("file-1", CHAT, "24h", "key", {}), reply(batch())
    ),
    "retrieve": ApiCall("GET", "/batches/batch_1", lambda api, path: api.retrieve("batch_1"), reply(batch())),
    "list": ApiCall(
        "GET",
        "/batches",
        lambda api, path: api.retrieve_many({"batch_1", "batch_2"}),
        listing(batch("batch_2"), batch("batch_1")),
    ),
    "cancel": ApiCall("POST", "/batches/batch_1/cancel", lambda api, path: api.cancel("batch_1"), reply(batch())),
    "download": ApiCall(
        "GET",
        "/files/file-2/content",
        lambda api, path: api.files.download("file-2", path.with_name("output.jsonl"), LIMIT),
        httpx.Response(200, content=INPUT),
    ),
}
