"""Extra fields of uploads and creations, for gateways."""

from __future__ import annotations

import json

import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.extra_fields import ExtraFields, public_fields
from distilabel_openai_batch.api.retention import Retention
from tests.support.batch_api import CALLS, CHAT, connect, refusal

SECRET = "provider-key-that-must-not-leak"
OPTIONS = {"portkey_options": {"x-portkey-provider": "@one", "x-portkey-virtual-key": SECRET}, "provider": "one"}


async def test_extra_fields_are_sent_with_uploads_and_creations_beside_the_expiry(server, input_file):
    upload = CALLS["upload"].route(server).mock(return_value=CALLS["upload"].success)
    create = CALLS["create"].route(server).mock(return_value=CALLS["create"].success)
    extra_fields = ExtraFields({"target_model_names": "one, two", "options": {"region": "north"}}, OPTIONS)

    async with connect(retention=Retention(3_600, 86_400), extra_fields=extra_fields) as api:
        await api.files.upload(input_file, "input.jsonl")
        await api.create("file-1", CHAT, "24h", "the-key", {})

    content = upload.calls.last.request.content
    assert b'name="target_model_names"\r\n\r\none, two\r\n' in content
    assert b'name="options[region]"\r\n\r\nnorth\r\n' in content
    assert b'name="expires_after[seconds]"\r\n\r\n3600\r\n' in content
    sent = json.loads(create.calls.last.request.content)
    assert sent | OPTIONS == sent
    assert sent["output_expires_after"]["seconds"] == 86_400
    assert sent["input_file_id"] == "file-1"


async def test_no_message_shows_a_secret_of_the_extra_fields(server):
    CALLS["create"].route(server).mock(return_value=refusal(400, f"Unknown provider of {SECRET}."))
    async with connect(extra_fields=ExtraFields(creation=OPTIONS)) as api:
        with pytest.raises(errors.RunError, match=r"Unknown provider of \*\*\*") as caught:
            await api.create("file-1", CHAT, "24h", "the-key", {})
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(ExtraFields(creation=OPTIONS))


def test_public_fields_lack_secrets_at_any_depth():
    fields = {"a": [{"api_key": SECRET, "b": 1}], "token": [SECRET], "c": {"x-auth": {"d": SECRET}}}
    assert public_fields(fields) == {"a": [{"b": 1}], "c": {}}
    assert set(ExtraFields(upload=fields).secrets) == {SECRET}
