"""Tests of a Task's output columns and output schema."""

from __future__ import annotations

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.steps.tasks import MonolingualTripletGenerator, TextClassification, TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.hooks.failure_columns import AnnotatedOutput
from distilabel_openai_batch.hooks.row_columns import RowColumns, formatted_outputs, row_columns


def task_of(**fields) -> TextGeneration:
    task = TextGeneration(name="generate", llm=OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused", **fields))
    task.load()
    return task


def failed_output() -> AnnotatedOutput:
    output = AnnotatedOutput(generations=["Yes.", None], statistics={"input_tokens": [1, 1], "output_tokens": [1, 1]})
    output.failures = [None, Failure("No.", 400, "bad")]
    return output


def test_default_schema_is_sent_without_instructor():
    task = TextClassification(
        llm=OpenAIBatchLLM(model="gpt-4o-mini"), n=1, available_labels=["a"], use_default_structured_output=True
    )
    task._set_default_structured_output()
    assert task.llm.structured_output["format"] == "json"
    assert "labels" in task.llm.structured_output["schema"]["properties"]


def test_default_schema_leaves_a_users_schema():
    schema = {"schema": {"type": "object"}}
    task = TextClassification(
        llm=OpenAIBatchLLM(model="gpt-4o-mini", structured_output=schema), use_default_structured_output=True
    )
    task._set_default_structured_output()
    assert task.llm.structured_output == schema


@pytest.mark.parametrize("add_failures", [True, False])
def test_failure_column_is_an_output_of_the_step(add_failures):
    task = task_of(add_failures=add_failures)
    assert list(task.get_outputs()) == ["generation", "model_name"] + ["failure_generate"] * add_failures


def test_failure_column_of_another_name_is_no_output_of_the_task():
    """`LoadBatchResults` names the column itself."""
    token = row_columns.set(RowColumns("batch_failure"))
    try:
        assert "failure_generate" not in task_of(add_failures=True).get_outputs()
    finally:
        row_columns.reset(token)


def test_each_generation_gets_its_own_cell():
    rows = task_of(add_failures=True)._format_outputs(failed_output(), {"instruction": "Say it."})
    assert [row["failure_generate"] and row["failure_generate"]["code"] for row in rows] == [None, "bad"]


def test_rows_without_add_failures_are_as_distilabel_makes_them():
    for row in task_of()._format_outputs(failed_output(), {"instruction": "Say it."}):
        assert "failure_generate" not in row


def test_formatted_rows_are_counted():
    token = formatted_outputs.set([])
    try:
        task_of(add_failures=True)._format_outputs(failed_output(), {"instruction": "Say it."})
        assert formatted_outputs.get() == [2]
    finally:
        formatted_outputs.reset(token)


@pytest.mark.parametrize(
    "llm",
    [
        OpenAILLM(model="gpt-4o-mini", api_key="sk-unused"),
        OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused"),
        OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused", add_failures=True),
    ],
    ids=["another LLM", "no failures", "failures"],
)
def test_generator_step_gets_the_failure_column(monkeypatch, llm):
    task = MonolingualTripletGenerator(name="generate", llm=llm, language="English", seed=1)
    monkeypatch.setattr(type(task), "process", lambda self, offset=0: iter([([{"anchor": "Yes."}], True)]))
    [(rows, is_last)] = task.process_applying_mappings()
    assert is_last
    assert rows == [{"anchor": "Yes."} | ({"failure_generate": None} if getattr(llm, "add_failures", False) else {})]
