"""Dialects of other servers: accepted requests and shown objects."""

import pytest

from distilabel_openai_batch.sandbox import Settings, azure_calls
from distilabel_openai_batch.sandbox.dialect import DIALECTS, Dialect

from .conftest import batch_line, jsonl

AZURE = "/openai/{}?api-version=2024-10-21"


def test_dialect_is_set_by_name_or_by_fields():
    """Refuse an unknown name."""
    assert Settings(dialect="azure").dialect == DIALECTS["azure"]
    assert Settings(dialect={"uuids": True}).dialect == Dialect(uuids=True)
    with pytest.raises(ValueError, match="dialect"):
        Settings(dialect="klingon")


def test_default_dialect_changes_nothing():
    """Return each object unchanged."""
    batch = {"status": "validating", "endpoint": "/v1/chat/completions", "output_file_id": None}
    line = {"id": "1", "custom_id": "a", "response": {"status_code": 200, "body": {"choices": []}}, "error": None}
    assert Dialect().batch_object(batch) == batch
    assert Dialect().result_line(line) == line
    assert Dialect().file_object({"id": "file-1", "status": "processed"}, 0.0) == {
        "id": "file-1",
        "status": "processed",
    }


async def test_replies_about_files_and_batches_may_have_an_envelope(api):
    """A synchronous answer has none."""
    await api.configure(dialect={"envelope": True})
    file = {"file": ("in.jsonl", jsonl([batch_line("a")]))}
    uploaded = (await api.http.post("/v1/files", files=file, data={"purpose": "batch"})).json()
    assert uploaded["code"] == 20_000
    assert uploaded["data"]["object"] == "file"
    assert (await api.http.get("/v1/batches")).json()["data"]["object"] == "list"
    assert "choices" in (await api.http.post("/v1/chat/completions", json=batch_line("a")["body"])).json()


async def test_a_missing_file_may_be_refused_at_the_creation(api):
    """A file that is not visible yet is missing too."""
    await api.configure(dialect={"refuses_missing_file": True}, upload_visible_after_seconds=5)
    file = {"file": ("in.jsonl", jsonl([batch_line("a")]))}
    uploaded = (await api.http.post("/v1/files", files=file, data={"purpose": "batch"})).json()
    for file_id in ("file-none", uploaded["id"]):
        creation = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        refused = await api.http.post("/v1/batches", json=creation)
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, f"No such File object: {file_id}")
    api.advance_clock(6)
    assert (await api.http.post("/v1/batches", json=creation)).status_code == 200


@pytest.mark.parametrize("ranges", [True, False])
async def test_downloads_may_ignore_ranges(api, ranges):
    """Send the whole file with status 200."""
    await api.configure(dialect={"ranges": ranges})
    file = {"file": ("in.jsonl", b"0123456789")}
    uploaded = (await api.http.post("/v1/files", files=file, data={"purpose": "batch"})).json()
    reply = await api.http.get(f"/v1/files/{uploaded['id']}/content", headers={"Range": "bytes=6-"})
    assert (reply.status_code, reply.content) == ((206, b"6789") if ranges else (200, b"0123456789"))


async def test_a_completed_batch_shows_the_status_of_the_dialect(api):
    await api.configure(dialect={"completed_status": "succeeded"})
    assert (await api.run_batch([batch_line("a")]))["status"] == "succeeded"


async def test_the_list_may_show_other_file_ids_than_the_batch(api):
    await api.configure(dialect={"lists_other_file_ids": True})
    batch = await api.run_batch([batch_line("a")])
    [listed] = (await api.http.get("/v1/batches")).json()["data"]
    assert listed == batch | {name: f"raw-{batch[name]}" for name in ("input_file_id", "output_file_id")}
    assert (await api.http.get(f"/v1/files/{listed['output_file_id']}/content")).status_code == 404


async def test_result_lines_may_lack_their_custom_ids(api):
    await api.configure(dialect={"custom_ids": False})
    batch = await api.run_batch([batch_line("a")])
    [line] = await api.read_lines(batch["output_file_id"])
    assert "custom_id" not in line
    assert line["response"]["body"]["choices"]


