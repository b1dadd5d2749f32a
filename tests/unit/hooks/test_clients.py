"""Tests of the functions that find a step's client."""

from __future__ import annotations

import pytest
from distilabel.models.llms import MixtureOfAgentsLLM, OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import EmbeddingGeneration, GroupColumns, KeepColumns, LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from distilabel_openai_batch import OpenAIBatchEmbeddings, OpenAIBatchLLM, SubmitBatch
from distilabel_openai_batch.hooks import clients
from distilabel_openai_batch.hooks.clients import (
    batch_client,
    begin_run,
    pipeline_uses_batch_client,
    task_batch_client,
    uses_batch_client,
)
from distilabel_openai_batch.plugin.base import BatchClient

OTHER_LLM = OpenAILLM(model="gpt-4o-mini", api_key="sk-unused")


def test_batch_client_is_a_steps_llm_or_embeddings(llm):
    embeddings = OpenAIBatchEmbeddings(model="text-embedding-3-small")
    assert batch_client(TextGeneration(llm=llm)) is llm
    assert batch_client(EmbeddingGeneration(embeddings=embeddings)) is embeddings
    assert batch_client(TextGeneration(llm=OTHER_LLM)) is None
    assert batch_client(KeepColumns(columns=["id"])) is None


def test_task_batch_client_looks_into_the_field_task(llm):
    submit = SubmitBatch(task=TextGeneration(llm=llm), run_name="run")
    assert batch_client(submit) is None
    assert task_batch_client(submit) is submit.task.llm
    assert task_batch_client(TextGeneration(llm=llm)) is llm
    assert task_batch_client(TextGeneration(llm=OTHER_LLM)) is None


@pytest.mark.parametrize("position", ["aggregator", "proposer", "nowhere"])
def test_uses_batch_client_looks_into_a_mixture(llm, position):
    aggregator = llm if position == "aggregator" else OTHER_LLM
    proposers = [OTHER_LLM, llm if position == "proposer" else OTHER_LLM]
    task = TextGeneration(llm=MixtureOfAgentsLLM(aggregator_llm=aggregator, proposers_llms=proposers))
    assert task_batch_client(task) is None
    assert uses_batch_client(task) is (position != "nowhere")


def test_pipeline_uses_batch_client_looks_at_each_step(llm):
    for task_llm, expected in ((llm, True), (OTHER_LLM, False)):
        with Pipeline(name="pipeline") as pipeline:
            LoadDataFromDicts(data=[{"instruction": "Say it."}]) >> TextGeneration(llm=task_llm)
        assert pipeline_uses_batch_client(pipeline) is expected


def test_a_run_begins_for_each_client_of_a_pipeline(monkeypatch):
    """A mixture may have clients in both places. Each client receives the names of all steps."""
    begun: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(BatchClient, "begin_run", lambda self, steps, *_: begun.update({self.model: steps}))
    aggregator, proposer, other, submitted = (
        OpenAIBatchLLM(model=name, api_key="sk-unused") for name in ("aggregator", "proposer", "other", "submitted")
    )
    mixture = MixtureOfAgentsLLM(aggregator_llm=aggregator, proposers_llms=[OTHER_LLM, proposer])
    with Pipeline(name="pipeline") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Say it."}])
        load >> [
            TextGeneration(llm=mixture),
            TextGeneration(llm=other),
            SubmitBatch(task=TextGeneration(llm=submitted), run_name="run"),
        ]
    begin_run(pipeline)
    assert sorted(begun) == ["aggregator", "other", "proposer", "submitted"]
    assert set(begun.values()) == {tuple(pipeline.dag)}


def test_a_client_knows_the_tasks_after_its_own_and_the_columns_of_answers():
    """A step between two Tasks makes columns of answers; the columns of the data hold no answer."""
    first, judge, last = (OpenAIBatchLLM(model=name, api_key="sk-unused") for name in ("first", "judge", "last"))
    with Pipeline(name="pipeline") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Say it."}])
        group = GroupColumns(columns=["generation"], output_columns=["generations"])
        ratings = UltraFeedback(name="rate", llm=judge)
        load >> TextGeneration(name="write", llm=first) >> group >> ratings >> TextGeneration(name="end", llm=last)
    begin_run(pipeline)
    assert [client.tasks_after for client in (first, judge, last)] == [("rate", "end"), ("end",), ()]
    assert first.answer_columns == frozenset()
    assert {"generation", "generations"} <= judge.answer_columns
    assert "instruction" not in last.answer_columns


def test_a_type_is_registered_once(monkeypatch):
    monkeypatch.setattr(clients, "_client_types", ())
    assert batch_client(TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini"))) is None
    for _ in range(2):
        clients.register_client_type(BatchClient)
    assert clients._client_types == (BatchClient,)
