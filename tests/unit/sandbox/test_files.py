"""Files: uploads, lists, downloads, access by key."""

import pytest

from .conftest import batch_lines, jsonl

DAY = 86_400


async def test_upload_is_returned_unchanged(api):
    """The file object describes the upload; the content is equal byte for byte."""
    content = bytes(range(256)) * 10_000
    uploaded = (await api.upload(content)).json()
    expected = {"object": "file", "bytes": 2_560_000, "filename": "in.jsonl", "purpose": "batch", "status": "processed"}
    assert {key: uploaded[key] for key in expected} == expected
    assert uploaded["expires_at"] - uploaded["created_at"] == 30 * DAY
    assert (await api.http.get(f"/v1/files/{uploaded['id']}")).json() == uploaded
    assert (await api.http.get(f"/v1/files/{uploaded['id']}/content")).content == content


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=0-99", b"0123456789")],
)
async def test_range_returns_part_of_the_content(api, byte_range, expected):
    """Return 206, so that a client can resume a broken download."""
    file_id = (await api.upload(b"0123456789")).json()["id"]
    reply = await api.http.get(f"/v1/files/{file_id}/content", headers={"Range": byte_range})
    assert (reply.status_code, reply.content) == (206, expected)


async def test_range_beyond_the_end_is_refused(api):
    """Return 416."""
    file_id = (await api.upload(b"0123456789")).json()["id"]
    reply = await api.http.get(f"/v1/files/{file_id}/content", headers={"Range": "bytes=10-"})
    assert reply.status_code == 416


async def test_deleted_file_is_404(api):
    """Return 404 for the object, the content and a second deletion."""
    file_id = (await api.upload(b"x")).json()["id"]
    deleted = await api.http.delete(f"/v1/files/{file_id}")
    assert deleted.json() == {"id": file_id, "object": "file", "deleted": True}
    for reply in (
        await api.http.get(f"/v1/files/{file_id}"),
        await api.http.get(f"/v1/files/{file_id}/content"),
        await api.http.delete(f"/v1/files/{file_id}"),
    ):
        assert reply.status_code == 404
        assert reply.json()["error"]["message"] == f"No such File object: {file_id}"


async def test_files_are_listed_newest_first(api):
    """List all files or the files of one purpose, result files included."""
    first = (await api.upload(b"{}", "a.jsonl", "fine-tune")).json()["id"]
    batch = await api.run_batch(batch_lines(1))

    async def list_ids(**query):
        return [entry["id"] for entry in (await api.http.get("/v1/files", params=query)).json()["data"]]

    assert await list_ids() == [batch["output_file_id"], batch["input_file_id"], first]
    assert await list_ids(order="asc", limit=1) == [first]
    assert await list_ids(purpose="batch") == [batch["input_file_id"]]
    assert await list_ids(after=batch["output_file_id"]) == [batch["input_file_id"], first]


async def test_files_expire(api):
    """Expire after 30 days, or after the time that the upload or the batch gives."""
    short = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    uploaded = (await api.upload(b"x", **short)).json()
    batch = await api.run_batch(batch_lines(1), output_expires_after={"anchor": "created_at", "seconds": 7_200})
    api.advance_clock(3_600)
    assert (await api.http.get(f"/v1/files/{uploaded['id']}")).status_code == 404
    assert (await api.http.get(f"/v1/files/{batch['output_file_id']}")).status_code == 200
    api.advance_clock(3_600)
    assert (await api.http.get(f"/v1/files/{batch['output_file_id']}")).status_code == 404
    assert (await api.http.get(f"/v1/files/{batch['input_file_id']}")).status_code == 200


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
async def test_bad_upload_is_refused(api, filename, purpose, form, message):
    """Return 400 with the API's message."""
    reply = await api.upload(jsonl(batch_lines(1)), filename, purpose, **form)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, message)


async def test_file_of_another_purpose_makes_no_batch(api):
    """Return 400 at the creation."""
    file_id = (await api.upload(b"{}", "a.jsonl", "fine-tune")).json()["id"]
    creation = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert (await api.http.post("/v1/batches", json=creation)).json()["error"]["param"] == "input_file_id"


@pytest.mark.parametrize(
    ("limit", "message", "code"),
    [
        (
            {"max_storage_bytes": 2_500_000},
            "You have exceeded your file storage quota. Projects are limited to 0.0025 GB of files. Please reduce the"
            " file size or contact support.",
            None,
        ),
        ({"max_files": 2}, "The quota for files without expiry is reached. The maximum is 2.", "quotaExceeded"),
    ],
)
async def test_full_storage_refuses_uploads_until_a_file_is_deleted(api, limit, message, code):
    """Count all files of the owner, and store nothing of a refused upload."""
    await api.configure(**limit, separate_keys=True)
    content = b"x" * 1_000_000
    first = (await api.upload(content)).json()["id"]
    assert (await api.upload(content)).status_code == 200

    refused = await api.upload(content)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, message)
    assert refused.json()["error"]["code"] == code
    assert len((await api.books())["files"]) == 2

    await api.http.delete(f"/v1/files/{first}")
    assert (await api.upload(content)).status_code == 200
    other = {"Authorization": "Bearer other"}
    reply = await api.http.post(
        "/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"}, headers=other
    )
    assert reply.status_code == 200


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic key"}])
async def test_key_is_required(api, header):
    """Return 401 for every call of the API."""
    del api.http.headers["Authorization"]
    for path in ("/v1/files", "/v1/batches", "/v1/files/file-x/content"):
        reply = await api.http.get(path, headers=header)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_only_configured_keys_are_accepted(api):
    """No reply reveals a key."""
    await api.configure(api_keys=["sk-right"])
    reply = await api.http.get("/v1/files", headers={"Authorization": "Bearer sk-wrong"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "sk-" not in reply.text
    assert (await api.http.get("/v1/files", headers={"Authorization": "Bearer sk-right"})).status_code == 200
    for path in ("settings", "books", "calls"):
        assert "sk-right" not in (await api.http.get(f"/sandbox/{path}")).text


async def test_separate_keys_see_only_their_own_files_and_batches(api):
    """Return 404 to the other key."""
    await api.configure(separate_keys=True)
    batch = await api.run_batch(batch_lines(1))
    other = {"Authorization": "Bearer other"}
    for path in (f"batches/{batch['id']}", f"files/{batch['output_file_id']}"):
        assert (await api.http.get(f"/v1/{path}", headers=other)).status_code == 404
        assert (await api.http.get(f"/v1/{path}")).status_code == 200
    assert (await api.http.get("/v1/batches", headers=other)).json()["data"] == []


async def test_unknown_url_is_404_in_the_shape_of_the_api(api):
    """A client can show the message."""
    reply = await api.http.get("/v1/poems")
    assert (reply.status_code, reply.json()["error"]["message"]) == (404, "Invalid URL (GET /v1/poems)")
