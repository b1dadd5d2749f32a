"""Expiry of files on the server."""

from __future__ import annotations

import json

from distilabel_openai_batch.api.retention import Retention
from tests.support.batch_api import CALLS, CHAT, connect


async def test_expiry_is_sent_with_uploads_and_creations(server, input_file):
    upload = CALLS["upload"].route(server).mock(return_value=CALLS["upload"].success)
    create = CALLS["create"].route(server).mock(return_value=CALLS["create"].success)

    async with connect(retention=Retention(3_600, 86_400)) as api:
        await api.files.upload(input_file, "input.jsonl")
        await api.create("file-1", CHAT, "24h", "the-key", {})

    content = upload.calls.last.request.content
    assert b'name="expires_after[anchor]"\r\n\r\ncreated_at\r\n' in content
    assert b'name="expires_after[seconds]"\r\n\r\n3600\r\n' in content
    sent = json.loads(create.calls.last.request.content)
    assert sent["output_expires_after"] == {"anchor": "created_at", "seconds": 86_400}


async def test_no_expiry_is_sent_by_default(server, input_file):
    """Some servers refuse the parameter."""
    upload = CALLS["upload"].route(server).mock(return_value=CALLS["upload"].success)
    create = CALLS["create"].route(server).mock(return_value=CALLS["create"].success)

    async with connect() as api:
        await api.files.upload(input_file, "input.jsonl")
        await api.create("file-1", CHAT, "24h", "the-key", {})

    assert b"expires_after" not in upload.calls.last.request.content
    assert "output_expires_after" not in json.loads(create.calls.last.request.content)
