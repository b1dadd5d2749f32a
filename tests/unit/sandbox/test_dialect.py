"""The sandbox in other servers' dialects: what it takes then, and what it shows."""

import pytest

from distilabel_openai_batch.sandbox import Settings
from distilabel_openai_batch.sandbox.dialect import DIALECTS, Dialect

from .conftest import jsonl, request

AZURE = "/openai/{}?api-version=2024-10-21"


def test_a_dialect_can_be_named():
    """Or be made of its single differences."""
    assert Settings(dialect="azure").dialect == DIALECTS["azure"]
    assert Settings(dialect={"uuids": True}).dialect == Dialect(uuids=True)
    with pytest.raises(ValueError, match="dialect"):
        Settings(dialect="klingon")


def test_openais_dialect_changes_nothing():
    """What goes in comes out."""
    batch = {"status": "validating", "endpoint": "/v1/chat/completions", "output_file_id": None}
    line = {"id": "1", "custom_id": "a", "response": {"status_code": 200, "body": {"choices": []}}, "error": None}
    assert Dialect().batch(batch) == batch
    assert Dialect().line(line) == line
    assert Dialect().file({"id": "file-1", "status": "processed"}, 0.0) == {"id": "file-1", "status": "processed"}


async def azure_batch(desk, url: str) -> dict:
    await desk.configure(dialect="azure")
    desk.http.headers = {"api-key": "key"}
    file = {"file": ("in.jsonl", jsonl([request("a", url=url)]))}
    uploaded = await desk.http.post(AZURE.format("files"), files=file, data={"purpose": "batch"})
    assert uploaded.json()["status"] == "pending"
    order = {"input_file_id": uploaded.json()["id"], "endpoint": "/chat/completions", "completion_window": "24h"}
    assert (await desk.http.post(AZURE.format("batches"), json=order)).status_code == 400
    desk.wait(1)
    created = await desk.http.post(AZURE.format("batches"), json=order)
    await desk.http.post("/sandbox/settle")
    return (await desk.http.get(AZURE.format(f"batches/{created.json()['id']}"))).json()


async def test_azure_answers_under_its_own_paths(desk):
    """Once the file is processed; both files are there, and the endpoint is not shown."""
    batch = await azure_batch(desk, "/chat/completions")
    assert (batch["status"], batch["endpoint"]) == ("completed", None)
    assert batch["output_file_id"]
    assert (await desk.http.get(AZURE.format(f"files/{batch['error_file_id']}/content"))).content == b""


async def test_azure_does_not_know_openais_endpoints(desk):
    """A request for one fails the batch, with Azure's code."""
    batch = await azure_batch(desk, "/v1/chat/completions")
    assert (batch["status"], batch["output_file_id"]) == ("failed", "")
    assert batch["errors"]["data"][0]["code"] == "url_mismatch"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (AZURE.format("batches"), {"api-key": "key"}, 200),
        (AZURE.format("batches"), {"Authorization": "Bearer key"}, 401),
        ("/openai/batches", {"api-key": "key"}, 404),
        (AZURE.format("deployments/mine/batches"), {"api-key": "key"}, 404),
        ("/v1/batches", {"Authorization": "Bearer key"}, 404),
    ],
)
async def test_azure_wants_its_path_its_version_and_its_header(desk, path, headers, status):
    """What OpenAI's server takes, it does not."""
    await desk.configure(dialect="azure")
    desk.http.headers = headers
    assert (await desk.http.get(path)).status_code == status
