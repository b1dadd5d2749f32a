"""Tests of the schedule of Tasks with a client."""

from __future__ import annotations

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.base import StepResources
from distilabel.steps.tasks import TextGeneration, UltraFeedback
from distilabel.steps.tasks.base import GlobalTask

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM
from distilabel_openai_batch.hooks.step_process import is_stopped


class UsersTask(TextGeneration):
    """A Task class that a user wrote."""


class UsersGlobalTask(GlobalTask, TextGeneration):
    """A Task class that a user made global."""


@pytest.mark.parametrize("task", [TextGeneration, UltraFeedback, UsersTask])
@pytest.mark.parametrize("fields", [{}, {"use_offline_batch_generation": True}])
def test_a_task_with_a_client_is_an_ordinary_step(task, fields):
    """distilabel makes a Task with offline batches a global step."""
    assert not task(llm=OpenAIBatchLLM(model="gpt-4o-mini", **fields)).is_global


def test_a_task_that_a_user_made_global_stays_global(llm):
    assert UsersGlobalTask(llm=llm).is_global


@pytest.mark.parametrize(("llm_class", "replicas"), [(OpenAIBatchLLM, 1), (OpenAILLM, 3)])
def test_a_task_with_a_client_runs_in_one_process(llm_class, replicas):
    """Two processes would own one scope of the ledger."""
    with Pipeline(name="replicas") as pipeline:
        llm = llm_class(model="gpt-4o-mini", api_key="sk-unused")
        TextGeneration(name="generate", llm=llm, resources=StepResources(replicas=3))
    assert pipeline.dag.get_step_replica_count("generate") == replicas


def test_tasks_share_a_load_stage(llm):
    """Sibling Tasks run side by side, and a Task behind a Task gets rows as soon as there are any."""
    with Pipeline(name="siblings") as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}])
        one, two, three = (TextGeneration(name=name, llm=llm.model_copy()) for name in ("one", "two", "three"))
        load >> [one, two]
        one >> three
    stages, _ = pipeline.get_load_stages()
    assert sorted(stages[0]) == ["load", "one", "three", "two"]


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
