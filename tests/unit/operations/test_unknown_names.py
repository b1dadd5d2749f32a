"""Tests of the search for misspelt fields and runtime parameters."""

from __future__ import annotations

from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.operations.unknown_names import unknown_fields, unknown_parameters

LLM_TYPE = {"module": "distilabel_openai_batch", "name": "OpenAIBatchLLM"}
TASK_TYPE = {"module": "distilabel.steps.tasks.text_generation", "name": "TextGeneration"}


def step(**fields) -> dict:
    return {"name": "generate", "step": {"type_info": TASK_TYPE, "name": "generate", **fields}}


def test_a_field_of_the_class_is_known():
    llm = {"type_info": LLM_TYPE, "model": "m", "budget": 1, "generation_kwargs": {"anything": 1}}
    assert list(unknown_fields([step(llm=llm, num_generations=2, runtime_parameters_info=[])])) == []


def test_an_unknown_field_is_named_with_its_path_and_a_suggestion():
    llm = {"type_info": LLM_TYPE, "model": "m", "buget": 1}
    assert list(unknown_fields([step(llm=llm, zyx=2)])) == [
        "generate: TextGeneration has no field `zyx`.",
        "generate.llm: OpenAIBatchLLM has no field `buget`. Did you mean `budget`?",
    ]


def test_objects_in_lists_are_searched():
    nested = {"name": "a", "step": {"llms": [{"type_info": LLM_TYPE, "buget": 1}]}}
    assert list(unknown_fields([nested])) == ["a.llms.0: OpenAIBatchLLM has no field `buget`. Did you mean `budget`?"]


def test_an_unknown_step_or_parameter_is_named_with_a_suggestion():
    with Pipeline(name="names"):
        steps = {
            "generate": TextGeneration(name="generate", llm=OpenAIBatchLLM(model="m")),
            "kept": KeepColumns(name="kept", columns=["a"]),
        }
    parameters = {"generat": {}, "generate": {"llm": {"max_job": 1, "budget": 1}}, "kept": {"colums": 1}}
    assert list(unknown_parameters(steps, parameters)) == [
        "There is no step `generat`. Did you mean `generate`?",
        "generate.llm: OpenAIBatchLLM has no runtime parameter `max_job`. Did you mean `max_jobs`?",
        "kept: KeepColumns has no runtime parameter `colums`.",
    ]