async def run_azure_batch(api, url: str) -> dict:
    await api.configure(dialect="azure")
    api.http.headers = {"api-key": "key"}
    file = {"file": ("in.jsonl", jsonl([batch_line("a", url=url)]))}
    uploaded = await api.http.post(AZURE.format("files"), files=file, data={"purpose": "batch"})
    assert uploaded.json()["status"] == "pending"
    creation = {"input_file_id": uploaded.json()["id"], "endpoint": "/chat/completions", "completion_window": "24h"}
    assert (await api.http.post(AZURE.format("batches"), json=creation)).status_code == 400
    api.advance_clock(1)
    created = await api.http.post(AZURE.format("batches"), json=creation)
    await api.http.post("/sandbox/settle")
    return (await api.http.get(AZURE.format(f"batches/{created.json()['id']}"))).json()


async def test_azure_answers_under_its_own_paths(api):
    """The batch starts once the file is processed, has both files, and shows no endpoint."""
    batch = await run_azure_batch(api, "/chat/completions")
    assert (batch["status"], batch["endpoint"]) == ("completed", None)
    assert batch["output_file_id"]
    assert (await api.http.get(AZURE.format(f"files/{batch['error_file_id']}/content"))).content == b""


async def test_azure_refuses_openai_endpoints(api):
    """A request for an OpenAI endpoint fails the batch, with Azure's code."""
    batch = await run_azure_batch(api, "/v1/chat/completions")
    assert (batch["status"], batch["output_file_id"]) == ("failed", "")
    assert batch["errors"]["data"][0]["code"] == "url_mismatch"


NOT_FOUND = (404, {"code": "404", "message": "Resource not found"})
DENIED = (401, {"code": "401", "message": azure_calls.denied().message})
WITH_KEY = {"api-key": "key"}


@pytest.mark.parametrize("dialect", ["azure", "azure-v1"])
@pytest.mark.parametrize(
    ("path", "headers", "refusal"),
    [
        (AZURE.format("batches"), WITH_KEY, None),
        (AZURE.format("batches"), {"Authorization": "Bearer rehearsed-token"}, None),
        (AZURE.format("batches"), {"Authorization": "rehearsed-token"}, DENIED),
        (AZURE.format("batches"), {}, DENIED),
        ("/openai/v1/batches", WITH_KEY, None),
        ("/openai/v1/batches?api-version=preview", WITH_KEY, None),
        (AZURE.format("v1/batches"), WITH_KEY, (400, {"code": "BadRequest", "message": "API version not supported"})),
        ("/openai/batches", WITH_KEY, NOT_FOUND),
        ("/openai/batches?api-version=2024-10-22", WITH_KEY, NOT_FOUND),
        ("/openai/batches?api-version=2024-06-01", WITH_KEY, NOT_FOUND),
        ("/openai/batches?api-version=preview", WITH_KEY, NOT_FOUND),
        (AZURE.format("deployments/mine/batches"), WITH_KEY, NOT_FOUND),
        (AZURE.format("nothing"), WITH_KEY, NOT_FOUND),
        ("/v1/batches", {"Authorization": "Bearer key"}, NOT_FOUND),
    ],
)
async def test_azure_requires_path_version_and_credential(api, dialect, path, headers, refusal):
    """Refuse calls in the form that OpenAI accepts, and unknown versions, in Azure's words."""
    await api.configure(dialect=dialect)
    api.http.headers = headers
    reply = await api.http.get(path)
    assert reply.status_code == 200 if refusal is None else (reply.status_code, reply.json()["error"]) == refusal


async def test_a_refused_call_is_recorded_with_its_own_path(api):
    await api.configure(dialect="azure")
    await api.http.post("/v1/files", content=b"x" * 100_000)
    await api.http.get(AZURE.format("batches"), headers=WITH_KEY)
    calls = (await api.http.get("/sandbox/calls")).json()
    assert [(call["path"], call["status"]) for call in calls] == [("/v1/files", 404), ("/openai/batches", 200)]
