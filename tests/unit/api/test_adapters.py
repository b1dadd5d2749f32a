"""Calls of the adapters: uploads, creations and lists of servers with other shapes of the API."""

from __future__ import annotations

import httpx
import orjson
import pytest

from distilabel_openai_batch.api.adapters import ADAPTERS, AzureAdapter, OpenAIAdapter, TogetherAdapter, find_adapter
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.errors import InvalidSettingError
from tests.support.batch_api import CHAT, INPUT, connect, reply

# https://docs.together.ai/reference/batch-create
JOB = {
    "id": "01234567-8901-2345-6789-012345678901",
    "user_id": "user_789xyz012",
    "input_file_id": "file-1",
    "file_size_bytes": 1_048_576,
    "status": "IN_PROGRESS",
    "job_deadline": "2024-01-15T15:30:00Z",
    "created_at": "2024-01-15T14:30:00Z",
    "endpoint": CHAT,
    "progress": 75,
    "model_id": "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
    "output_file_id": "file-2",
    "error_file_id": "file-3",
    "error": "The file is empty.",
    "completed_at": "2024-01-15T15:45:30Z",
}


@pytest.mark.parametrize(
    ("base_url", "name", "kind"),
    [
        ("https://api.openai.com/v1", None, OpenAIAdapter),
        ("https://api.together.xyz/v1", None, TogetherAdapter),
        ("https://api.together.ai/v1/", None, TogetherAdapter),
        ("https://api.together.xyz/v1", "openai", OpenAIAdapter),
        ("http://127.0.0.1:8000/v1", "together", TogetherAdapter),
        ("https://acme.openai.azure.com/openai/v1/", None, AzureAdapter),
        ("https://acme.openai.azure.com/openai/", None, OpenAIAdapter),
        ("https://api.groq.com/openai/v1", None, OpenAIAdapter),
        ("not an address", None, OpenAIAdapter),
    ],
)
def test_the_adapter_follows_from_the_name_or_else_from_the_host(base_url, name, kind):
    assert type(find_adapter(base_url, name)) is kind


def test_an_unknown_shape_is_refused():
    with pytest.raises(InvalidSettingError, match="the shapes are `openai`, `azure`, `together`"):
        find_adapter("https://api.openai.com/v1", "toghether")


async def test_a_file_for_together_is_uploaded_by_its_own_form(clock, server, input_file):
    upload = server.post("/files/upload").mock(return_value=reply({"id": "file-1", "object": "file"}))
    async with connect(batch_api="together") as api:
        assert await api.files.upload(input_file, "input.jsonl") == "file-1"
    form = upload.calls.last.request.content
    for part in (b'name="purpose"\r\n\r\nbatch-api\r\n', b'name="file_name"\r\n\r\ninput.jsonl\r\n', INPUT):
        assert part in form


async def test_a_creation_at_together_has_no_metadata_and_returns_a_job(clock, server):
    creation = server.post("/batches").mock(return_value=reply({"job": JOB, "warning": ""}))
    async with connect(batch_api="together") as api:
        batch = await api.create("file-1", CHAT, "24h", "key", {"scope": "a"})
    assert orjson.loads(creation.calls.last.request.content) == {
        "input_file_id": "file-1",
        "endpoint": CHAT,
        "completion_window": "24h",
    }
    assert (batch.id, batch.status, batch.model) == (JOB["id"], "in_progress", JOB["model_id"])
    assert (batch.created_at, batch.ended_as, batch.finished_at) == (1_705_329_000.0, "completed", 1_705_333_530.0)
    assert batch.reasons == "The file is empty."


@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_list_may_be_a_bare_array(clock, server, name):
    """A batch whose creation was lost is found by its input file."""
    server.get("/batches").mock(return_value=httpx.Response(200, json=[JOB]))
    async with connect(batch_api=name) as api:
        batch = await api.find("key", "file-1", since=1_705_329_000.0)
        assert await api.find("key", "file-9", since=1_705_329_000.0) is None
    assert batch.id == JOB["id"]


async def test_an_empty_array_is_an_empty_list(clock, server):
    server.get("/batches").mock(return_value=httpx.Response(200, json=[]))
    async with connect(batch_api="together") as api:
        assert await api.can_list_batches()
        assert await api.list_last_month() == []


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [(CHAT, "/chat/completions"), ("/v1/embeddings", "/embeddings"), ("/v1/responses", "/v1/responses")],
)
async def test_azure_s_newer_api_names_endpoints_without_a_version(clock, server, endpoint, name):
    creation = server.post("/batches").mock(return_value=reply(JOB))
    async with connect(batch_api="azure") as api:
        await api.create("file-1", endpoint, "24h", "key", {})
        line = orjson.loads(api.input_line(Request("a-0", endpoint, "m", b"{}")))
    assert orjson.loads(creation.calls.last.request.content)["endpoint"] == line["url"] == name


def test_lines_for_together_have_two_fields():
    request = Request("a-0", CHAT, "m", b'{"model":"m"}')
    assert orjson.loads(ADAPTERS["together"].input_line(request)) == {"custom_id": "a-0", "body": {"model": "m"}}
    assert ADAPTERS["openai"].input_line(request) == request.line()
