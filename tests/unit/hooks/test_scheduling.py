"""Tests of the schedule of Tasks with a client."""

from __future__ import annotations

import logging

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline, routing_batch_function
from distilabel.steps import GroupColumns, LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration, UltraFeedback
from distilabel.steps.tasks.base import GlobalTask

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM
from distilabel_openai_batch.hooks.scheduling import tasks_count_as_ordinary
from distilabel_openai_batch.hooks.step_process import is_stopped


class UsersTask(TextGeneration):
    """A Task class that a user wrote."""


class UsersGlobalTask(GlobalTask, TextGeneration):
    """A Task class that a user made global."""


@pytest.mark.parametrize("task", [TextGeneration, UltraFeedback, UsersTask])
def test_a_task_with_a_client_is_global(task):
    """The same holds for a class that the user derived; with another LLM the class is not changed."""
    assert task(llm=OpenAIBatchLLM(model="gpt-4o-mini")).is_global
    assert not task(llm=OpenAILLM(model="gpt-4o-mini")).is_global


def test_tasks_count_as_ordinary_inside_the_block_only(llm):
    task, global_task = TextGeneration(llm=llm), UsersGlobalTask(llm=llm)
    with tasks_count_as_ordinary():
        assert not task.is_global
        assert global_task.is_global
    assert task.is_global


def test_sibling_tasks_share_a_load_stage(llm):
    with Pipeline(name="siblings") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}])
        load >> [TextGeneration(name=name, llm=llm.model_copy()) for name in ("one", "two")]
    stages, _ = pipeline.get_load_stages()
    assert sorted(stages[0]) == ["load", "one", "two"]


@routing_batch_function()
def one_of_two(steps):
    return steps[:1]


def test_a_task_before_a_joining_step_stays_ordinary(llm, caplog):
    """The joining step expects the routed batches one by one. A log line says that jobs will be small, once."""
    with Pipeline(name="routed") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}])
        tasks = [TextGeneration(name=name, llm=llm.model_copy(), input_batch_size=50) for name in ("one", "two")]
        load >> one_of_two >> tasks >> GroupColumns(name="group", columns=["generation"])
    pipeline.dag.validate()

    with caplog.at_level(logging.WARNING, "distilabel.openai_batch"):
        for _ in range(2):
            pipeline.get_load_stages()

    assert not any(task.is_global for task in tasks)
    warnings = [record.message for record in caplog.records if "joins again" in record.message]
    assert [message.split("'")[1] for message in warnings] == ["one", "two"]


def test_an_error_that_stops_the_pipeline_marks_the_step(monkeypatch):
    """Only then does distilabel end the run: such a step counts as global."""
    task = TextGeneration(llm=OpenAILLM(model="gpt-4o-mini", api_key="sk-unused"))

    def fail(*args):
        raise AuthenticationError("The key was withdrawn.")

    monkeypatch.setattr(TextGeneration, "process", fail)
    with pytest.raises(AuthenticationError):
        next(task.process_applying_mappings([{"instruction": "Say it."}]))

    assert is_stopped(task)
    assert task.is_global
