"""`StreamBatchResults` without a server: rows, columns, signature, dump."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from distilabel.errors import DistilabelUserError
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults
from tests.unit.plugin.stubs import CONNECTION

ROWS = [{"instruction": f"Say number {i}."} for i in range(3)]


def stream(data: object) -> StreamBatchResults:
    task = TextGeneration(name="task", llm=OpenAIBatchLLM(**CONNECTION))
    return StreamBatchResults(name="stream", task=task, data=data)


def test_outputs_are_the_columns_of_the_rows_and_of_the_task():
    assert stream([{"id": 1, "instruction": "Why?"}]).outputs == ["id", "instruction", "generation", "model_name"]


@pytest.mark.parametrize(
    ("data", "message"), [([{"question": "Why?"}], "input_mappings"), ([], "has no rows"), (None, "has no rows")]
)
def test_outputs_need_rows_with_the_columns_of_the_task(data, message):
    with pytest.raises(DistilabelUserError, match=message):
        stream(data).outputs  # noqa: B018


@pytest.mark.parametrize("of", [list, Dataset.from_list], ids=["list", "dataset"])
def test_signature_covers_the_rows(of):
    """Other rows are another step for distilabel's cache."""
    assert stream(of(ROWS)).signature == stream(of(ROWS)).signature
    assert stream(of(ROWS)).signature != stream(of(ROWS[:2])).signature


def test_signature_covers_a_path():
    assert stream("rows.jsonl").signature == stream("rows.jsonl").signature
    assert stream("rows.jsonl").signature != stream("others.jsonl").signature


def test_dump_holds_a_path_and_no_rows():
    assert stream("rows.jsonl").dump()["data"] == "rows.jsonl"
    assert "data" not in json.loads(json.dumps(stream(ROWS).dump()))
