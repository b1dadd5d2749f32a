"""Files: uploads, lists, downloads, and who may see them."""

import pytest

from .conftest import jsonl, requests

DAY = 86_400


async def test_an_upload_comes_back_as_it_was(desk):
    """Its object says what it is; its content is the bytes that were sent."""
    content = bytes(range(256)) * 10_000
    made = (await desk.upload(content)).json()
    expected = {"object": "file", "bytes": 2_560_000, "filename": "in.jsonl", "purpose": "batch", "status": "processed"}
    assert {key: made[key] for key in expected} == expected
    assert made["expires_at"] - made["created_at"] == 30 * DAY
    assert (await desk.http.get(f"/v1/files/{made['id']}")).json() == made
    assert (await desk.http.get(f"/v1/files/{made['id']}/content")).content == content


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=0-99", b"0123456789")],
)
async def test_a_range_can_be_asked_for(desk, wanted, expected):
    """206 with the bytes, so that a broken download can be taken up again."""
    file_id = (await desk.upload(b"0123456789")).json()["id"]
    reply = await desk.http.get(f"/v1/files/{file_id}/content", headers={"Range": wanted})
    assert (reply.status_code, reply.content) == (206, expected)


async def test_a_range_beyond_the_end_is_refused(desk):
    """416."""
    file_id = (await desk.upload(b"0123456789")).json()["id"]
    reply = await desk.http.get(f"/v1/files/{file_id}/content", headers={"Range": "bytes=10-"})
    assert reply.status_code == 416


async def test_a_deleted_file_is_gone(desk):
    """404 for its object, its content and a second deletion."""
    file_id = (await desk.upload(b"x")).json()["id"]
    deleted = await desk.http.delete(f"/v1/files/{file_id}")
    assert deleted.json() == {"id": file_id, "object": "file", "deleted": True}
    for reply in (
        await desk.http.get(f"/v1/files/{file_id}"),
        await desk.http.get(f"/v1/files/{file_id}/content"),
        await desk.http.delete(f"/v1/files/{file_id}"),
    ):
        assert reply.status_code == 404
        assert reply.json()["error"]["message"] == f"No such File object: {file_id}"


async def test_files_are_listed_newest_first(desk):
    """All of them, or those of one purpose; the files that batches make are among them."""
    first = (await desk.upload(b"{}", "a.jsonl", "fine-tune")).json()["id"]
    batch = await desk.run(requests(1))

    async def listed(**query):
        return [entry["id"] for entry in (await desk.http.get("/v1/files", params=query)).json()["data"]]

    assert await listed() == [batch["output_file_id"], batch["input_file_id"], first]
    assert await listed(order="asc", limit=1) == [first]
    assert await listed(purpose="batch") == [batch["input_file_id"]]
    assert await listed(after=batch["output_file_id"]) == [batch["input_file_id"], first]


async def test_files_vanish_when_they_expire(desk):
    """After 30 days, or after what the upload or the batch says."""
    short = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    uploaded = (await desk.upload(b"x", **short)).json()
    batch = await desk.run(requests(1), output_expires_after={"anchor": "created_at", "seconds": 7_200})
    desk.wait(3_600)
    assert (await desk.http.get(f"/v1/files/{uploaded['id']}")).status_code == 404
    assert (await desk.http.get(f"/v1/files/{batch['output_file_id']}")).status_code == 200
    desk.wait(3_600)
    assert (await desk.http.get(f"/v1/files/{batch['output_file_id']}")).status_code == 404
    assert (await desk.http.get(f"/v1/files/{batch['input_file_id']}")).status_code == 200


@pytest.mark.parametrize(
    ("filename", "purpose", "form", "message"),
    [
        ("in.json", "batch", {}, "Invalid file format for Batch API. Must be .jsonl"),
        ("in.jsonl", "", {}, "Missing required parameter: 'purpose'."),
        (
            "in.jsonl",
            "batch",
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "Invalid 'expires_after.seconds': expected an integer between 3600 and 2592000.",
        ),
    ],
)
async def test_a_bad_upload_is_refused(desk, filename, purpose, form, message):
    """400, in the API's words where they are known."""
    reply = await desk.upload(jsonl(requests(1)), filename, purpose, **form)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, message)


async def test_a_file_for_another_purpose_makes_no_batch(desk):
    """400 at once."""
    file_id = (await desk.upload(b"{}", "a.jsonl", "fine-tune")).json()["id"]
    order = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert (await desk.http.post("/v1/batches", json=order)).json()["error"]["param"] == "input_file_id"


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic key"}])
async def test_a_key_is_required(desk, header):
    """401 for every call of the API."""
    del desk.http.headers["Authorization"]
    for path in ("/v1/files", "/v1/batches", "/v1/files/file-x/content"):
        reply = await desk.http.get(path, headers=header)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_only_the_keys_that_were_set_are_accepted(desk):
    """And none is told to anyone."""
    await desk.configure(api_keys=["sk-right"])
    reply = await desk.http.get("/v1/files", headers={"Authorization": "Bearer sk-wrong"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "sk-" not in reply.text
    assert (await desk.http.get("/v1/files", headers={"Authorization": "Bearer sk-right"})).status_code == 200
    for path in ("settings", "books", "calls"):
        assert "sk-right" not in (await desk.http.get(f"/sandbox/{path}")).text


async def test_keys_can_be_kept_apart(desk):
    """What one made, the other does not find."""
    await desk.configure(separate_keys=True)
    batch = await desk.run(requests(1))
    other = {"Authorization": "Bearer other"}
    for path in (f"batches/{batch['id']}", f"files/{batch['output_file_id']}"):
        assert (await desk.http.get(f"/v1/{path}", headers=other)).status_code == 404
        assert (await desk.http.get(f"/v1/{path}")).status_code == 200
    assert (await desk.http.get("/v1/batches", headers=other)).json()["data"] == []


async def test_an_unknown_url_is_404_in_the_shape_of_the_api(desk):
    """So that a client shows the message."""
    reply = await desk.http.get("/v1/poems")
    assert (reply.status_code, reply.json()["error"]["message"]) == (404, "Invalid URL (GET /v1/poems)")
