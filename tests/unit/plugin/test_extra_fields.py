"""The fields `batch_metadata`, `upload_extra` and `batch_extra`."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from distilabel_openai_batch import AzureOpenAIBatchLLM, OpenAIBatchEmbeddings, OpenAIBatchLLM
from distilabel_openai_batch.api.batches import KEY_METADATA, ROWS_METADATA, RUN_METADATA, SCOPE_METADATA
from tests.unit.plugin.stubs import CONNECTION

SECRET = "provider-key-that-must-not-leak"
PAIRS = {f"name {number}": "text" for number in range(11)}


@pytest.mark.parametrize("model", [OpenAIBatchLLM, AzureOpenAIBatchLLM, OpenAIBatchEmbeddings])
def test_the_settings_of_a_session_hold_the_fields(model):
    fields = {"upload_extra": {"a": "1"}, "batch_extra": {"b": [2]}}
    client = model(**CONNECTION, **fields, batch_metadata={"team": "data", "description": "Mine"})
    settings = client.session_settings()
    assert (settings.extra_fields.upload, settings.extra_fields.creation) == ({"a": "1"}, {"b": [2]})
    assert settings.jobs.metadata == {"team": "data", "description": "Mine"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("upload_extra", {"file": "x"}, "this package sets `file`"),
        ("upload_extra", {"purpose": "batch"}, "this package sets `purpose`"),
        ("upload_extra", {"expires_after": {}}, "set `input_expires_after`"),
        ("upload_extra", {"a": [math.nan]}, r"a\[0\] = nan"),
        ("batch_extra", {"input_file_id": "x"}, "this package sets `input_file_id`"),
        ("batch_extra", {"endpoint": "x"}, "this package sets `endpoint`"),
        ("batch_extra", {"completion_window": "x"}, "set `completion_window`"),
        ("batch_extra", {"metadata": {}}, "set `batch_metadata`"),
        ("batch_extra", {"output_expires_after": {}}, "set `output_expires_after`"),
        ("batch_metadata", PAIRS, "has 11 pairs"),
        *(
            ("batch_metadata", {key: "x"}, "this package's")
            for key in (KEY_METADATA, SCOPE_METADATA, RUN_METADATA, ROWS_METADATA, "distilabel_pipeline_name")
        ),
        ("batch_metadata", {"": "x"}, "1 to 64 characters"),
        ("batch_metadata", {"k" * 65: "x"}, "1 to 64 characters"),
        ("batch_metadata", {"k": "x" * 513}, "513 characters"),
        ("batch_metadata", {"k": 1}, "string"),
    ],
)
def test_names_of_other_settings_and_metadata_that_the_api_refuses_are_errors(field, value, message):
    with pytest.raises(ValidationError, match=message):
        OpenAIBatchLLM(**CONNECTION, **{field: value})
    with pytest.raises(ValidationError, match=message):
        OpenAIBatchLLM(**CONNECTION).set_runtime_parameters({field: value})


def test_ten_pairs_and_a_description_fit(monkeypatch):
    """A batch of a submission has 16 pairs then."""
    monkeypatch.setenv("DISTILABEL_PIPELINE_NAME", "pipeline")
    pairs = dict(list(PAIRS.items())[:10]) | {"description": "Mine"}
    metadata = OpenAIBatchLLM(**CONNECTION, batch_metadata=pairs).session_settings().jobs.metadata
    assert len({*metadata, "distilabel_pipeline_name", KEY_METADATA, SCOPE_METADATA, RUN_METADATA, ROWS_METADATA}) == 16


def test_dumps_and_repr_lack_secrets():
    extra = {"portkey_options": {"x-portkey-virtual-key": SECRET, "x-portkey-provider": "@one"}}
    client = OpenAIBatchLLM(**CONNECTION, upload_extra=extra, batch_extra=extra)
    dump = client.dump()
    assert dump["upload_extra"] == dump["batch_extra"] == {"portkey_options": {"x-portkey-provider": "@one"}}
    assert SECRET not in repr(client)
    assert client.session_settings().extra_fields.creation == extra
