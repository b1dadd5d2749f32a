"""Fixtures of a `BatchAPI` on a mocked server and a fake clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import respx

from distilabel_openai_batch.api import client, creation, files, transport
from tests.support.batch_api import BASE_URL, CALLS, INPUT, ApiCall, Clock, connect, listing, reply


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (client, creation, files, transport):
        monkeypatch.setattr(module, "time", clock)
    for module in (creation, files, transport):
        monkeypatch.setattr(module, "anyio", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.fixture
def server():
    with respx.mock(base_url=BASE_URL, assert_all_called=False) as router:
        # An upload that took several attempts searches for leftover files.
        router.get("/files").mock(return_value=reply({"object": "list", "data": []}))
        yield router


@pytest.fixture
async def api(clock, server):
    async with connect() as api:
        yield api


@pytest.fixture
def input_file(tmp_path) -> Path:
    path = tmp_path / "input.jsonl"
    path.write_bytes(INPUT)
    return path


@pytest.fixture(params=CALLS.values(), ids=CALLS.keys())
def call(request, server) -> ApiCall:
    """Return each call in turn; the search for a lost creation finds no batch."""
    if request.param.path == "/batches" and request.param.method == "POST":
        server.get("/batches").mock(return_value=listing())
    return request.param
