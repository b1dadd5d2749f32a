"""`SubmitBatch` without a server: rows as JSON, columns, and the name of the submission."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import orjson
import pytest
from distilabel.constants import PIPELINE_NAME_ENV_NAME
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, RunError, SubmitBatch
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.plugin.steps.submit import row_to_json
from tests.unit.plugin.stubs import CONNECTION


def submit(**fields) -> SubmitBatch:
    return SubmitBatch(name="submit", task=TextGeneration(name="task", llm=OpenAIBatchLLM(**CONNECTION)), **fields)


def test_row_is_kept_as_json():
    """Columns that no request is made of may change: a date becomes text, an array a list."""
    row = {"when": [1.0, None, "é", True], "date": datetime(1969, 7, 20), "array": np.array([1, 2])}

    assert orjson.loads(row_to_json("submit", ["when"], row)) == {
        "when": [1.0, None, "é", True],
        "date": "1969-07-20T00:00:00",
        "array": [1, 2],
    }


@pytest.mark.parametrize("value", [datetime(1969, 7, 20), float("nan"), (1, 2), [{"at": (1,)}], {1: 2}], ids=repr)
def test_value_that_json_changes_is_refused_in_a_column_of_the_task(value):
    with pytest.raises(RunError, match=r"'submit' .* of the column 'when'"):
        row_to_json("submit", ["when"], {"when": value})


@pytest.mark.parametrize("value", [object(), {1, 2}], ids=["object", "set"])
def test_value_that_json_cannot_hold_is_refused_in_every_column(value):
    with pytest.raises(RunError, match=r"'submit' .* cannot hold the column 'odd'"):
        row_to_json("submit", ["when"], {"odd": value})


def test_inputs_are_those_of_the_task():
    assert submit().inputs == {"instruction": True, "system_prompt": False}


def test_outputs_describe_a_job():
    assert submit().outputs == ["run_name", "batch_id", "requests", "bytes", "status", "base_url"]


@pytest.mark.parametrize(
    ("fields", "pipeline", "name"),
    [({"run_name": "sky"}, "pipeline", "sky"), ({}, "pipeline", "pipeline/submit"), ({}, None, "submit")],
)
def test_submission_is_named_by_the_field_or_by_pipeline_and_step(monkeypatch, fields, pipeline, name):
    monkeypatch.delenv(PIPELINE_NAME_ENV_NAME, raising=False)
    if pipeline:
        monkeypatch.setenv(PIPELINE_NAME_ENV_NAME, pipeline)

    assert submit(**fields)._submission() == SubmissionRun(name, waits=False, submits=True)
