"""Tests of batches whose rows pass the queues as bytes."""

from __future__ import annotations

from queue import SimpleQueue

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManagerStep
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks.packed_batches import pack_rows, unpack_rows

TEXT = "Say it."
ROWS = [{"instruction": TEXT, "metadata": {"raw_input": TEXT}}, {"instruction": None, "metadata": {1: (2.5, b"")}}]


def batch_of(rows: list, **fields) -> _Batch:
    return _Batch(0, "generate", last_batch=False, data=[rows], **fields)


def pipeline_of(llm_class) -> Pipeline:
    with Pipeline(name="packed") as pipeline:
        task = TextGeneration(name="generate", llm=llm_class(model="gpt-4o-mini", api_key="sk-unused"))
        LoadDataFromDicts(name="load", data=[{"instruction": TEXT}]) >> task
    pipeline.dag.set_step_attr("generate", "input_queue", SimpleQueue())
    return pipeline


def test_rows_are_bytes_until_they_are_unpacked():
    """A text that a row holds twice is one object afterwards too."""
    batch = batch_of(ROWS)
    pack_rows(batch)
    assert type(batch.data) is bytes
    unpack_rows(batch)
    assert batch.data == [ROWS]
    assert batch.data[0][0]["instruction"] is batch.data[0][0]["metadata"]["raw_input"]
    unpack_rows(batch)
    assert batch.data == [ROWS]


@pytest.mark.parametrize("batch", [batch_of([{"value": lambda: 1}]), batch_of(ROWS, data_path="/rows")])
def test_rows_stay_if_a_file_has_them_or_they_cannot_be_pickled(batch):
    rows = batch.data
    pack_rows(batch)
    assert batch.data is rows


@pytest.mark.parametrize(("llm_class", "is_packed"), [(OpenAIBatchLLM, True), (OpenAILLM, False)])
def test_rows_are_packed_for_a_step_with_a_client(llm_class, is_packed):
    """The batch manager keeps the batch that was sent last, for a later run."""
    pipeline, batch = pipeline_of(llm_class), batch_of(ROWS)

    pipeline._send_to_step("generate", batch)

    sent = pipeline.dag.get_step("generate")["input_queue"].get()
    assert (type(sent.data) is bytes) == is_packed
    unpack_rows(sent)
    assert sent == batch == batch_of(ROWS)


def test_other_messages_pass_as_they_are():
    pipeline = pipeline_of(OpenAIBatchLLM)
    pipeline._send_to_step("generate", None)
    assert pipeline.dag.get_step("generate")["input_queue"].get() is None


def test_a_packed_batch_of_a_step_is_unpacked_when_it_arrives():
    batch = batch_of(ROWS)
    batch.step_name = "load"
    pack_rows(batch)
    pipeline_of(OpenAIBatchLLM)._process_batch(batch)
    assert batch.data == [ROWS]


def test_a_batch_that_a_stopped_step_had_not_read_is_unpacked():
    step, batch = (
        _BatchManagerStep("generate", accumulate=False, input_batch_size=50, data={"load": []}),
        batch_of(ROWS),
    )
    pack_rows(batch)
    step.add_batch(batch, prepend=True)
    assert step.get_batch().data == [ROWS]
