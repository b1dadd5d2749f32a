"""Tests of loading a pipeline for an estimate; `tests/pipelines/test_estimate.py` estimates whole pipelines."""

from __future__ import annotations

import logging

import datasets
import pytest

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.operations.estimate import estimate_pipeline


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
