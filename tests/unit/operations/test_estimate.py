"""Tests of loading a pipeline for an estimate; `tests/pipelines/test_estimate.py` estimates whole pipelines."""

from __future__ import annotations

import logging

import anyio
import datasets
import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.operations.cut_retries import retry_digests
from distilabel_openai_batch.operations.estimate import _RequestRecorder, estimate_pipeline
from tests.unit.ledger.samples import CHAT, SCOPE


@pytest.mark.parametrize("content", [None, "a: 1", "pipeline: [", '{"pipeline": {}}'])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_that_is_no_pipeline_is_an_error_with_its_path(content, suffix, tmp_path):
    path = tmp_path / f"pipeline{suffix}"
    if content:
        path.write_text(content)
    with pytest.raises(OpenAIBatchError, match=rf"pipeline\{suffix} cannot be loaded as a pipeline"):
        estimate_pipeline(path, {})


def test_logging_and_progress_bars_are_as_before_an_estimate(tmp_path):
    before = logging.root.manager.disable, datasets.are_progress_bars_disabled()
    with pytest.raises(OpenAIBatchError):
        estimate_pipeline(tmp_path / "none.yaml", {})
    assert (logging.root.manager.disable, datasets.are_progress_bars_disabled()) == before


@pytest.mark.parametrize(
    ("refused", "sent"),
    [({}, {"max_tokens": 128}), ({"alias": {"max_tokens"}}, {"max_completion_tokens": 25_000})],
)
def test_the_retries_of_an_estimate_are_those_of_the_request_that_a_run_sends(refused, sent):
    """The identity of the first request stays the same: its answer is paid for."""
    settings = OpenAIBatchLLM(model="alias", api_key="sk-one", on_truncated="retry").session_settings()
    recorder = _RequestRecorder(SCOPE.base_url, settings, refused=refused)
    chat = {"model": "alias", "messages": [{"role": "user", "content": "Hi"}]}
    call = APICall(CHAT, {**chat, "max_tokens": 128}, has_default_limit=True)

    anyio.run(recorder.submit, [call])

    [(custom_id, usage)] = recorder.requests
    assert custom_id == f"{call.build(SCOPE.base_url, CHAT)[1]}-0"
    assert usage.tokens_out == next(iter(sent.values()))
    assert recorder.retry_digests[custom_id] == retry_digests(APICall(CHAT, {**chat, **sent}), SCOPE.base_url, CHAT)
